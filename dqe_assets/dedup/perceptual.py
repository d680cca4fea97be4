"""Duplicates that look the same: perceptual hashes within a Hamming distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.dedup.exact import links_to_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A block's XORs (0.5 MB) stay in a core's cache, which makes it several times faster than whole rows.
_BLOCK = 256


def perceptual_pairs(
    hashes: NDArray[np.uint64],
    max_distance: int,
    *,
    contrast: NDArray[np.floating] | None = None,
    min_contrast: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """All pairs of hashes that differ in at most ``max_distance`` bits, found exactly.

    Equal hashes count as one: every row is linked to the first of its hash, at distance 0, and other pairs are only
    between such firsts. Connected components are those of all pairs, and k equal rows give k - 1 links. Time grows
    with the square of the number of distinct hashes, memory with the number of pairs.

    Args:
        hashes: uint64 [n].
        max_distance: in bits, 0 to 64.
        contrast: standard deviation of each image's luminance, 0 to 1 [n].
        min_contrast: images below it take no part. The hash of a flat image says nothing: its bits are the noise of
            compression, or equal for all flat images.

    Returns:
        Row numbers int64 [m, 2], the smaller first in each pair, and distances uint8 [m], in bits.

    Raises:
        ValueError: if ``max_distance`` is out of range, or a minimum contrast is given without contrasts.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance must be 0 to 64 bits, not {max_distance}")
    if min_contrast > 0 and contrast is None:
        raise ValueError("min_contrast needs the contrast of every image")
    rows = np.arange(len(hashes)) if contrast is None else np.flatnonzero(contrast >= min_contrast)
    equal = links_to_first(hashes[rows])
    distinct = np.setdiff1d(np.arange(len(rows)), equal[:, 1], assume_unique=True)
    near, distances = _near(hashes[rows[distinct]], max_distance)
    pairs = np.concatenate([rows[equal], rows[distinct[near]]])
    return pairs, np.concatenate([np.zeros(len(equal), dtype=np.uint8), distances])


def _near(hashes: NDArray[np.uint64], max_distance: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    found = [np.empty((0, 2), dtype=np.int64)]
    distances = [np.empty(0, dtype=np.uint8)]
    for start in range(0, len(hashes), _BLOCK):
        for other in range(start, len(hashes), _BLOCK):
            bits = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes[None, other : other + _BLOCK])
            within = bits <= max_distance
            if other == start:
                within = np.triu(within, 1)
            if within.any():
                left, right = np.nonzero(within)
                found.append(np.stack([left + start, right + other], axis=1))
                distances.append(bits[left, right])
    return np.concatenate(found), np.concatenate(distances)
