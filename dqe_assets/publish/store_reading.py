"""Which samples of a store are read, in which order, and by which of many readers: each exactly once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.hashing import mixed, unit_interval
from dqe_assets.core.schema import has_image
from dqe_assets.filtering.store_pool import dropped
from dqe_assets.filtering.subset import UID_TYPE, format_uids, parse_uids
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.publish.captions import CaptionReader
from dqe_assets.training.reshard import UidIndex, counted_uids
from dqe_assets.training.samples import PICTURE_COLUMNS
from dqe_resources.errors import DataQualityError
from dqe_resources.fingerprint import fingerprint
from dqe_resources.parallel import ordered_map
from dqe_resources.store import Store

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from numpy.typing import NDArray

    from dqe_assets.publish.captions import Caption

_DRAWS_AT_ONCE = 4096


class LoaderError(DataQualityError):
    """Samples cannot be read from the store to train on: says which, and what to do."""


@dataclass(frozen=True, slots=True)
class WantedRows:
    """What is wanted of a shard.

    Attributes:
        shard: partition key.
        rows: positions in the shard, int32 [n], ascending; as often as the subset has their uids.
        identity: fingerprint of its ``raw_samples``.
    """

    shard: str
    rows: NDArray[np.int32]
    identity: str


@dataclass(frozen=True)
class Wanted:
    """The samples that are read of a store, four bytes of memory for each.

    Attributes:
        root: the store's folder or URL.
        weights: caption sources and their weights, as ``CaptionReader`` has them.
        parts: what is wanted of each shard that has something.
        without_caption: samples that are left out, as no source with a weight has a caption of them.
    """

    root: str
    weights: Mapping[str, float]
    parts: tuple[WantedRows, ...]
    without_caption: int

    @cached_property
    def total(self) -> int:
        """Samples in an epoch."""
        return sum(len(part.rows) for part in self.parts)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of which samples they are, and of the weights."""
        rows = hashlib.sha256()
        for part in self.parts:
            rows.update(part.rows.tobytes())
        shards = [[part.shard, part.identity, len(part.rows)] for part in self.parts]
        return fingerprint(shards, rows.hexdigest(), sorted(self.weights.items()))

    def share(self, reader: int, readers: int) -> tuple[int, int]:
        """The positions of an epoch that a reader reads, from and to: those of any two differ by a sample at most."""
        return self.total * reader // readers, self.total * (reader + 1) // readers


def wanted_of(root: str, subset: NDArray[np.void] | None, weights: Mapping[str, float]) -> Wanted:
    """Find the samples of a subset in a store, reading neither an image nor, of shards without any, a caption.

    Args:
        root: the store's folder or URL.
        subset: sorted uids, "u8,u8" [n]; None for every sample with an image that nobody has decided to drop.
        weights: caption sources and their weights.

    Raises:
        LoaderError: the store has no shard, samples of the subset are not there, or none has a caption.
        StorageError: a table cannot be read.
    """
    store = Store(root).as_it_is_now()
    reader = CaptionReader(store, weights)
    shards = sorted(store.partitions("raw_samples"))
    chosen = None if subset is None else _Chosen(subset)
    parts, left_out = [], 0
    # Each is a small part of a file, which is far away perhaps: the next ones are asked for meanwhile.
    for seen in ordered_map(lambda shard: _looked_at(store, reader, shard, with_dropped=chosen is not None), shards):
        copies = chosen.copies_of(seen.uids) if chosen else np.ones(len(seen.rows), np.int64)
        rows, captioned = np.repeat(seen.rows, copies), np.repeat(seen.captioned, copies)
        left_out += int((~captioned).sum())
        if captioned.any():
            parts.append(WantedRows(seen.shard, rows[captioned], seen.identity))
    if chosen and not chosen.is_found.all():
        missing = chosen.uids[~chosen.is_found]
        raise LoaderError(
            f"{root}: {len(missing):,} samples of the subset are not there, first {format_uids(missing[:1])[0]}; name "
            "the store that the subset was made from"
        )
    if not parts:
        why = (
            f"none of {left_out:,} samples has a caption of {', '.join(weights)}" if left_out else "no sample is there"
        )
        raise LoaderError(f"{root}: {why}; run: dqe materialize")
    return Wanted(root, dict(weights), tuple(parts), left_out)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The samples of a shard that may be read, n of everything: uids, positions, and whether they have captions."""

    shard: str
    uids: NDArray[np.void]
    rows: NDArray[np.int32]
    captioned: NDArray[np.bool_]
    identity: str


def _looked_at(store: Store, reader: CaptionReader, shard: str, *, with_dropped: bool) -> _Seen:
    stored = store.get("raw_samples", shard)
    if stored is None:
        # It is still being made.
        return _Seen(shard, np.zeros(0, UID_TYPE), np.zeros(0, np.int32), np.zeros(0, bool), "")
    table = store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "status"])
    is_in = has_image(table).to_numpy()
    if not with_dropped:
        is_in = is_in & ~dropped(store, shard, len(table)).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(is_in).astype(np.int32)
    uids = parse_uids(table["uid"].take(pa.array(rows)))
    return _Seen(shard, uids, rows, reader.captioned(shard)[rows], stored.stamp.identity)


class _Chosen:
    """The uids of a subset.

    Attributes:
        uids: without repeats, sorted.
        is_found: bool [n], which of them a shard has.
    """

    def __init__(self, subset: NDArray[np.void]) -> None:
        self.uids, self._copies = counted_uids(subset)
        self._index = UidIndex(self.uids)
        self.is_found = np.zeros(len(self.uids), bool)

    def copies_of(self, uids: NDArray[np.void]) -> NDArray[np.int64]:
        """How often each of a shard's uids is read: 0 of one that another shard has, as in ``dqe reshard``."""
        at = self._index.positions(format_uids(uids).to_pylist())
        is_new = (at >= 0) & ~self.is_found[at]
        self.is_found[at[is_new]] = True
        return np.where(is_new, self._copies[at], 0)


