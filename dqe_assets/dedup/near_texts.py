"""Texts that are nearly the same, found by their signatures: locality-sensitive hashing over sorted bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.dedup.caption_text import HASHES, jaccard
from dqe_assets.dedup.components import components

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Texts = Callable[[NDArray[np.int64]], Sequence[str]]

_MOST_MISSED = 0.003
_KEY_BYTES = 8
# Enough for all pairs of the few texts that share a band by chance.
_BEFORE = 3
_DEVIATIONS = 4
_FIRST_LOOK = 64
_ESTIMATED_AT_ONCE = 1 << 18
_CANDIDATES = 1 << 22
_COMPARED_AT_ONCE = 100_000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def near_components(
    signatures: NDArray[np.uint8], rows: NDArray[np.int64], texts: Texts, threshold: float
) -> NDArray[np.int64]:
    """The connected components of texts of which two have a Jaccard similarity of at least ``threshold``.

    Candidates are texts of which a band of the signature agrees (Leskovec et al., Mining of Massive Datasets, 3.4).
    One band after another is sorted, and of the texts that share it each is linked to the first and to the three
    before it: these are all pairs of up to five, and never more than four a text, however many share it. Candidates
    whose signatures differ too much are dropped. The others are compared, unless they are connected already.

    Args:
        signatures: uint8 [n, ``HASHES``], as `dqe_assets.dedup.caption_text.signatures` makes them; they may be mapped
            from a file.
        rows: those of the texts, which are all different, int64 [k]. What is found depends on their order only where
            more than five share a band.
        texts: gives the texts of some positions of ``rows``, int64 [m] ascending.
        threshold: Jaccard similarity, above 0 and at most 1.

    Returns:
        The number of each text's component, int64 [k].

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a Jaccard similarity above 0 and at most 1, not {threshold}")
    found = _Found(len(rows), texts, threshold)
    size = band_bytes(threshold)
    # Read in the order of the file, however the rows are ordered.
    by_row = np.argsort(rows)
    for start in range(0, HASHES - size + 1, size) if len(rows) else ():
        links = found.unconnected(_links(_band(signatures, rows[by_row], start, size), by_row))
        found.add(links[_likely(signatures, rows[links], threshold)])
    found.settle()
    return found.labels


def band_bytes(threshold: float) -> int:
    """The most bytes that a band may have so that at most 3 in 1,000 pairs at the threshold share none."""
    for size in range(_KEY_BYTES, 1, -1):
        if (1 - threshold**size) ** (HASHES // size) <= _MOST_MISSED:
            return size
    return 1


def similarities(texts: Texts, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jaccard similarity of the texts of each pair, int64 [m, 2], some of them in memory at a time: float64 [m]."""
    found = [np.empty(0)]
    for start in range(0, len(pairs), _COMPARED_AT_ONCE):
        rows, positions = np.unique(pairs[start : start + _COMPARED_AT_ONCE], return_inverse=True)
        found.append(jaccard(texts(rows), positions.reshape(-1, 2)))
    return np.concatenate(found)


class _Found:
    """Components as far as they are known, and candidates that have not been compared yet.

    Attributes:
        labels: the number of each text's component, int64 [n].
    """

    def __init__(self, count: int, texts: Texts, threshold: float) -> None:
        self.labels = np.arange(count, dtype=np.int64)
        self._texts, self._threshold = texts, threshold
        self._candidates: list[NDArray[np.int64]] = []

    def unconnected(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of some pairs, int64 [m, 2], those whose texts are not in one component."""
        return pairs[self.labels[pairs[:, 0]] != self.labels[pairs[:, 1]]]

    def add(self, pairs: NDArray[np.int64]) -> None:
        """Keep candidates, and compare those that are kept once they are many."""
        self._candidates.append(pairs)
        if sum(map(len, self._candidates)) > _CANDIDATES:
            self.settle()

    def settle(self) -> None:
        """Compare the candidates, and connect those that are near."""
        pairs, count = np.concatenate([np.empty((0, 2), np.int64), *self._candidates]), len(self.labels)
        self._candidates.clear()
        rest = np.stack(np.divmod(np.unique(pairs[:, 0] * count + pairs[:, 1]), max(1, count)), axis=1)
        # One of each text first: where many are near one another, the others are then connected.
        is_first = np.zeros(len(rest), np.bool_)
        is_first[np.unique(rest[:, 1], return_index=True)[1]] = True
        rest = np.concatenate([rest[is_first], rest[~is_first]])
        while len(rest):
            some, rest = rest[:_COMPARED_AT_ONCE], rest[_COMPARED_AT_ONCE:]
            near = some[similarities(self._texts, some) >= self._threshold]
            self.labels = components(self.labels[near], len(self.labels))[self.labels].astype(np.int64)
            rest = self.unconnected(rest)


def _band(signatures: NDArray[np.uint8], rows: NDArray[np.int64], start: int, size: int) -> NDArray[np.uint64]:
    """Some bytes of the signatures of some rows as a number each, uint64 [k]."""
    # Each row's eight bytes from a place on, as one number: NumPy takes these many times as fast as eight bytes.
    place = min(start, HASHES - _KEY_BYTES)
    numbers = np.ndarray(len(signatures), "<u8", signatures, place, (HASHES,))[rows]
    numbers >>= np.uint64(8 * (start - place))
    return numbers & np.uint64(2 ** (8 * size) - 1)


def _links(band: NDArray[np.uint64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of texts whose band, uint64 [n], agrees: each with the first and with those before it by number."""
    # Half of the key is lost to the number, but to sort keys is many times as fast as to sort their order.
    bits = np.uint64(max(1, len(band) - 1).bit_length())
    keys = band * _ODD
    keys = keys >> bits << bits | numbers.astype(np.uint64)
    keys.sort()
    numbers = (keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    keys >>= bits
    first = np.zeros(len(keys), np.int64)
    begins = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    first[begins] = begins
    first = np.maximum.accumulate(first)
    later = np.flatnonzero(first != np.arange(len(keys)))
    found = [np.stack([numbers[first[later]], numbers[later]], axis=1)]
    for back in range(1, _BEFORE + 1):
        between = later[later - back > first[later]]
        found.append(np.stack([numbers[between - back], numbers[between]], axis=1))
    return np.concatenate(found)


def _likely(signatures: NDArray[np.uint8], pairs: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Which pairs of rows have signatures that agree about as often as those of near texts do: positions."""
    likely = np.arange(len(pairs))
    for length in (_FIRST_LOOK, HASHES):
        least = threshold - _DEVIATIONS * (threshold * (1 - threshold) / length) ** 0.5
        agree = np.empty(len(likely))
        for start in range(0, len(likely), _ESTIMATED_AT_ONCE):
            left, right = pairs[likely[start : start + _ESTIMATED_AT_ONCE]].T
            equal = signatures[left, :length] == signatures[right, :length]
            agree[start : start + _ESTIMATED_AT_ONCE] = equal.mean(axis=1)
        likely = likely[agree >= least]
    return likely
