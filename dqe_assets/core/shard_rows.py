"""The rows of all shards under one number: those of the first shard, then those of the second, and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class ShardRows:
    """Which row of which shard a number stands for.

    Args:
        counts: how many rows each shard has.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The shards that some rows are in, by position, and the rows of each as they are counted there.

        Args:
            rows: ascending.
        """
        ends = np.searchsorted(rows, self.starts)
        for shard in np.flatnonzero(ends[1:] > ends[:-1]).tolist():
            yield shard, rows[ends[shard] : ends[shard + 1]] - self.starts[shard]


class ShardArrays:
    """Arrays of all shards as one, of which rows are read when they are asked for, by ascending numbers.

    Args:
        parts: of each shard, [n, ...], of one dtype and width; they may be mapped from files.
    """

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._numbers = ShardRows([len(part) for part in parts])

    def by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """The arrays that some rows are in, and the rows of each as they are counted there."""
        for shard, own in self._numbers.by_shard(rows):
            yield self._parts[shard], own

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows, at least one, [k, ...]."""
        return np.concatenate([part[own] for part, own in self.by_shard(rows)])
