"""Captions asked of a captioner: one row for each sample, with or without a caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.answers import answer_table, collect, prepared, record, with_caption
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_resources.captioners.protocol import Caption, Sample, VisionCaptioner
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from dqe_assets.caption.answers import Finished, Track
    from dqe_assets.caption.prompts import Prompt
    from dqe_resources.captioners.protocol import Captioner

NO_IMAGE = "no_image"


def synthetic_captions(
    uids: pa.Array,
    has_image: np.ndarray,
    batches: Iterator[pa.RecordBatch],
    captioner: Captioner,
    *,
    prompt: Prompt | None = None,
    known: pa.Table | None = None,
    keep: Callable[[pa.Table], None] = lambda _: None,
    track: Track = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``SYNTHETIC_CAPTIONS`` for each sample, in the order of the samples.

    Args:
        uids: of all samples.
        has_image: bool [n], whether there is an image to caption.
        batches: the captioner's columns of all samples, in the same order.
        captioner: the captioner.
        prompt: what a captioner that sees the image is asked; None for any other.
        known: rows that were made before, and are not made again: those of them that have a caption.
        keep: is given finished rows while others are still being made, so that a kill loses no more than
            ``checkpoint_every`` captions; only for a captioner that sees the image.
        track: reports progress over the captions.

    Raises:
        CaptionerError: the captioner cannot go on; what it finished was given to ``keep``.
        RuntimeError: the captioner gave another number of captions than it was asked for.
    """
    finished = with_caption(SYNTHETIC_CAPTIONS.empty_table() if known is None else known)
    wanted = has_image & ~pc.is_in(uids, value_set=finished["uid"].combine_chunks()).to_numpy(zero_copy_only=False)
    rows = _Rows(uids, captioner, prompt, finished)
    collect(
        captioner,
        _questions(batches, wanted, captioner, prompt),
        rows.add,
        keep=keep,
        track=track,
        known=finished.num_rows,
        total=finished.num_rows + int(wanted.sum()),
    )
    return rows.table(has_image)


def _questions(
    batches: Iterator[pa.RecordBatch], wanted: np.ndarray, captioner: Captioner, prompt: Prompt | None
) -> Iterator[tuple[int, Sample | Caption]]:
    """Row and sample of each wanted caption; images are prepared ahead, on all cores."""

    def values() -> Iterator[tuple[int, dict[str, Any]]]:
        first = 0
        for batch in batches:
            inside = np.flatnonzero(wanted[first : first + batch.num_rows])
            for row, columns in zip(inside, batch.take(pa.array(inside)).to_pylist(), strict=True):
                yield first + int(row), columns
            first += batch.num_rows

    def question(item: tuple[int, dict[str, Any]]) -> tuple[int, Sample | Caption]:
        row, columns = item
        if prompt is None:
            return row, Sample(columns)
        if not isinstance(captioner, VisionCaptioner):
            captions = {name: columns[name] for name in captioner.captions_read}
            if not any(captions.values()):
                return row, Caption(None, "error", "there is no caption to make one of")
            return row, Sample(columns, prompt=prompt.render(captions.pop("original_caption", None), **captions))
        image = prepared(columns.pop("image")["bytes"], captioner)
        return row, image if isinstance(image, Caption) else Sample(columns, image, prompt.render(columns["caption"]))

    return ordered_map(question, values())


class _Rows:
    """The rows of a shard, made as captions are finished."""

    def __init__(self, uids: pa.Array, captioner: Captioner, prompt: Prompt | None, known: pa.Table) -> None:
        self._uids = uids
        self._captioner = captioner
        self._prompt = prompt
        self._parts = [known]

    def add(self, captions: list[Finished[int]]) -> pa.Table:
        """Make rows of captions; returns those that have one."""
        self._parts.append(self._table([self._record(*finished) for finished in captions]))
        return with_caption(self._parts[-1])

    def table(self, has_image: np.ndarray) -> pa.Table:
        """All rows, in order: those without an image say so."""
        without = [self._record(int(row), Caption(None), None) for row in np.flatnonzero(~has_image)]
        without = [{**one, "finish_reason": NO_IMAGE, "error": None} for one in without]
        rows = pa.concat_tables([*self._parts, self._table(without)])
        return rows.take(pc.index_in(self._uids, value_set=rows["uid"].combine_chunks()))

    def _record(self, row: int, caption: Caption, finished_at: datetime | None) -> dict[str, Any]:
        return {"uid": self._uids[row].as_py(), **record(caption, finished_at, self._captioner, self._prompt)}

    @staticmethod
    def _table(records: list[dict[str, Any]]) -> pa.Table:
        return answer_table(records, SYNTHETIC_CAPTIONS)
