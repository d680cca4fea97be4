"""Asking again for captions that fit badly, and keeping an answer only if it fits better.

Each round asks for several answers for each faulty caption, tells the model what is wrong and what was measured, and
scores the answers against the image. This is Self-Refine (Madaan et al. 2023, arXiv 2303.17651), but with a separate
judge. A score that is aimed at stops being a measure (Goodhart's law): a bare list of the right words scores
well and is no caption. So such answers are vetoed whatever their score, and gains are reported together with lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.flags import FLAGS, UNGROUNDED
from dqe_assets.core.arrow import scatter
from dqe_assets.improve.refining_rules import (
    ALWAYS_ALLOWED_WORDS,
    BELOW,
    BELOW_ORIGINAL,
    NO_CAPTION,
    Present,
    accept,
    count_words,
    reasons_for,
    veto,
)
from dqe_assets.improve.tables import REFINED_CAPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dqe_assets.improve.refining_settings import Refining

JUDGED = pa.schema(
    [field for field in REFINED_CAPTIONS if field.name not in {"caption_source", "independent", "temperature", "cost"}]
)
"""What is known of it once it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """A sample that is to be asked about.

    Attributes:
        place: its row among the samples.
        uid: its uid.
        quotes: what the prompt quotes, by placeholder.
    """

    place: int
    uid: str
    quotes: Mapping[str, str | None]


class Scores(NamedTuple):
    """How well n captions fit, and what the scorer's tokenizer made of them."""

    similarity: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray


class Ask(Protocol):
    """Asks about samples: a row of ``ANSWERS`` for each and each candidate of the round, in any order."""

    def __call__(self, number: int, requests: Sequence[Request]) -> pa.Table:
        """Ask in a round, from 1."""


def refine(
    samples: pa.Table, rules: Refining, ask: Ask, score: Callable[[np.ndarray, Sequence[str]], Scores]
) -> pa.Table:
    """Ask again, round after round, for the captions that the rules find wanting.

    A sample is asked about while there is a reason to, and while the round before brought something. Its score never
    falls: an answer is accepted only if it is higher than what is there.

    Args:
        samples: those with an image, n rows: ``uid``; ``caption``, ``flags`` and ``similarity`` of the caption that
            there is; ``ungrounded``, the things that it names without showing them, or null; ``original_caption`` and
            ``original_similarity``; ``labels`` and ``image_text``, in words.
        rules: the settings.
        ask: asks.
        score: gives the similarity of captions with the images of samples, by their rows, int64 [m].

    Returns:
        ``JUDGED``, by round, sample and candidate.
    """
    rows = samples.to_pylist()
    uids = samples["uid"].combine_chunks()
    present = [
        Present(row["caption"], tuple(row["flags"] or ()), row["similarity"], tuple(row["ungrounded"] or ()))
        for row in rows
    ]
    longest = [max(ALWAYS_ALLOWED_WORDS, rules.max_words_ratio * count_words(one.caption)) for one in present]
    active: Sequence[int] = range(len(rows))
    rounds = []
    for number in range(1, rules.rounds + 1):
        reasons = {place: reasons_for(present[place], rows[place]["original_similarity"], rules) for place in active}
        active = [place for place in active if reasons[place]]
        if not active:
            break
        answers = ask(number, [_request(place, rows[place], present[place], reasons[place], rules) for place in active])
        answers = answers.append_column("place", pc.index_in(answers["uid"], value_set=uids))
        judged = _judged(answers, present, longest, rules, score)
        active = []
        for row in judged.filter(judged["accepted"]).select(["place", "caption", "similarity"]).to_pylist():
            present[row["place"]] = Present(row["caption"], (), row["similarity"])
            active.append(row["place"])
        why = pa.array([", ".join(reasons[place]) for place in judged["place"].to_pylist()], pa.string())
        rounds.append(judged.append_column("reason", why).select(JUDGED.names))
    return pa.concat_tables(rounds) if rounds else JUDGED.empty_table()


def _judged(
    answers: pa.Table,
    present: Sequence[Present],
    longest: Sequence[float],
    rules: Refining,
    score: Callable[[np.ndarray, Sequence[str]], Scores],
) -> pa.Table:
    """The answers of a round by sample and candidate, each with its score, its veto and whether it is accepted."""
    answers = answers.sort_by([("place", "ascending"), ("candidate", "ascending")])
    places = answers["place"].to_numpy().astype(np.int64)
    captions = answers["caption"].to_pylist()
    vetoes = [
        veto(caption, flags, present[place], longest[place])
        for caption, flags, place in zip(captions, answers["flags"].to_pylist(), places, strict=True)
    ]
    there = np.flatnonzero(answers["caption"].is_valid().to_numpy())
    scores = score(places[there], [captions[row] for row in there])
    similarity = np.full(len(places), np.nan, np.float32)
    similarity[there] = scores.similarity
    previous = np.array([_number(present[place].similarity) for place in places], np.float32)
    vetoed = np.array([one is not None for one in vetoes])
    judged = {
        "veto": pa.array(vetoes, pa.string()),
        "similarity": pa.array(similarity, from_pandas=True),
        "previous_similarity": pa.array(previous, from_pandas=True),
        "accepted": pa.array(accept(places, similarity, previous, vetoed, rules.min_gain)),
        "words": pa.array([None if one is None else count_words(one) for one in captions], pa.int32()),
        "previous_words": pa.array([count_words(present[place].caption) for place in places], pa.int32()),
        "tokens": scatter(scores.tokens, there, len(places), pa.int32()),
        "truncated": scatter(scores.truncated, there, len(places), pa.bool_()),
    }
    for name, values in judged.items():
        answers = answers.append_column(name, values)
    return answers


def _request(place: int, row: Mapping[str, Any], present: Present, reasons: Sequence[str], rules: Refining) -> Request:
    quotes = {
        # A better example helps, a worse one would mislead.
        "original_caption": row["original_caption"] if BELOW_ORIGINAL in reasons else None,
        "previous_caption": present.caption,
        "problem": _in_words(present, row["original_similarity"], reasons, rules),
        "labels": row["labels"],
        "image_text": row["image_text"],
    }
    return Request(place, row["uid"], quotes)


def _in_words(
    present: Present, original_similarity: float | None, reasons: Sequence[str], rules: Refining
) -> str | None:
    """What is wrong with the present caption, in the words of the prompt."""
    measured = f"a model that compares images with texts gives it a similarity of {_number(present.similarity):.3f}"
    said = {
        NO_CAPTION: None,
        BELOW: f"{measured}; at least {_number(rules.below):.3f} is wanted.",
        BELOW_ORIGINAL: f"{measured}; the caption that it was found with has {_number(original_similarity):.3f}.",
        **{flag: f"{meaning}." for flag, meaning in FLAGS.items()},
        UNGROUNDED: f"it names what the image does not seem to show: {', '.join(present.ungrounded)}.",
    }
    # What is known to be wrong is told whatever the reason for asking.
    known = (UNGROUNDED,) if present.ungrounded else ()
    told = (said[reason] for reason in dict.fromkeys((*reasons, *known)))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in told if sentence) or None


def _number(value: float | None) -> float:
    return np.nan if value is None else value