def shuffled(count: int, buffer: int, rng: np.random.Generator) -> Iterator[int]:
    """The numbers from 0 on, in the order that a shuffle buffer gives them; without a buffer in their own."""
    held = list(range(min(buffer, count)))
    if len(held) < 2:
        yield from range(count)
        return
    draws: list[int] = []
    for following in range(len(held), count):
        if not draws:
            draws = rng.integers(0, len(held), _DRAWS_AT_ONCE).tolist()
        slot = draws.pop()
        yield held[slot]
        held[slot] = following
    rng.shuffle(held)
    yield from held


@dataclass(frozen=True, slots=True)
class Read:
    """A sample as it stands in the store.

    Attributes:
        place: its position among those of its reader.
        shard: partition key.
        row: uid, image and format, as in ``raw_samples``.
        captions: those that have a weight.
        caption: the one that was drawn.
    """

    place: int
    shard: str
    row: dict[str, Any]
    captions: list[Caption]
    caption: Caption


@dataclass(frozen=True, slots=True)
class Order:
    """In which order samples are read, and which captions are drawn.

    Attributes:
        seed: another one gives another order and draws others.
        epoch: so does another epoch.
        buffer: samples among which one is drawn; 0 reads in the order of the store.
    """

    seed: int
    epoch: int
    buffer: int

    def of_shards(self, count: int) -> list[int]:
        """The numbers of the shards as they are read."""
        order = np.arange(count)
        if self.buffer:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        return order.tolist()

    def of_places(self, count: int, reader: int, readers: int) -> Iterator[int]:
        """The positions of a reader's samples as they are given."""
        return shuffled(count, self.buffer, np.random.default_rng([self.seed, self.epoch, reader, readers]))

    def draws(self, positions: NDArray[np.int64]) -> list[float]:
        """A number from 0 to below 1 for each position of the epoch."""
        (start,) = mixed(mixed(np.array([self.seed], np.uint64)) + np.uint64(self.epoch))
        return unit_interval(mixed(positions.astype(np.uint64) ^ start)).tolist()


def read_epoch(wanted: Wanted, order: Order, reader: int, readers: int, given: int = 0) -> Iterator[Read]:
    """The samples of an epoch that one of several readers gives: shards in a random order, mixed by a buffer.

    Args:
        wanted: the samples.
        order: in which order.
        reader: which reader, from 0.
        readers: how many there are.
        given: how many it gave before: what follows is the same as it would have been.

    Raises:
        LoaderError: a shard has changed since ``wanted`` was made.
        StorageError: it cannot be read.
    """
    first, end = wanted.share(reader, readers)
    places = order.of_places(end - first, reader, readers)
    is_due = np.ones(end - first, bool)
    is_due[list(islice(places, given))] = False
    held: dict[int, Read] = {}
    with closing(_ahead(_due(wanted, order, first, is_due))) as groups:
        for place in places:
            while place not in held:
                held.update((one.place, one) for one in next(groups))
            yield held.pop(place)


def _due(wanted: Wanted, order: Order, first: int, is_due: NDArray[np.bool_]) -> Iterator[list[Read]]:
    """Those of a reader's samples that it has not given yet, a row group at a time."""
    store = Store(wanted.root).as_it_is_now()
    reader = CaptionReader(store, wanted.weights)
    begin = -first
    for number in order.of_shards(len(wanted.parts)):
        part = wanted.parts[number]
        places = np.arange(begin, begin + len(part.rows))
        begin += len(part.rows)
        mine = np.flatnonzero((places >= 0) & (places < len(is_due)))
        mine = mine[is_due[places[mine]]]
        if not len(mine):
            continue
        stored = store.get("raw_samples", part.shard)
        if stored is None or stored.stamp.identity != part.identity:
            raise LoaderError(f"{wanted.root}: {part.shard} was made again meanwhile; begin again with a new data set")
        rows, places = part.rows[mine].tolist(), places[mine]
        captions = reader.of_shard(part.shard, rows)
        drawn = map(_drawn, captions, order.draws(places + first))
        following = zip(places.tolist(), captions, drawn, strict=True)
        for group in store.row_groups("raw_samples", part.shard, RAW_SAMPLES, rows, PICTURE_COLUMNS):
            yield [
                Read(place, part.shard, row, all_captions, caption)
                for row, (place, all_captions, caption) in zip(group.to_pylist(), following, strict=False)
            ]


def _drawn(captions: list[Caption], draw: float) -> Caption:
    reached = 0.0
    for caption in captions:
        reached += caption["weight"]
        if draw < reached:
            return caption
    # Weights are rounded: together they may be a little less than 1.
    return next(caption for caption in reversed(captions) if caption["weight"])


def _ahead(groups: Iterator[list[Read]]) -> Generator[list[Read], None, None]:
    """The same, each read while the one before is used."""
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        following = thread.submit(next, groups, None)
        while (group := following.result()) is not None:
            following = thread.submit(next, groups, None)
            yield group
