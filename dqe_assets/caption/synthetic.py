"""Captions asked of a captioner: one row for each sample, with or without a caption."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.flags import caption_flags
from dqe_assets.caption.prepare import prepare_image
from dqe_assets.caption.straightforward import straightforward_captions
from dqe_assets.images import ImageError
from dqe_assets.schemas import SYNTHETIC_CAPTIONS
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample, VisionCaptioner
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.caption.prompts import Prompt
    from dqe_resources.captioners.protocol import Captioner

NO_IMAGE = "no_image"

_Finished = tuple[int, Caption, datetime | None]
"""Row, caption and, where a model ran, when it was finished."""


def synthetic_captions(
    uids: pa.Array,
    has_image: np.ndarray,
    batches: Iterator[pa.RecordBatch],
    captioner: Captioner,
    *,
    prompt: Prompt | None = None,
    known: pa.Table | None = None,
    keep: Callable[[pa.Table], None] = lambda _: None,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
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
    finished = _with_caption(SYNTHETIC_CAPTIONS.empty_table() if known is None else known)
    wanted = has_image & ~pc.is_in(uids, value_set=finished["uid"].combine_chunks()).to_numpy(zero_copy_only=False)
    rows = _Rows(uids, captioner, prompt, finished)
    # Half of what may be lost: what is finished while the one half is being written is less than the other.
    every = max(captioner.checkpoint_every // 2, 1) if isinstance(captioner, VisionCaptioner) else None
    waiting: list[_Finished] = []
    try:
        try:
            for row, caption in track(_Asked(batches, wanted, captioner, prompt).captions(), int(wanted.sum())):
                waiting.append((row, caption, None if caption.seconds is None else datetime.now(UTC)))
                if len(waiting) == every:
                    keep(rows.add(waiting))
                    waiting = []
        finally:
            rest = rows.add(waiting)
            if every and rest.num_rows:
                keep(rest)
    except CaptionerError as error:
        raise error.after(rows.captions, int(has_image.sum()), "captions") from error
    return rows.table(has_image)


def _with_caption(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_valid(rows["caption"]))


def _storable(text: str | None) -> str | None:
    """Half a surrogate pair can stand in JSON, and in no table."""
    return None if text is None else text.encode("utf-8", "replace").decode()


class _Asked:
    """The samples that a captioner is asked about, and whose caption is whose."""

    def __init__(
        self, batches: Iterator[pa.RecordBatch], wanted: np.ndarray, captioner: Captioner, prompt: Prompt | None
    ) -> None:
        self._batches = batches
        self._wanted = wanted
        self._captioner = captioner
        self._prompt = prompt
        self._rows: list[int] = []
        self._failed: list[tuple[int, Caption]] = []

    def captions(self) -> Iterator[tuple[int, Caption]]:
        """Row and caption of each sample that is wanted, as they are finished."""
        answered: list[int] = []
        for index, caption in self._captioner.caption(self._samples()):
            answered.append(index)
            yield self._rows[index], caption
        yield from self._failed
        if sorted(answered) != list(range(len(self._rows))):
            msg = f"captioner {self._captioner.name} gave {len(answered)} captions for {len(self._rows)} images"
            raise RuntimeError(msg)

    def _samples(self) -> Iterator[Sample]:
        """The samples, those with images prepared ahead in all cores; perhaps taken in another thread."""
        for row, sample in ordered_map(self._sample, self._values()):
            if isinstance(sample, Caption):
                self._failed.append((row, sample))
            else:
                self._rows.append(row)
                yield sample

    def _values(self) -> Iterator[tuple[int, dict[str, Any]]]:
        first = 0
        for batch in self._batches:
            inside = np.flatnonzero(self._wanted[first : first + batch.num_rows])
            for row, values in zip(inside, batch.take(pa.array(inside)).to_pylist(), strict=True):
                yield first + int(row), values
            first += batch.num_rows

    def _sample(self, item: tuple[int, dict[str, Any]]) -> tuple[int, Sample | Caption]:
        row, values = item
        if self._prompt is None or not isinstance(self._captioner, VisionCaptioner):
            return row, Sample(values)
        image = values.pop("image")
        try:
            jpeg = prepare_image(image["bytes"], self._captioner.image_longest_side)
        except ImageError as error:
            return row, Caption(None, "error", str(error))
        return row, Sample(values, jpeg, self._prompt.render(values["caption"]))


class _Rows:
    """The rows of a shard, made as captions are finished."""

    def __init__(self, uids: pa.Array, captioner: Captioner, prompt: Prompt | None, known: pa.Table) -> None:
        self._uids = uids
        self._captioner = captioner
        self._prompt = prompt
        self._parts = [known]

    @property
    def captions(self) -> int:
        """Rows that have a caption so far."""
        return sum(len(part) - part["caption"].null_count for part in self._parts)

    def add(self, captions: list[_Finished]) -> pa.Table:
        """Make rows of captions; returns those that have one."""
        self._parts.append(self._table([self._record(*finished) for finished in captions]))
        return _with_caption(self._parts[-1])

    def table(self, has_image: np.ndarray) -> pa.Table:
        """All rows, in order: those without an image say so."""
        without = [self._record(int(row), Caption(None), None) for row in np.flatnonzero(~has_image)]
        without = [{**record, "finish_reason": NO_IMAGE, "error": None} for record in without]
        rows = pa.concat_tables([*self._parts, self._table(without)])
        return rows.take(pc.index_in(self._uids, value_set=rows["uid"].combine_chunks()))

    def _record(self, row: int, caption: Caption, finished_at: datetime | None) -> dict[str, Any]:
        # Whoever wrote it, a caption without a word is none.
        is_blank = caption.finish_reason != "error" and not (caption.text or "").strip()
        return {
            "uid": self._uids[row].as_py(),
            "text": _storable(caption.text),
            "finish_reason": "error" if is_blank else caption.finish_reason,
            "model": caption.model or self._captioner.model_id,
            "revision": self._captioner.model_revision,
            "prompt": self._prompt and self._prompt.name,
            "prompt_hash": self._prompt and self._prompt.hash,
            "prompt_tokens": caption.prompt_tokens,
            "completion_tokens": caption.completion_tokens,
            "seconds": None if caption.seconds is None else round(caption.seconds, 6),
            "finished_at": finished_at,
            "attempts": caption.attempts,
            "error": "the text is empty" if is_blank else _storable(caption.error),
        }

    @staticmethod
    def _table(records: list[dict[str, Any]]) -> pa.Table:
        rows = pa.Table.from_pylist(records, SYNTHETIC_CAPTIONS)
        texts, reasons = rows["text"], rows["finish_reason"]
        captions = straightforward_captions(pc.if_else(pc.equal(reasons, "error"), pa.scalar(None, pa.string()), texts))
        flags = caption_flags(texts.to_pylist(), reasons.to_pylist())
        for name, values in (("caption", captions), ("flags", pa.array(flags, pa.list_(pa.string())))):
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
        return rows
