"""Asking again for captions that fit badly, and keeping an answer only where it fits better.

Each round asks for several answers for each caption that there is something wrong with, telling what is wrong and
what was measured, and scores them against the image: Self-Refine (Madaan et al. 2023, arXiv 2303.17651), but with a
judge of its own. A score that is aimed at stops being a measure (Goodhart's law): a bare list of the right words scores
well and is no caption. So such answers are vetoed whatever their score, and gains are reported beside lengths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.accounting import busy_seconds
from dqe_assets.caption.answers import answer_table, collect, prepared, record
from dqe_assets.caption.flags import FLAGS
from dqe_assets.core.arrow import scatter
from dqe_assets.improve.tables import REFINED_CAPTIONS
from dqe_resources.captioners.protocol import Caption, Sample
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dqe_assets.caption.answers import Finished, Track
    from dqe_assets.caption.prompts import Prompt
    from dqe_assets.improve.refining_settings import Refining
    from dqe_resources.captioners.protocol import VisionCaptioner

NO_CAPTION, BELOW, BELOW_ORIGINAL = "no_caption", "below", "below_original"
"""Reasons for asking again, beside the flags of a caption."""

UNCHANGED, WORD_LIST, TOO_LONG = "unchanged", "word_list", "too_long"
"""Vetoes, beside the flags of an answer."""

ALWAYS_ALLOWED_WORDS = 50

# English sentences hold together by such words. Of 16,997 captions that CogVLM2 and InternVL2 wrote of SBU photos, the
# one with the fewest has a share of 0.28; a list of words has next to none.
_HOLDS_TOGETHER = frozenset(
    """
    a an the this that these those some and or but of in on at to from with without by for as into onto over under near
    beside behind between is are was were be been being has have had it its their his her they he she there which who
    while where
    """.split()  # noqa: SIM905
)
_FEWEST_OF_THEM = 0.15
_FROM_WORDS = 6
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

ANSWERS = pa.schema(
    [
        REFINED_CAPTIONS.field(name)
        for name in (
            *("uid", "round", "candidate", "text", "caption", "flags", "finish_reason", "error", "model", "revision"),
            *("prompt", "prompt_hash", "prompt_tokens", "completion_tokens", "seconds", "attempts", "finished_at"),
        )
    ]
)
"""What is known of an answer before it is scored."""

JUDGED = pa.schema(
    [field for field in REFINED_CAPTIONS if field.name not in {"caption_source", "independent", "temperature", "cost"}]
)
"""What is known of it once it is."""


@dataclass(frozen=True, slots=True)
class Present:
    """The caption that a sample has now; similarity None where nothing could be scored."""

    caption: str | None
    flags: tuple[str, ...]
    similarity: float | None


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
            there is; ``original_caption`` and ``original_similarity``; ``labels`` and ``image_text``, in words.
        rules: the settings.
        ask: asks.
        score: gives the similarity of captions with the images of samples, by their rows, int64 [m].

    Returns:
        ``JUDGED``, by round, sample and candidate.
    """
    rows = samples.to_pylist()
    uids = samples["uid"].combine_chunks()
    present = [Present(row["caption"], tuple(row["flags"] or ()), row["similarity"]) for row in rows]
    longest = [max(ALWAYS_ALLOWED_WORDS, rules.max_words_ratio * _words(one.caption)) for one in present]
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
        "words": pa.array([None if one is None else _words(one) for one in captions], pa.int32()),
        "previous_words": pa.array([_words(present[place].caption) for place in places], pa.int32()),
        "tokens": scatter(scores.tokens, there, len(places), pa.int32()),
        "truncated": scatter(scores.truncated, there, len(places), pa.bool_()),
    }
    for name, values in judged.items():
        answers = answers.append_column(name, values)
    return answers


def reasons_for(present: Present, original_similarity: float | None, rules: Refining) -> tuple[str, ...]:
    """Why a caption is asked for again; none where it may stay."""
    if present.caption is None:
        return (NO_CAPTION,)
    similarity = present.similarity
    found = {
        BELOW: similarity is not None and rules.below is not None and similarity < rules.below,
        BELOW_ORIGINAL: rules.below_original
        and similarity is not None
        and original_similarity is not None
        and similarity < original_similarity,
    }
    return (*(reason for reason, holds in found.items() if holds), *(f for f in present.flags if f in rules.flags))


def veto(caption: str | None, flags: Sequence[str] | None, present: Present, longest: float) -> str | None:
    """What speaks against an answer whatever its similarity; None if nothing does, or there is no answer.

    Args:
        caption: the answer.
        flags: what is wrong with it.
        present: the caption that it would take the place of.
        longest: words that it may have.
    """
    if caption is None:
        return None
    if flags:
        return flags[0]
    if caption == present.caption:
        return UNCHANGED
    if is_word_list(caption):
        return WORD_LIST
    return TOO_LONG if _words(caption) > longest else None


def is_word_list(caption: str) -> bool:
    """Whether a text of six words or more has hardly any of the words that hold English sentences together."""
    words = _WORD.findall(caption.lower())
    held = sum(word in _HOLDS_TOGETHER for word in words)
    return len(words) >= _FROM_WORDS and held < _FEWEST_OF_THEM * len(words)


def accept(
    places: np.ndarray, similarity: np.ndarray, previous: np.ndarray, vetoed: np.ndarray, min_gain: float
) -> np.ndarray:
    """Which answers take the place of what was there: of each sample's, the best that is allowed, if it is better.

    Args:
        places: int64 [m], which sample each answer is of.
        similarity: float32 [m], NaN where there is none.
        previous: float32 [m], of the caption that the sample has, NaN where it has none: any answer is better.
        vetoed: bool [m], answers that are not accepted.
        min_gain: by how much it must be higher; at 0 it must be higher still.

    Returns:
        bool [m], true once for a sample at most. Of equal answers the first is taken.
    """
    gain = similarity.astype(np.float64) - previous
    better = np.isnan(previous) | ((gain > 0) & (gain >= min_gain))
    allowed = np.flatnonzero(~vetoed & np.isfinite(similarity) & better)
    best_first = allowed[np.lexsort((allowed, -similarity[allowed], places[allowed]))]
    _, firsts = np.unique(places[best_first], return_index=True)
    accepted = np.zeros(len(places), bool)
    accepted[best_first[firsts]] = True
    return accepted


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
    """What a prompt says is wrong with the caption that there is."""
    measured = f"a model that compares images with texts gives it a similarity of {_number(present.similarity):.3f}"
    said = {
        NO_CAPTION: None,
        BELOW: f"{measured}; at least {_number(rules.below):.3f} is wanted.",
        BELOW_ORIGINAL: f"{measured}; the caption that it was found with has {_number(original_similarity):.3f}.",
        **{flag: f"{meaning}." for flag, meaning in FLAGS.items()},
    }
    return " ".join(sentence[0].upper() + sentence[1:] for reason in reasons if (sentence := said[reason])) or None


def _words(caption: str | None) -> int:
    return len((caption or "").split())


def _number(value: float | None) -> float:
    return np.nan if value is None else value


