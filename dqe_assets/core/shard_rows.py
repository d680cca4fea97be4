"""The rows of all shards under one number: those of the first shard, then those of the second, and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class ShardRows:
    """Which row of which shard a number stands for.

    Args:
        shards: their keys.
        counts: how many rows each has.
    """

    def __init__(self, shards: Sequence[str], counts: Sequence[int]) -> None:
        self.shards = tuple(shards)
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
