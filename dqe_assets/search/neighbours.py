"""The vectors that are nearest to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 4096


def nearest(vectors: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows nearest to each row by cosine, itself left out: found by comparing with all, in blocks.

    Args:
        vectors: [n, d], of unit length.
        count: how many, or n - 1 if there are fewer.

    Returns:
        rows, int64 [n, k], the nearest first, and their distances, 1 less the cosine, float32 [n, k].
    """
    import faiss

    total = len(vectors)
    wanted = min(count, max(total - 1, 0))
    rows, distances = np.empty((total, wanted), np.int64), np.empty((total, wanted), np.float32)
    for start in range(0, total if wanted else 0, _AT_ONCE):
        block = vectors[start : start + _AT_ONCE]
        cosines, found = faiss.knn(block, vectors, wanted + 1, metric=faiss.METRIC_INNER_PRODUCT)
        own = found == np.arange(start, start + len(block))[:, None]
        # A copy of an image can push the image itself out of what is found.
        own[~own.any(axis=1), -1] = True
        rows[start : start + len(block)] = found[~own].reshape(-1, wanted)
        distances[start : start + len(block)] = np.maximum(1 - cosines[~own].reshape(-1, wanted), 0)
    return rows, distances
