"""Judging: which samples are drawn, which question the judge gets, and how its answers become rows.

All captions of a sample are judged in one request, side by side. The image, which takes most of the tokens, is
then read once, and what is compared is judged by the same scale at the same moment. The price: a judge may favour a
place (Zheng et al. 2023, arXiv 2306.05685). So the order is drawn for each sample and kept as ``place``: over many
samples such a favour falls on all sources alike, and can be measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.caption.prepare import prepare_image
from dqe_assets.caption.prompts import Prompt, quoted, read_prompt
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.improve.tables import CAPTION_JUDGEMENTS
from dqe_resources.captioners.budget import Cap, Tokens
from dqe_resources.captioners.judge import CRITERIA, parse
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from dqe_resources.images import ImageError, guarded
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dqe_resources.captioners.judge import Judge

LONGEST_CAPTION = 2000
"""Characters of a caption that the judge is shown."""

LONGEST_REASON = 300
LONGEST_TEXT = 2000

UNPARSABLE = "unparsable"


@dataclass(frozen=True, slots=True)
class Question:
    """A sample whose captions are judged.

    Attributes:
        row: its row in the shard.
        uid: its uid.
        stratum: the stratum that it was drawn from.
        captions: caption source and caption, in the order in which they are shown.
    """

    row: int
    uid: str
    stratum: int
    captions: tuple[tuple[str, str], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the captions, which do not reveal their sources."""
        return tuple(f"{ascii_uppercase[n % 26]}{n // 26 or ''}" for n in range(len(self.captions)))

    def prompt(self, rubric: Prompt) -> str:
        """What the judge is asked."""
        quotations = (
            f'<caption label="{label}">{quoted(caption, LONGEST_CAPTION)}</caption>'
            for label, (_, caption) in zip(self.labels, self.captions, strict=True)
        )
        # The captions last: a placeholder that one of them holds is then no placeholder.
        return rubric.text.replace("{labels}", ", ".join(self.labels)).replace("{captions}", "\n".join(quotations))


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of all questions: the judge, the rubric, and the limits on tokens and cost."""

    judge: Judge
    rubric: Prompt
    cap: Cap


def load_rubric() -> Prompt:
    """The question to a judge, which comes with the platform."""
    return read_prompt("rubric", Path(__file__).with_name("rubric.txt"))


def mean_similarity(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """What samples are stratified by: the original caption's similarity, or else the mean of the other captions'.

    Args:
        scores: similarities of each caption source, float [n], NaN if there is none.

    Returns:
        float64 [n], NaN if no caption has a similarity.
    """
    others = np.array([values for source, values in scores.items() if source != ORIGINAL], np.float64)
    count = np.isfinite(others).sum(0)
    mean = np.divide(np.nansum(others, 0), count, out=np.full(np.shape(scores[ORIGINAL]), np.nan), where=count > 0)
    return np.where(np.isfinite(scores[ORIGINAL]), scores[ORIGINAL], mean)


def draw(uids: Sequence[str], similarity: np.ndarray, *, per_shard: int, strata: int, seed: int) -> dict[int, int]:
    """Samples drawn alike from quantile strata of similarity.

    The draw depends on the uids, the similarities and the seed, and not on the order of the samples. Where there are
    fewer samples than are wanted, all are drawn; what cannot be divided evenly goes to the lowest strata.

    Args:
        uids: [n].
        similarity: float [n]; samples where it is NaN are never drawn.
        per_shard: samples to draw, 1 or more.
        strata: strata of as equal a size as can be, 1 or more.
        seed: another one draws others.

    Returns:
        The stratum of each row that is drawn, 0 the lowest, in the order of the rows.
    """
    ranked = sorted(np.flatnonzero(np.isfinite(similarity)).tolist(), key=lambda row: (similarity[row], uids[row]))
    wanted = min(per_shard, len(ranked))
    strata = min(strata, wanted)
    drawn: dict[int, int] = {}
    for stratum, rows in enumerate(np.array_split(ranked, strata) if strata else ()):
        quota = wanted // strata + (stratum < wanted % strata)
        lots = sorted(rows.tolist(), key=lambda row: _lot(seed, uids[row]))
        drawn |= dict.fromkeys(lots[:quota], stratum)
    return dict(sorted(drawn.items()))


def questions(
    uids: Sequence[str], drawn: Mapping[int, int], captions: Mapping[str, Sequence[str | None]], seed: int
) -> list[Question]:
    """What is asked of the drawn samples, their captions in an order drawn for each.

    Args:
        uids: of all samples of the shard.
        drawn: the stratum of each drawn row.
        captions: n captions of each source; those with nothing to quote are not shown.
        seed: of the order.
    """
    asked = []
    for row, stratum in drawn.items():
        uid = uids[row]
        shown = [(source, texts[row] or "") for source, texts in captions.items()]
        shown = [(source, text) for source, text in shown if quoted(text, LONGEST_CAPTION)]
        shown.sort(key=lambda pair: _lot(seed, uid, pair[0]))
        if shown:
            asked.append(Question(row, uid, stratum, tuple(shown)))
    return asked


def judgements(
    asked: Sequence[Question],
    image: Callable[[int], bytes],
    terms: Terms,
    *,
    known: pa.Table | None = None,
    is_final: Callable[[str], bool] = lambda reason: reason != "error",
    keep: Callable[[pa.Table], None] = lambda _: None,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """``CAPTION_JUDGEMENTS`` of these questions, in their order: a row for each caption shown.

    A question that the cap left no room to ask has no rows.

    Args:
        asked: the questions.
        image: gives the image file of a row; called in several threads.
        terms: what holds for all of them; what ``known`` took counts under the cap.
        known: rows that were made before.
        is_final: whether a known row of such a finish reason stays as it is; about others the judge is asked again.
        keep: is given the rows of each answer as it comes.
        track: reports progress over the questions.

    Raises:
        CaptionerError: the judge cannot go on; what it finished was given to ``keep``.
    """
    before = _latest(CAPTION_JUDGEMENTS.empty_table() if known is None else known)
    made = {uid: pa.Table.from_pylist(rows, CAPTION_JUDGEMENTS) for uid, rows in before.items()}
    finished = {uid for uid, rows in before.items() if is_final(rows[0]["finish_reason"])}
    wanted = [question for question in asked if question.uid not in finished]
    spent = sum((_taken(rows) for rows in before.values()), Tokens())

    def finish(question: Question, answer: Caption) -> None:
        rows = _rows(question, answer, terms, before.get(question.uid, ()))
        keep(rows)
        made[question.uid] = rows
        finished.add(question.uid)

    def table() -> pa.Table:
        return pa.concat_tables([CAPTION_JUDGEMENTS.empty_table(), *(made[q.uid] for q in asked if q.uid in made)])

    under_way: list[Question] = []

    def samples() -> Iterator[Sample]:
        for question, sample in ordered_map(lambda one: (one, _sample(one, image, terms)), wanted):
            if isinstance(sample, Caption):
                finish(question, sample)
            else:
                under_way.append(question)
                yield sample

    if not wanted:
        return table()
    try:
        for index, answer in track(terms.judge.judge(samples(), terms.cap, spent), len(wanted)):
            finish(under_way[index], answer)
    except CaptionerError as error:
        raise error.with_progress(len(finished), len(asked), "samples") from error
    return table()


def _lot(seed: int, *parts: str) -> bytes:
    return hashlib.blake2b("\n".join([str(seed), *parts]).encode(), digest_size=8).digest()


def _latest(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """The rows of each sample's last request: one that was asked again counts the attempts before."""
    latest: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows.to_pylist(), key=lambda row: row["attempts"]):
        there = latest.setdefault(row["uid"], [])
        if there and there[0]["attempts"] < row["attempts"]:
            there.clear()
        there.append(row)
    # The same answer may be in the checkpoint and in the store.
    return {uid: list({row["caption_source"]: row for row in there}.values()) for uid, there in latest.items()}


