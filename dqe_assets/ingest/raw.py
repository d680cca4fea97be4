"""Rows of a source made into rows of ``raw_samples``: every one of them, whatever becomes of its image."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from dqe_assets.ingest.fetch.reasons import PLACEHOLDER
from dqe_assets.ingest.outcomes import LEDGER, Outcome, failed, of_row
from dqe_assets.schemas import RAW_SAMPLES
from dqe_resources.errors import DataQualityError
from dqe_resources.parallel import ordered_map
from dqe_resources.storage import ROW_GROUP_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.ingest.kept import Kept
    from dqe_assets.ingest.rows import SourceRow
    from dqe_assets.settings import ImageLimits

T = TypeVar("T")

_ROW_BYTES = 1024
"""What a row counts beside its image, in the size of a batch."""


def uid_of(source: str, key: str) -> str:
    """The uid of a row: 32 hex digits, of the source's name and its own key of the row."""
    return hashlib.blake2b(f"{source}\0{key}".encode(), digest_size=16).hexdigest()


def is_fetched(row: SourceRow) -> bool:
    """Whether a row's image is to be fetched: the source has its URL, and not the image."""
    return row.image is None and bool(row.url) and row.fault is None


def raw_samples(
    rows: Callable[[], Iterable[SourceRow]],
    *,
    source: str,
    shard: str,
    limits: ImageLimits,
    fetch: Callable[[Iterator[tuple[str, SourceRow]]], tuple[Kept, frozenset[str]]],
    track: Callable[[Iterable[SourceRow]], Iterable[SourceRow]] = iter,
) -> Iterator[pa.RecordBatch]:
    """One row of ``RAW_SAMPLES`` for each row of the source, in order, in batches of a like number of bytes.

    Images that are to be fetched are fetched when the first of them is due, all at once; a batch is then made of what
    has been kept in files.

    Args:
        rows: gives the rows, the same each time: an image as bytes, as the path of a file, or as a URL.
        source: name of the source.
        shard: partition key.
        limits: what is refused before it is decoded, and made smaller after.
        fetch: fetches rows, given with their uids; returns their outcomes, and the digests of placeholders.
        track: reports progress over rows that are not fetched.

    Raises:
        DataQualityError: the source gave other rows when it was read again.
    """

    def uid(row: SourceRow) -> str:
        return row.uid or uid_of(source, row.key)

    def with_outcomes() -> Iterator[tuple[int, SourceRow, Outcome | None]]:
        for number, row in enumerate(track(rows())):
            if is_fetched(row):
                wanted = ((uid(one), one) for one in rows() if is_fetched(one))
                yield from _with_kept(_from(rows(), number), uid, *fetch(wanted))
                return
            yield number, row, None

    def record(item: tuple[int, SourceRow, Outcome | None]) -> dict[str, Any]:
        number, row, outcome = item
        return {
            "uid": uid(row),
            "source": source,
            "shard": shard,
            "row": number,
            "image_name": row.key,
            "url": row.url,
            "caption": row.caption,
            "source_metadata": row.metadata,
            "truth": None
            if row.truth is None
            else {"photo": row.truth.photo, "image": row.truth.image, "caption": row.truth.caption},
            **(of_row(row, limits) if outcome is None else outcome),
        }

    for chunk in _chunks(ordered_map(record, with_outcomes()), _size):
        yield pa.RecordBatch.from_pylist(chunk, RAW_SAMPLES)


def _from(rows: Iterable[SourceRow], start: int) -> Iterator[tuple[int, SourceRow]]:
    return (numbered for numbered in enumerate(rows) if numbered[0] >= start)


def _with_kept(
    numbered: Iterator[tuple[int, SourceRow]],
    uid: Callable[[SourceRow], str],
    kept: Kept,
    placeholders: frozenset[str],
) -> Iterator[tuple[int, SourceRow, Outcome | None]]:
    def size(item: tuple[int, SourceRow]) -> int:
        number, row = item
        if not is_fetched(row):
            return _ROW_BYTES
        if not kept.has(uid(row), row.url):
            raise DataQualityError(
                f"row {number} ({row.key}) was not there when the images were fetched: the source's files were changed "
                "meanwhile; run the same command again"
            )
        return kept.size(uid(row)) + _ROW_BYTES

    for chunk in _chunks(numbered, size):
        outcomes = kept.read([uid(row) for _, row in chunk if is_fetched(row)])
        for number, row in chunk:
            yield number, row, _judged(outcomes[uid(row)], placeholders) if is_fetched(row) else None


def _judged(outcome: Outcome, placeholders: frozenset[str]) -> Outcome:
    if outcome["sha256"] not in placeholders or outcome["image"] is None:
        return outcome
    found = {name: outcome[name] for name in ("sha256", "bytes", *LEDGER)}
    return found | failed(PLACEHOLDER, "the same bytes as other URLs give")


def _size(record: dict[str, Any]) -> int:
    image = record.get("image")
    return _ROW_BYTES + (len(image["bytes"]) if image else 0)


def _chunks(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Runs of items whose sizes come to those of a row group."""
    chunk: list[T] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += size(item)
        if total >= ROW_GROUP_BYTES:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk
