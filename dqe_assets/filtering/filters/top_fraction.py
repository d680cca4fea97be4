"""Filters that keep the best fraction of a pool by a score, with DataComp's rule for where to cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.filtering.filters.protocol import FilterError, Mask
from dqe_assets.filtering.pool import numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.filtering.pool import Pool


def top_threshold(pools: Sequence[Pool], column: str, fraction: float) -> float | None:
    """The n-th largest of N scores, counting from 0, where n = int(N * fraction).

    What reaches it is n + 1 rows, and what is equal to the last of them. Rows without a score (null, NaN) count among
    the N, below every score. Where the n-th row is one of them, the threshold is the least score of all; DataComp's
    code finds NaN then, which nothing reaches.

    Args:
        pools: taken as one. Memory is that of their scores, in the type in which they are stored.
        column: of scores.
        fraction: 0 to 1.

    Returns:
        The score; None if every row is to be kept, scored or not (n = N), for which DataComp's code fails; 1.0, the
        largest cosine, if no row has a score.

    Raises:
        FilterError: the n-th largest is infinite.
    """
    gathered = [
        numbers(batch.column(column)) for pool in pools for part in pool.parts for batch in part.batches([column])
    ]
    rows = sum(map(len, gathered))
    n = int(rows * fraction)
    if n >= rows:
        return None
    scores = np.concatenate([values[~np.isnan(values)] for values in gathered])
    if not len(scores):
        return 1.0
    place = max(len(scores) - 1 - n, 0)
    threshold = float(np.partition(scores, place)[place])
    if not math.isfinite(threshold):
        raise FilterError(f"{column}: the threshold of {fraction:g} of {rows:,} rows is {threshold}; fix the scores")
    return threshold


def at_least(column: pa.Array | pa.ChunkedArray, threshold: float) -> Mask:
    """Where a score reaches a threshold, compared in the scores' own type; null and NaN do not."""
    return numbers(column) >= threshold
