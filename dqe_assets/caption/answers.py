"""Asking a captioner: questions in, answers out, and rows made from answers while others are still under way."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.flags import caption_flags
from dqe_assets.caption.normalise import straightforward_captions
from dqe_assets.caption.prepare import prepare_image
from dqe_assets.caption.prompts import as_prompt
from dqe_resources.captioners.protocol import Caption, CaptionerError, PromptedCaptioner, Sample
from dqe_resources.images import ImageError, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.caption.prompts import Prompt
    from dqe_resources.captioners.protocol import Captioner, SeeingModel

    Track = Callable[[Iterable[Any], int], Iterator[Any]]

T = TypeVar("T")

Finished = tuple[T, Caption, datetime | None]
"""What was asked about, the answer and, where a model ran, when it was finished."""


def answers(captioner: Captioner, questions: Iterable[tuple[T, Sample | Caption]]) -> Iterator[tuple[T, Caption]]:
    """Each answer as soon as it is finished, with what its question is about.

    Args:
        captioner: the captioner; it may take the questions in another thread.
        questions: what each is about, and the sample; or the answer, if there is nothing to ask.

    Raises:
        CaptionerError: the captioner cannot go on.
        RuntimeError: it gave another number of answers than it was asked for.
    """
    asked: list[T] = []
    settled: list[tuple[T, Caption]] = []

    def samples() -> Iterator[Sample]:
        for about, sample in questions:
            if isinstance(sample, Caption):
                settled.append((about, sample))
            else:
                asked.append(about)
                yield sample

    answered: list[int] = []
    for index, caption in captioner.caption(samples()):
        answered.append(index)
        yield asked[index], caption
    yield from settled
    if sorted(answered) != list(range(len(asked))):
        msg = f"captioner {captioner.name} gave {len(answered)} captions for {len(asked)} images"
        raise RuntimeError(msg)


def collect(
    captioner: Captioner,
    questions: Iterable[tuple[T, Sample | Caption]],
    add: Callable[[list[Finished[T]]], pa.Table],
    *,
    keep: Callable[[pa.Table], None],
    track: Track,
    known: int,
    total: int,
) -> None:
    """Ask, take the answers as they come, and keep rows of them while others are under way.

    Args:
        captioner: who is asked; of a model with a prompt a kill loses no more than ``checkpoint_every`` answers.
        questions: as ``answers`` takes them.
        add: makes rows of answers; returns those worth keeping.
        keep: is given those rows.
        track: reports progress over the answers.
        known: answers that are kept already.
        total: answers that there will be, the known ones among them.

    Raises:
        CaptionerError: the captioner cannot go on; says how much is kept.
        RuntimeError: as ``answers``.
    """
    # Half of what may be lost: less than the other half is finished while this half is being written.
    every = max(captioner.checkpoint_every // 2, 1) if isinstance(captioner, PromptedCaptioner) else None
    waiting: list[Finished[T]] = []
    kept = known

    def add_waiting() -> None:
        nonlocal kept
        rows = add(waiting)
        waiting.clear()
        kept += rows.num_rows
        if every and rows.num_rows:
            keep(rows)

    try:
        try:
            for about, caption in track(answers(captioner, questions), total - known):
                waiting.append((about, caption, None if caption.seconds is None else datetime.now(UTC)))
                if len(waiting) == every:
                    add_waiting()
        finally:
            add_waiting()
    except CaptionerError as error:
        raise error.with_progress(kept, total, "captions") from error


def prepared(data: bytes, model: SeeingModel) -> bytes | Caption:
    """An image as the model gets it; if it cannot be read, the answer that says so."""
    image = guarded(partial(prepare_image, longest_side=model.image_longest_side))(data)
    return Caption(None, "error", str(image)) if isinstance(image, ImageError) else image


def record(
    caption: Caption, finished_at: datetime | None, captioner: Captioner, prompt: Prompt | None
) -> dict[str, Any]:
    """The columns that every table of answers has, without those made from the text; and what they are made from."""
    # Whoever wrote it, a caption without a word is none.
    is_blank = caption.finish_reason != "error" and not (caption.text or "").strip()
    if caption.asked is not None:
        prompt = as_prompt(caption.asked) if caption.asked else None
    return {
        "text": _storable(caption.text),
        "finish_reason": "error" if is_blank else caption.finish_reason,
        "model": caption.model or captioner.model_id,
        "revision": captioner.model_revision,
        "prompt": prompt and prompt.name,
        "prompt_hash": prompt and prompt.hash,
        "prompt_tokens": caption.prompt_tokens,
        "completion_tokens": caption.completion_tokens,
        "seconds": None if caption.seconds is None else round(caption.seconds, 6),
        "finished_at": finished_at,
        "attempts": caption.attempts,
        "error": "the text is empty" if is_blank else _storable(caption.error),
        "removed": caption.removed,
        "spoken": None if caption.text is None else _storable(captioner.spoken(caption.text)),
    }


def answer_table(records: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Records as a table, with the straightforward caption and the flags of each: faults, and what was taken out."""
    rows = pa.Table.from_pylist(records, schema)
    texts, reasons = pa.array([one["spoken"] for one in records], pa.string()), rows["finish_reason"].combine_chunks()
    captions = straightforward_captions(pc.if_else(pc.equal(reasons, "error"), pa.scalar(None, pa.string()), texts))
    faults = caption_flags(texts.to_pylist(), reasons.to_pylist())
    flags = [
        [*(found or ()), *record["removed"]] if found is not None or record["removed"] else None
        for found, record in zip(faults, records, strict=True)
    ]
    for name, values in (("caption", captions), ("flags", pa.array(flags, pa.list_(pa.string())))):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def with_caption(rows: pa.Table) -> pa.Table:
    """The rows that have one."""
    return rows.filter(pc.is_valid(rows["caption"]))


def _storable(text: str | None) -> str | None:
    """Half a surrogate pair can stand in JSON, and in no table."""
    return None if text is None else text.encode("utf-8", "replace").decode()
