"""Duplicates that look the same: perceptual hashes within a Hamming distance."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.dedup.exact import Pairs, distinct_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# A block's XORs (0.5 MB) stay in a core's cache, which makes it several times faster than whole rows.
_BLOCK = 256

# Hashes this near differ by at most 2 bits in one of three bands: with more, the bands would have to be too short.
_BANDED_DISTANCE = 8
_BANDS = 3
_BAND_DISTANCE = _BANDED_DISTANCE // _BANDS
# Of so few, all pairs are tried as fast.
_BANDED_FROM = 20_000
_CANDIDATES = 1 << 22
# A candidate of a band takes about so many times as long as one of all pairs.
_CANDIDATE_COST = 16


def perceptual_pairs(
    hashes: NDArray[np.uint64],
    max_distance: int,
    *,
    contrast: NDArray[np.floating] | None = None,
    min_contrast: float = 0.0,
    known: NDArray[np.bool_] | None = None,
) -> Pairs[np.uint8]:
    """All pairs of hashes that differ in at most ``max_distance`` bits, found exactly.

    Up to 8 bits, some 20,000 hashes or more are joined by bands: of two hashes within 8 bits, one of three bands of 21
    or 22 bits differs in at most 2, so that only hashes of such bands are compared, one in 4,000 pairs of random
    hashes. Otherwise all pairs of distinct hashes are.

    Args:
        hashes: uint64 [n].
        max_distance: in bits, 0 to 64.
        contrast: standard deviation of each image's luminance, 0 to 1 [n].
        min_contrast: images below it take no part. The hash of a flat image says nothing: its bits are the noise of
            compression, or equal for all flat images.
        known: bool [n]; near pairs both of whose hashes belong to a known row are not looked for.

    Returns:
        Links of equal hashes, near pairs, and their distances in bits.

    Raises:
        ValueError: if ``max_distance`` is out of range, or a minimum contrast is given without contrasts.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance must be 0 to 64 bits, not {max_distance}")
    if min_contrast > 0 and contrast is None:
        raise ValueError("min_contrast needs the contrast of every image")
    rows = np.arange(len(hashes)) if contrast is None else np.flatnonzero(contrast >= min_contrast)
    equal, distinct, new = distinct_values(hashes[rows], None if known is None else known[rows])
    near, distances = near_hashes(hashes[rows[distinct]], max_distance, new)
    return Pairs(rows[equal], np.sort(rows[distinct[near]], axis=1), distances)


def near_hashes(
    hashes: NDArray[np.uint64], max_distance: int, new: int, *, banded_from: int = _BANDED_FROM
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Pairs of distinct hashes, at least one of each among the first ``new``: positions [m, 2], distances [m]."""
    if max_distance <= _BANDED_DISTANCE and len(hashes) >= banded_from:
        found = _by_bands(hashes, max_distance, new)
        if found is not None:
            return found
    return _by_all_pairs(hashes, max_distance, new)


def _by_all_pairs(
    hashes: NDArray[np.uint64], max_distance: int, new: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    found = [np.empty((0, 2), dtype=np.int64)]
    distances = [np.empty(0, dtype=np.uint8)]
    for start in range(0, new, _BLOCK):
        left = hashes[start : min(start + _BLOCK, new), None]
        for other in range(start, len(hashes), _BLOCK):
            bits = np.bitwise_count(left ^ hashes[None, other : other + _BLOCK])
            within = bits <= max_distance
            if other == start:
                within = np.triu(within, 1)
            if within.any():
                i, j = np.nonzero(within)
                found.append(np.stack([i + start, j + other], axis=1))
                distances.append(bits[i, j])
    return np.concatenate(found), np.concatenate(distances)


def _by_bands(
    hashes: NDArray[np.uint64], max_distance: int, new: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
    """None if so many hashes agree in a band that all pairs are tried faster."""
    affordable = new * len(hashes) // _CANDIDATE_COST
    found = [np.empty((0, 2), dtype=np.int64)]
    # Neighbouring bits, which depend on one another, are dealt out to different bands.
    for bits in (range(band, 64, _BANDS) for band in range(_BANDS)):
        keys = _packed(hashes, bits)
        by_key = np.argsort(keys, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << len(bits)))])
        # In the order of the keys, what is looked up next is near in memory.
        looked_up = by_key[by_key < new]
        looked_up_keys = keys[looked_up]
        for mask in _masks(len(bits), min(_BAND_DISTANCE, max_distance)):
            partners = looked_up_keys ^ np.uint32(mask)
            # Where all are looked up, each pair of keys needs to be met from one side only.
            some = np.flatnonzero(partners >= looked_up_keys) if new == len(hashes) else slice(None)
            first, last = ends[partners[some]], ends[partners[some] + np.uint32(1)]
            affordable -= int((last - first).sum())
            if affordable < 0:
                return None
            found.extend(_verified(hashes, max_distance, looked_up[some], by_key, first, last - first))
    # A pair may be found in several bands, and from both sides.
    both = np.concatenate(found)
    names = np.unique(both[:, 0] * len(hashes) + both[:, 1])
    pairs = np.stack(np.divmod(names, max(1, len(hashes))), axis=1)
    return pairs, np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])


def _verified(
    hashes: NDArray[np.uint64],
    max_distance: int,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Iterator[NDArray[np.int64]]:
    """Of each row and those ``others`` from ``first`` on, the pairs within the distance, some millions at a time."""
    some = np.flatnonzero(counts)
    rows, first, counts = rows[some], first[some], counts[some]
    total = np.cumsum(counts)
    start = 0
    while start < len(rows):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _CANDIDATES, side="right")))
        part = slice(start, stop)
        left = np.repeat(rows[part], counts[part])
        offsets = np.arange(len(left)) - np.repeat(total[part] - counts[part] - before, counts[part])
        right = others[np.repeat(first[part], counts[part]) + offsets]
        near = (np.bitwise_count(hashes[left] ^ hashes[right]) <= max_distance) & (left != right)
        yield np.sort(np.stack([left[near], right[near]], axis=1), axis=1)
        start = stop


def _packed(hashes: NDArray[np.uint64], bits: Sequence[int]) -> NDArray[np.uint32]:
    """Some bits of each hash, side by side."""
    packed = np.zeros(len(hashes), np.uint32)
    values = np.arange(256, dtype=np.uint32)
    # What each byte contributes is looked up.
    for byte, of_hashes in enumerate(hashes.astype("<u8").view(np.uint8).reshape(-1, 8).T):
        table = np.zeros(256, np.uint32)
        for place, bit in enumerate(bits):
            if bit // 8 == byte:
                table |= (values >> np.uint32(bit % 8) & np.uint32(1)) << np.uint32(place)
        packed |= table[of_hashes]
    return packed


def _masks(length: int, ones: int) -> list[int]:
    """All numbers of so many bits of which at most ``ones`` are set."""
    return [sum(1 << bit for bit in chosen) for size in range(ones + 1) for chosen in combinations(range(length), size)]
