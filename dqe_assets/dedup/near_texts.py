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

NOTHING_KNOWN: NDArray[np.uint64] = np.empty((2, 0), np.uint64)
"""What ``Compared.asked`` gives of no pairs."""

_MOST_MISSED = 0.003
_KEY_BYTES = 8
# Enough for all pairs of the few texts that share a band by chance.
_BEFORE = 3
_DEVIATIONS = 4
_SKETCH = 128
"""Bits of a signature that tell most candidates that are not near."""
_ESTIMATED_AT_ONCE = 1 << 18
_CANDIDATES = 1 << 22
_COMPARED_AT_ONCE = 100_000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def near_components(
    signatures: NDArray[np.uint8], rows: NDArray[np.int64], compared: Compared, threshold: float
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
        compared: compares texts by their positions in ``rows``.
        threshold: Jaccard similarity, above 0 and at most 1.

    Returns:
        The number of each text's component, int64 [k].

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a Jaccard similarity above 0 and at most 1, not {threshold}")
    found = _Found(signatures, rows, compared, threshold)
    size = band_bytes(threshold)
    # Read in the order of the file, however the rows are ordered.
    by_row = np.argsort(rows)
    for start in range(0, HASHES - size + 1, size) if len(rows) else ():
        found.add(_links(_band(signatures, rows[by_row], start, size), by_row))
    found.settle()
    return found.labels


def band_bytes(threshold: float) -> int:
    """The most bytes that a band may have so that at most 3 in 1,000 pairs at the threshold share none."""
    for size in range(_KEY_BYTES, 1, -1):
        if (1 - threshold**size) ** (HASHES // size) <= _MOST_MISSED:
            return size
    return 1


class Compared:
    """Jaccard similarities of texts. What two texts have in common never changes: what is known is not read again.

    Args:
        digests: of the texts, uint64 [n, 2].
        texts: gives the texts of some positions, int64 [m] ascending.
        known: what ``asked`` gave at another time, of whatever texts; it may be mapped from a file.
    """

    def __init__(self, digests: NDArray[np.uint64], texts: Texts, known: NDArray[np.uint64] = NOTHING_KNOWN) -> None:
        self._digests, self._texts, self._known = digests[:, 0], texts, known
        self._asked = [NOTHING_KNOWN]

    @property
    def asked(self) -> NDArray[np.uint64]:
        """All pairs that were asked for: a number that tells each from others, ascending, and its similarity's bits.

        uint64 [2, m].
        """
        asked = np.concatenate(self._asked, axis=1)
        asked = asked[:, np.argsort(asked[0], kind="stable")]
        return asked[:, np.diff(asked[0], prepend=~asked[0, :1]) > 0]

    def similarities(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Those of the texts of each pair, int64 [m, 2]; some of them are in memory at a time: float64 [m]."""
        left, right = pairs.T
        names = self._digests[left] ^ self._digests[right]
        places = np.searchsorted(self._known[0], names)
        is_known = places < self._known.shape[1]
        is_known[is_known] = self._known[0, places[is_known]] == names[is_known]
        found = np.empty(len(pairs))
        found[is_known] = self._known[1, places[is_known]].view(np.float64)
        found[~is_known] = self._compared(pairs[~is_known])
        self._asked.append(np.stack([names, found.view(np.uint64)]))
        return found

    def _compared(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        found = [np.empty(0)]
        for start in range(0, len(pairs), _COMPARED_AT_ONCE):
            rows, positions = np.unique(pairs[start : start + _COMPARED_AT_ONCE], return_inverse=True)
            found.append(jaccard(self._texts(rows), positions.reshape(-1, 2)))
        return np.concatenate(found)


class _Found:
    """Components as far as they are known, and links that have not been looked at yet.

    Attributes:
        labels: the number of each text's component, int64 [n].
    """

    def __init__(
        self, signatures: NDArray[np.uint8], rows: NDArray[np.int64], compared: Compared, threshold: float
    ) -> None:
        self.labels = np.arange(len(rows), dtype=np.int64)
        self._signatures, self._rows, self._compared, self._threshold = signatures, rows, compared, threshold
        self._sketches = _sketches(signatures, rows)
        # Of two bits one agrees by chance.
        self._most_unlike = _SKETCH * (1 - _least((1 + threshold) / 2, _SKETCH))
        self._links: list[NDArray[np.int64]] = []
        self._waiting = 0

    def add(self, links: NDArray[np.int64]) -> None:
        """Keep the links, int64 [m, 2], of texts that may be near, until they are many; each once, if many bands do."""
        links = self._unconnected(links)
        left, right = links.T
        unlike = np.bitwise_count(self._sketches[left] ^ self._sketches[right]).sum(axis=1)
        links = links[unlike <= self._most_unlike]
        self._links.append(links[:, 0] * len(self.labels) + links[:, 1])
        self._waiting += len(links)
        if self._waiting > _CANDIDATES:
            self._links = [_distinct(self._links)]
            self._waiting = len(self._links[0])
            if self._waiting > _CANDIDATES // 2:
                self.settle()

    def settle(self) -> None:
        """Compare the texts of the links that are likely to be near, and connect those that are."""
        links = np.stack(np.divmod(_distinct(self._links), max(1, len(self.labels))), axis=1)
        self._links, self._waiting = [], 0
        rest = links[_likely(self._signatures, self._rows[links], self._threshold)]
        # One of each text first: where many are near one another, the others are then connected.
        is_first = np.zeros(len(rest), np.bool_)
        is_first[np.unique(rest[:, 1], return_index=True)[1]] = True
        rest = np.concatenate([rest[is_first], rest[~is_first]])
        while len(rest):
            some, rest = rest[:_COMPARED_AT_ONCE], rest[_COMPARED_AT_ONCE:]
            near = some[self._compared.similarities(some) >= self._threshold]
            self.labels = components(self.labels[near], len(self.labels))[self.labels].astype(np.int64)
            rest = self._unconnected(rest)

    def _unconnected(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of some pairs, int64 [m, 2], those whose texts are not in one component."""
        return pairs[self.labels[pairs[:, 0]] != self.labels[pairs[:, 1]]]


def _distinct(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The numbers of all parts, each once, ascending."""
    numbers = np.concatenate([np.empty(0, np.int64), *parts])
    numbers.sort()
    return numbers[np.diff(numbers, prepend=-1) > 0]


def _sketches(signatures: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A bit of each of the first minima of some rows, uint64 [k, 2]: small enough for a core's cache."""
    found = np.empty((len(rows), _SKETCH // 64), np.uint64)
    for start in range(0, len(rows), _ESTIMATED_AT_ONCE):
        some = signatures[rows[start : start + _ESTIMATED_AT_ONCE], :_SKETCH]
        found[start : start + len(some)] = np.packbits(some & 1, axis=1).view(np.uint64)
    return found


def _least(share: float, length: int) -> float:
    """The least share of so many that agree, where each does with a probability of ``share``: hardly ever fewer do."""
    return share - _DEVIATIONS * (share * (1 - share) / length) ** 0.5


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


def _likely(signatures: NDArray[np.uint8], pairs: NDArray[np.int64], threshold: float) -> NDArray[np.bool_]:
    """Which pairs of rows have signatures that agree about as often as those of near texts do: bool [m]."""
    agree = np.empty(len(pairs))
    for start in range(0, len(pairs), _ESTIMATED_AT_ONCE):
        left, right = pairs[start : start + _ESTIMATED_AT_ONCE].T
        agree[start : start + _ESTIMATED_AT_ONCE] = (signatures[left] == signatures[right]).mean(axis=1)
    return agree >= _least(threshold, HASHES)
