"""What a vision-language model says of the truth of captions: one row for each sample, asked or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.answers import prepared
from dqe_assets.caption.prompts import quoted
from dqe_assets.score.tables import VQA_SCORES
from dqe_resources.captioners.budget import Tokens
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from dqe_resources.parallel import ordered_map
from dqe_resources.scorers.vqa import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_resources.scorers.vqa import VqaScorer

LONGEST_CAPTION = 2000
"""Characters of a caption that the model is asked about."""

NO_IMAGE, NO_CAPTION, NOT_ASKED, ERROR = "no_image", "no_caption", "not_asked", "error"
_KEPT_EVERY = 50


def vqa_scores(
    uids: pa.ChunkedArray,
    has_image: np.ndarray,
    captions: pa.Array,
    images: Iterator[pa.RecordBatch | pa.Table],
    scorer: VqaScorer,
    *,
    known: pa.Table | None = None,
    keep: Callable[[pa.Table], None] = lambda _: None,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """``VQA_SCORES`` of the captions of one source, n rows.

    Args:
        uids: of all samples, [n].
        has_image: bool [n].
        captions: strings [n], null if there is none.
        images: the column image of all samples, in parts and in the same order.
        scorer: who is asked.
        known: rows that were made before from the same inputs; what they took counts under the cap. Those that failed
            are asked about again.
        keep: is given finished rows while others are still being made.
        track: reports progress over the answers.

    Raises:
        CaptionerError: the model cannot go on; what it finished was given to ``keep``.
    """
    made = _Rows(uids.to_pylist(), scorer, VQA_SCORES.empty_table() if known is None else known)
    texts = [quoted(text or "", LONGEST_CAPTION).replace('"', "'") for text in captions.to_pylist()]
    due = [row for row in np.flatnonzero(has_image).tolist() if texts[row]]
    wanted = set(due) - made.finished(due)
    asked: list[int] = []

    def samples() -> Iterator[Sample]:
        for row, image in ordered_map(lambda one: (one[0], prepared(one[1], scorer)), _files(images, wanted)):
            if isinstance(image, Caption):
                made.add(row, image)
            else:
                asked.append(row)
                yield Sample(image=image, prompt=scorer.ask(texts[row]))

    try:
        try:
            for place, answer in track(scorer.score(samples(), made.spent), len(wanted)) if wanted else ():
                made.add(asked[place], answer)
                made.keep_some(keep)
        finally:
            made.keep_some(keep, at_least=1)
    except CaptionerError as error:
        raise error.with_progress(len(made.finished(due)), len(due), "captions") from error
    reasons = [NOT_ASKED if text else NO_CAPTION for text in texts]
    return made.table([reason if there else NO_IMAGE for reason, there in zip(reasons, has_image, strict=True)])


def _files(images: Iterator[pa.RecordBatch | pa.Table], wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The image files of the rows that are wanted."""
    first = 0
    for batch in images:
        inside = [row - first for row in range(first, first + batch.num_rows) if row in wanted]
        for place, image in zip(inside, batch.take(pa.array(inside, pa.int64()))["image"].to_pylist(), strict=True):
            yield first + place, image["bytes"]
        first += batch.num_rows


class _Rows:
    """The rows of a shard, as answers come."""

    def __init__(self, uids: list[str], scorer: VqaScorer, known: pa.Table) -> None:
        self._uids, self._scorer = uids, scorer
        places = {uid: row for row, uid in enumerate(uids)}
        # The last row of a sample counts its earlier attempts too.
        records = sorted(known.filter(pc.is_valid(known["attempts"])).to_pylist(), key=lambda one: one["attempts"])
        self._made: dict[int, dict[str, Any]] = {places[one["uid"]]: one for one in records}
        self._waiting: list[dict[str, Any]] = []

    @property
    def spent(self) -> Tokens:
        """What all attempts have taken."""
        return sum((_taken(one) for one in self._made.values()), Tokens())

    def finished(self, rows: Iterable[int]) -> set[int]:
        """Those of some rows that are not asked about again."""
        return {row for row in rows if self._made.get(row, {}).get("finish_reason", ERROR) != ERROR}

    def add(self, row: int, answer: Caption) -> None:
        before = self._made.get(row, {})
        taken = _taken(before) + Tokens(answer.prompt_tokens or 0, answer.completion_tokens or 0)
        verdict = answer if isinstance(answer, Verdict) else None
        self._made[row] = self._record(row, answer.finish_reason) | {
            "score": verdict and verdict.score,
            "answered": verdict and verdict.answered,
            "error": answer.error,
            "prompt_tokens": taken.prompt,
            "completion_tokens": taken.completion,
            "seconds": answer.seconds,
            "attempts": before.get("attempts", 0) + (answer.attempts or 0),
            "cost": self._scorer.cap.cost_of(taken),
            "finished_at": datetime.now(UTC),
        }
        self._waiting.append(self._made[row])

    def keep_some(self, keep: Callable[[pa.Table], None], at_least: int = _KEPT_EVERY) -> None:
        """Keep the rows that wait for it, if there are so many."""
        if len(self._waiting) >= at_least:
            keep(pa.Table.from_pylist(self._waiting, VQA_SCORES))
            self._waiting.clear()

    def table(self, reasons: list[str]) -> pa.Table:
        """All rows; ``reasons`` are of those that nobody was asked about."""
        records = [self._made.get(row) or self._record(row, reason) for row, reason in enumerate(reasons)]
        return pa.Table.from_pylist(records, VQA_SCORES)

    def _record(self, row: int, reason: str) -> dict[str, Any]:
        return {
            "uid": self._uids[row],
            "finish_reason": reason,
            "model": self._scorer.model,
            "revision": self._scorer.revision,
        }


def _taken(row: dict[str, Any]) -> Tokens:
    return Tokens(row.get("prompt_tokens") or 0, row.get("completion_tokens") or 0)
