"""Turns rows of a source into rows of ``raw_samples``: every row, with or without an image."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.ingest.fetch.reasons import NOAI_METADATA, PLACEHOLDER, TAKEN_DOWN
from dqe_assets.ingest.outcomes import LEDGER, OUTCOMES, failed, of_row, refusal_of
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources.errors import DataQualityError
from dqe_resources.parallel import ordered_map
from dqe_resources.sources.rows import SourceRow
from dqe_resources.store import ROW_GROUP_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.core.work import Batches
    from dqe_assets.ingest.outcomes import Outcome
    from dqe_assets.ingest.remote import Fetches
    from dqe_assets.ingest.settings import ImageLimits
    from dqe_assets.ingest.takedowns.shard import ShardTakedowns

    Numbered = tuple[int, str, SourceRow]

T = TypeVar("T")

_ROW_BYTES = 1024
"""Bytes that a row adds to the size of a batch, not counting its image."""


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
    fetch: Callable[[Iterator[tuple[str, SourceRow]]], Fetches],
    takedowns: ShardTakedowns | None = None,
    track: Callable[[Iterable[SourceRow]], Iterable[SourceRow]] = iter,
) -> Batches:
    """One row of ``RAW_SAMPLES`` for each row of the source, in order, in batches of a like number of bytes.

    Images that are to be fetched are fetched from when the first of them is due, many at once, and kept in files; a
    batch is made of those as soon as all of its rows are there, while others are still being fetched.

    Args:
        rows: gives the rows, the same each time: an image as bytes, as a file, or as a URL. A row with the uid of one
            before it has a fault.
        source: name of the source.
        shard: partition key.
        limits: what is refused before it is decoded, and made smaller after.
        fetch: fetches rows, given with their uids.
        takedowns: what is taken down of the shard, if anything is.
        track: reports progress over rows that are not fetched.

    Raises:
        DataQualityError: the source gave other rows when it was read again.
        StartOverError: what was taken for an image in an earlier batch was found to be a placeholder.
    """
    numbered = partial(_numbered, source, shard, takedowns)
    batch = partial(_batch, source, shard, takedowns)

    def with_own(some: Iterable[Numbered]) -> Iterator[tuple[Numbered, Outcome]]:
        return ordered_map(lambda one: (one, of_row(one[2], limits)), some)

    first_fetched: list[int] = []

    def before_fetched() -> Iterator[Numbered]:
        for one in numbered(track(rows())):
            if is_fetched(one[2]):
                first_fetched.append(one[0])
                return
            yield one

    for chunk in _chunks(with_own(before_fetched()), lambda item: _size_of(item[1])):
        outcomes = pa.Table.from_pylist([outcome for _, outcome in chunk], OUTCOMES)
        yield batch([one for one, _ in chunk], outcomes)
    if not first_fetched:
        return
    fetches = fetch((uid, row) for _, uid, row in numbered(rows()) if is_fetched(row))

    def from_kept(some: list[Numbered]) -> pa.RecordBatch:
        is_kept = np.array([is_fetched(row) for _, _, row in some])
        kept = fetches.read([(uid, row.url) for _, uid, row in some if is_fetched(row)])
        found = _heeded(_judged(kept, fetches.placeholders), limits)
        if is_kept.all():
            return batch(some, found)
        own = [outcome for _, outcome in with_own(one for one in some if not is_fetched(one[2]))]
        both = pa.concat_tables([found, pa.Table.from_pylist(own, OUTCOMES)])
        places = np.where(is_kept, np.cumsum(is_kept) - 1, len(found) + np.cumsum(~is_kept) - 1)
        return batch(some, both.take(pa.array(places)))

    rest = (one for one in numbered(rows()) if one[0] >= first_fetched[0])
    with closing(fetches):
        yield from map(from_kept, _chunks(rest, lambda one: _fetched_size(one, fetches)))
        fetches.finish()


def _numbered(
    source: str, shard: str, takedowns: ShardTakedowns | None, rows: Iterable[SourceRow]
) -> Iterator[Numbered]:
    """Rows with their numbers and uids, nothing else of those taken down.

    One whose uid an earlier one has gets another, and that fault.
    """
    seen: set[str] = set()
    for number, row in enumerate(map(SourceRow.with_credentials_apart, rows)):
        uid = row.uid or uid_of(source, row.key)
        if uid in seen:
            fault = f"row {number} of the shard: an earlier row has the same {'uid' if row.uid else 'name'}"
            uid = uid_of(source, f"{row.key}\0{shard}\0{number}")
            row = replace(row, image=None, fault=row.fault or fault)  # noqa: PLW2901
        seen.add(uid)
        yield number, uid, takedowns.of(uid, row) if takedowns else row


def _batch(
    source: str, shard: str, takedowns: ShardTakedowns | None, some: list[Numbered], outcomes: pa.Table
) -> pa.RecordBatch:
    if takedowns:
        outcomes = takedowns.judged(outcomes, [(uid, row.url) for _, uid, row in some])
    taken = pc.equal(outcomes["reason"], TAKEN_DOWN).to_pylist()
    # Nothing that the source says of what is taken down is kept, whenever that was found out.
    rows = [SourceRow(uid, None, None) if gone else row for (_, uid, row), gone in zip(some, taken, strict=True)]
    given = {
        "uid": [uid for _, uid, _ in some],
        "source": [source] * len(some),
        "shard": [shard] * len(some),
        "row": [number for number, _, _ in some],
        "image_name": [row.key for row in rows],
        "url": [row.url for row in rows],
        "caption": [row.caption for row in rows],
        "original_captions": [row.captions for row in rows],
        "source_metadata": [row.metadata for row in rows],
        "truth": [asdict(row.truth) if row.truth else None for row in rows],
    }
    arrays = [
        pa.array(given[field.name], field.type) if field.name in given else outcomes[field.name].combine_chunks()
        for field in RAW_SAMPLES
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_SAMPLES)


def _judged(outcomes: pa.Table, placeholders: frozenset[str]) -> pa.Table:
    """The outcomes, with placeholders as failures."""
    digests = pa.array(sorted(placeholders), pa.string())
    is_placeholder = pc.and_(pc.is_in(outcomes["sha256"], digests), pc.is_valid(outcomes["image"])).to_numpy()
    if not is_placeholder.any():
        return outcomes
    found = outcomes.filter(pa.array(is_placeholder)).select(["uid", "url", "sha256", "bytes", *LEDGER]).to_pylist()
    judged = [outcome | failed(PLACEHOLDER, "the same bytes as other URLs give") for outcome in found]
    both = pa.concat_tables([outcomes, pa.Table.from_pylist(judged, OUTCOMES)])
    places = np.where(is_placeholder, len(outcomes) + np.cumsum(is_placeholder) - 1, np.arange(len(outcomes)))
    return both.take(pa.array(places))


def _heeded(outcomes: pa.Table, limits: ImageLimits) -> pa.Table:
    """The outcomes; what was kept from before and refuses its use now counts as refused."""
    if not limits.disallowed_data_mining:
        return outcomes
    files = pc.struct_field(outcomes["image"], "bytes")
    if not pc.any(pc.match_substring(files, "DataMining")).as_py():
        return outcomes
    rows = outcomes.to_pylist()
    said = [row["image"] and refusal_of(row["image"]["bytes"], limits) for row in rows]
    kept = ("uid", "url", "sha256", "bytes", *LEDGER)
    judged = [
        {name: row[name] for name in kept} | failed(NOAI_METADATA, why) if why else row
        for row, why in zip(rows, said, strict=True)
    ]
    return pa.Table.from_pylist(judged, OUTCOMES)


def _fetched_size(one: Numbered, fetches: Fetches) -> int:
    number, uid, row = one
    if not is_fetched(row):
        return _ROW_BYTES
    if not fetches.wait_for((uid, row.url)):
        raise DataQualityError(
            f"row {number} ({row.key}) was not there when the images were fetched: the source's files were changed "
            "meanwhile; run the same command again"
        )
    return _ROW_BYTES + fetches.size((uid, row.url))


def _size_of(outcome: Outcome) -> int:
    image = outcome.get("image")
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