def _taken(rows: Sequence[Mapping[str, Any]]) -> Tokens:
    return Tokens(rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) if rows else Tokens()


def _sample(question: Question, image: Callable[[int], bytes], terms: Terms) -> Sample | Caption:
    prepare = guarded(partial(prepare_image, longest_side=terms.judge.image_longest_side))
    jpeg = prepare(image(question.row))
    if isinstance(jpeg, ImageError):
        return Caption(None, "error", str(jpeg), prompt_tokens=0, completion_tokens=0, attempts=0)
    return Sample({"labels": question.labels}, jpeg, question.prompt(terms.rubric))


def _rows(question: Question, answer: Caption, terms: Terms, before: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of an answer; attempts and tokens from before are counted too."""
    marked = parse(answer.text or "", question.labels) if answer.finish_reason in {"stop", "length"} else {}
    taken = _taken(before) + Tokens(answer.prompt_tokens or 0, answer.completion_tokens or 0)
    request = {
        "uid": question.uid,
        "stratum": question.stratum,
        "finish_reason": answer.finish_reason,
        "error": answer.error,
        "text": _bounded(answer.text or "", LONGEST_TEXT) if answer.finish_reason == UNPARSABLE else None,
        "flags": list(answer.removed),
        "model": terms.judge.model,
        "revision": terms.judge.revision,
        "prompt_hash": terms.rubric.hash,
        "prompt_tokens": taken.prompt,
        "completion_tokens": taken.completion,
        "attempts": (before[0]["attempts"] if before else 0) + (answer.attempts or 0),
        "seconds": answer.seconds,
        "cost": terms.cap.cost_of(taken),
        "finished_at": datetime.now(UTC),
    }
    records = []
    for place, (label, (source, _)) in enumerate(zip(question.labels, question.captions, strict=True), 1):
        record = {**request, "caption_source": source, "place": place}
        if label in marked:
            marks = {name: getattr(marked[label], name) for name in CRITERIA}
            record |= {name: mark.score for name, mark in marks.items()}
            record["overall"] = sum(mark.score for mark in marks.values()) / len(marks)
            record["reasons"] = {name: _bounded(mark.reason, LONGEST_REASON) for name, mark in marks.items()}
        records.append(record)
    return pa.Table.from_pylist(records, CAPTION_JUDGEMENTS)


def _bounded(text: str, longest: int) -> str:
    """Text that a table can hold, of bounded length."""
    storable = text[: longest + 1].encode("utf-8", "replace").decode()
    return storable if len(storable) <= longest else storable[: longest - 1] + "…"
