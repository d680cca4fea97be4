"""Outcomes of rows that are already in files: of this shard's unfinished run, and of its earlier table."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.ingest.fetch.reasons import OK, PLACEHOLDER, is_transient
from dqe_assets.ingest.outcomes import OUTCOMES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources.store import StorageError, TornError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dqe_assets.ingest.fetch.settings import Refetch
    from dqe_resources.store import Checkpoint, Store

Key = tuple[str, str | None]
"""The uid and the URL of a row."""

_INDEX = ["uid", "url", "reason", "sha256", "bytes"]
_INDEX_SCHEMA = pa.schema([OUTCOMES.field(name) for name in _INDEX])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an outcome is (file and row), and the facts needed before it is read."""

    file: int
    position: int
    reason: str
    sha256: str | None
    bytes: int


class Ledger:
    """Outcomes by uid and URL. What is held in memory is where they are; the images stay in their files."""

    def __init__(self) -> None:
        self._files: list[Callable[[list[int]], pa.Table]] = []
        self._places: dict[Key, _Place] = {}
        self._seen: set[str] = set()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def reason(self, key: Key) -> str:
        """Why a row has no image, or ok."""
        return self._places[key].reason

    def size(self, key: Key) -> int:
        """Bytes of a row's image."""
        return self._places[key].bytes

    def read(self, keys: Sequence[Key]) -> pa.Table:
        """The outcomes of some rows, in their order.

        Raises:
            StorageError: a file is damaged.
        """
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, key in enumerate(keys):
            wanted[self._places[key].file].append((self._places[key].position, place))
        tables, order = [OUTCOMES.empty_table()], []
        for file, places in wanted.items():
            places.sort()
            tables.append(self._files[file]([position for position, _ in places]))
            order += [place for _, place in places]
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.array(order, np.int64))))

    def add_stored(self, store: Store, asset: str, shard: str, refetch: Refetch) -> None:
        """Add the rows of the shard's table as it was, but for those that are to be fetched again.

        Of a damaged table, the rows are added that can still be read.

        Raises:
            StorageError: the table cannot be read.
        """
        # What has turned out to be damaged since it was first looked at is known to be so.
        store = store.as_it_is_now()
        try:
            stored = store.get(asset, shard)
            if stored is None:
                return
            there: Sequence[int] = range(stored.stamp.rows)
        except TornError:
            there = store.whole_rows(asset, shard, OUTCOMES.names)

        def take(positions: list[int], columns: list[str]) -> pa.Table:
            return store.read_rows(asset, shard, RAW_SAMPLES, [there[position] for position in positions], columns)

        index = take([*range(len(there))], _INDEX)
        self._add(index, lambda positions: take(positions, OUTCOMES.names), refetch)

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add the outcomes that an unfinished run has kept; they replace others. Each file is added only once.

        A file that cannot be read is left out, and its rows are fetched again.
        """
        for path in checkpoint.files():
            if path not in self._seen:
                self._seen.add(path)
                with contextlib.suppress(pa.ArrowException, OSError):
                    self._add_file(checkpoint, path)

    def _add_file(self, checkpoint: Checkpoint, path: str) -> None:
        def take(rows: list[int]) -> pa.Table:
            try:
                return checkpoint.read(path, OUTCOMES, rows)
            except (pa.ArrowException, OSError) as error:
                raise StorageError(f"{path}: damaged ({error}); delete it and run the same command again") from error

        self._add(checkpoint.read(path, _INDEX_SCHEMA), take, None)

    def _add(self, index: pa.Table, take: Callable[[list[int]], pa.Table], refetch: Refetch | None) -> None:
        file = len(self._files)
        self._files.append(take)
        for position, row in enumerate(index.to_pylist()):
            if refetch is None or not _is_fetched_again(row["reason"], refetch):
                place = _Place(file, position, row["reason"], row["sha256"], row["bytes"] or 0)
                self._places[row["uid"], row["url"]] = place

    def placeholders(self, captions: Mapping[Key, str | None], at_least: int | None) -> frozenset[str]:
        """Digests of bytes that at least so many different URLs with different captions gave.

        Args:
            captions: the caption of each row that counts.
            at_least: None for no digest at all.
        """
        if at_least is None:
            return frozenset()
        urls: dict[str, set[str | None]] = defaultdict(set)
        said: dict[str, set[str]] = defaultdict(set)
        for (uid, url), caption in captions.items():
            place = self._places[uid, url]
            if place.sha256 is not None and place.reason in {OK, PLACEHOLDER}:
                urls[place.sha256].add(url)
                said[place.sha256].add(uid if caption is None else f"={caption}")
        return frozenset(sha256 for sha256 in urls if min(len(urls[sha256]), len(said[sha256])) >= at_least)


def _is_fetched_again(reason: str, refetch: Refetch) -> bool:
    if refetch == "transient":
        return is_transient(reason)
    return refetch == "all" or reason != OK