@dataclass(frozen=True)
class CandidateAsker:
    """Asks a captioner that sees the image for the candidates of a round; what was answered before is not asked again.

    Attributes:
        captioner: as it is to be asked: see ``Refining.asked``.
        prompt: the prompt.
        candidates: answers for each sample.
        images: gives the image files of samples, by their ascending rows, one after another.
        known: rows of ``ANSWERS`` that were made before.
        keep: is given finished rows while others are still being made.
        track: reports progress over the answers of a round.
    """

    captioner: VisionCaptioner
    prompt: Prompt
    candidates: int
    images: Callable[[Sequence[int]], Iterator[bytes]]
    known: pa.Table
    keep: Callable[[pa.Table], None]
    track: Track

    def __call__(self, number: int, requests: Sequence[Request]) -> pa.Table:
        """The answers of a round."""
        of_round = self.known.filter(
            pc.and_(
                pc.equal(self.known["round"], number),
                pc.is_in(self.known["uid"], value_set=pa.array([one.uid for one in requests], pa.string())),
            )
        )
        there = set(zip(of_round["uid"].to_pylist(), of_round["candidate"].to_pylist(), strict=True))
        missing = [
            (request, [number for number in range(self.candidates) if (request.uid, number) not in there])
            for request in requests
        ]
        missing = [(request, numbers) for request, numbers in missing if numbers]
        parts = [of_round]

        def add(finished: list[Finished[tuple[str, int]]]) -> pa.Table:
            records = [
                {
                    "uid": uid,
                    "round": number,
                    "candidate": candidate,
                    **record(caption, finished_at, self.captioner, self.prompt),
                }
                for (uid, candidate), caption, finished_at in finished
            ]
            parts.append(answer_table(records, ANSWERS))
            return parts[-1]

        collect(
            self.captioner,
            self._questions(number, missing),
            add,
            keep=self.keep,
            track=self.track,
            known=of_round.num_rows,
            total=len(requests) * self.candidates,
        )
        return pa.concat_tables(parts)

    def _questions(
        self, number: int, missing: Sequence[tuple[Request, list[int]]]
    ) -> Iterator[tuple[tuple[str, int], Sample | Caption]]:
        """A sample for each candidate that is missing; an image is read and prepared once for all of them."""

        def of_one(item: tuple[tuple[Request, list[int]], bytes]) -> list[tuple[tuple[str, int], Sample | Caption]]:
            (request, candidates), data = item
            image = prepared(data, self.captioner)
            prompt = self.prompt.render(**request.quotes)
            return [
                (
                    (request.uid, candidate),
                    image if isinstance(image, Caption) else Sample({}, image, prompt, self._seed(number, candidate)),
                )
                for candidate in candidates
            ]

        images = self.images([request.place for request, _ in missing])
        for questions in ordered_map(of_one, zip(missing, images, strict=True)):
            yield from questions

    def _seed(self, number: int, candidate: int) -> int | None:
        """Another one for each candidate of each round, where the captioner has one: the same would answer the same."""
        if self.captioner.seed is None:
            return None
        return self.captioner.seed + (number - 1) * self.candidates + candidate


def reusable(answers: pa.Table) -> pa.Table:
    """Those of the answers of an interrupted run that another run would ask for in the same words.

    What failed is asked for again. A sample's later rounds built on it, and are left out: with one answer more, they
    might ask about another caption.
    """
    failed = answers.filter(pc.is_null(answers["caption"])).group_by("uid").aggregate([("round", "min")])
    first = failed["round_min"].take(pc.index_in(answers["uid"], value_set=failed["uid"].combine_chunks()))
    in_time = pc.fill_null(pc.less_equal(answers["round"], first), True)
    return answers.filter(pc.and_(in_time, pc.is_valid(answers["caption"])))


def costs(rows: pa.Table, rules: Refining, price_per_hour: float | None) -> pa.Array:
    """What each answer cost, float64, null where there is no price.

    By its tokens where the settings price them; otherwise each round's busy time at the price of an hour, shared
    among its answers by the seconds that each took.
    """
    prices = {
        "prompt_tokens": rules.price_per_million_prompt_tokens,
        "completion_tokens": rules.price_per_million_completion_tokens,
    }
    if any(price is not None for price in prices.values()):
        total = np.zeros(rows.num_rows)
        for name, price in prices.items():
            total += pc.fill_null(rows[name], 0).to_numpy() * (price or 0) / 1e6
        return pa.array(total)
    cost = np.full(rows.num_rows, np.nan)
    rounds = rows["round"].to_numpy()
    for number in np.unique(rounds) if price_per_hour is not None else ():
        inside = np.flatnonzero(rounds == number)
        part = rows.take(pa.array(inside))
        busy = busy_seconds(part["finished_at"], part["seconds"])
        seconds = part["seconds"].cast(pa.float64()).to_numpy()
        if busy is not None and np.nansum(seconds) > 0:
            cost[inside] = seconds / np.nansum(seconds) * busy / 3600 * price_per_hour
    return pa.array(cost, from_pandas=True)


def with_settings(
    rows: pa.Table,
    rules: Refining,
    captioner: VisionCaptioner,
    *,
    independent: bool,
) -> pa.Table:
    """``REFINED_CAPTIONS``: what ``refine`` gives, with who was asked, how, and what it cost."""
    same = {
        "caption_source": pa.scalar(rules.source),
        "independent": pa.scalar(independent),
        "temperature": pa.scalar(captioner.temperature, pa.float32()),
    }
    table = rows.append_column("cost", costs(rows, rules, captioner.price_per_hour))
    for name, value in same.items():
        table = table.append_column(name, pa.repeat(value, rows.num_rows))
    return table.select(REFINED_CAPTIONS.names).cast(REFINED_CAPTIONS)
