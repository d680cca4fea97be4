"""Texts that are nearly the same, found by their signatures: locality-sensitive hashing over sorted bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.dedup.caption_text import HASHES, jaccard
from dqe_assets.dedup.components import components

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from dqe_assets.core.shard_rows import ShardArrays

    Texts = Callable[[NDArray[np.int64]], pa.StringArray]

NOTHING_COMPARED: NDArray[np.uint64] = np.empty((2, 0), np.uint64)
"""What ``Compared.asked`` gives of no pairs."""

NO_LABELS: NDArray[np.int64] = np.empty(0, np.int64)
"""What ``near_components`` gives of no texts."""

WORDS = HASHES // 64
"""Numbers in a sketch: a bit of each byte of a signature, which tells most candidates that are not near."""

_MOST_MISSED = 0.003
_KEY_BYTES = 8
# Enough for all pairs of the few texts that share a band by chance.
_BEFORE = 3
_DEVIATIONS = 4
# What so many take of a signature lies side by side in memory.
_BANDS_AT_ONCE = 8
# A key is a hash of a band, and below it the number of its text: to sort keys is many times as fast as to sort their
# order.
_TEXT_BITS = 32
_TEXT = 2**_TEXT_BITS - 1
_PLACE_BITS = 18
_ESTIMATED_AT_ONCE = 1 << 16
_CANDIDATES = 1 << 22
_CONNECTED_AT_ONCE = 100_000
# Some 100 MB for captions of a hundred letters.
_COMPARED_AT_ONCE = 20_000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def near_components(
    signatures: ShardArrays,
    sketches: ShardArrays,
    rows: NDArray[np.int64],
    compared: Compared,
    threshold: float,
    labels: NDArray[np.int64] = NO_LABELS,
) -> NDArray[np.int64]:
    """The connected components of texts of which two have a Jaccard similarity of at least ``threshold``.

    Candidates are texts of which a band of the signature agrees (Leskovec et al., Mining of Massive Datasets, 3.4).
    One band after another is sorted, and of the texts that share it each is linked to the first and to the three
    before it: these are all pairs of up to five, and never more than four a text, however many share it. Candidates
    whose signatures differ too much are dropped. The others are compared, unless they are connected already.

    A text is linked to texts before it, whatever comes after it. So if the components of the first texts are known,
    only the links of the others are looked at, and the result is the same.

    Args:
        signatures: uint8 [n, ``HASHES``], as `dqe_assets.dedup.caption_text.signatures` makes them.
        sketches: of these, uint64 [n, ``WORDS``] (``sketches_of``).
        rows: those of the texts, which are all different, int64 [k], ascending. What is found depends on their order
            only where more than five share a band.
        compared: compares texts by their positions in ``rows``.
        threshold: Jaccard similarity, above 0 and at most 1.
        labels: what this gave for the first texts alone, int64 [j].

    Returns:
        The number of each text's component, below k: int64 [k].

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a Jaccard similarity above 0 and at most 1, not {threshold}")
    if len(rows) == len(labels):
        return labels
    found = _Found(signatures, sketches, rows, compared, threshold, labels)
    size = band_bytes(threshold)
    bands = range(0, HASHES - size + 1, size)
    for place in range(0, len(bands), _BANDS_AT_ONCE):
        for keys in _keys_of_bands(signatures, rows, len(labels), bands[place : place + _BANDS_AT_ONCE], size):
            found.add(_links(keys, len(labels)))
    found.settle()
    return found.labels


def sketches_of(signatures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A bit of each minimum of some signatures, uint64 [n, ``WORDS``]."""
    return np.packbits(signatures & 1, axis=1).view(np.uint64)


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
        known: what ``asked`` gave at another time, of whatever texts.
    """

    def __init__(self, digests: NDArray[np.uint64], texts: Texts, known: NDArray[np.uint64] = NOTHING_COMPARED) -> None:
        self._digests, self._texts, self._known = digests[:, 0], texts, known
        self._asked = [NOTHING_COMPARED]

    @property
    def asked(self) -> NDArray[np.uint64]:
        """All pairs that were asked for: a number that tells each from others, ascending, and its similarity's bits.

        uint64 [2, m].
        """
        asked = np.concatenate(self._asked, axis=1)
        asked = asked[:, np.argsort(asked[0], kind="stable")]
        return asked[:, np.diff(asked[0], prepend=~asked[0, :1]) > 0]

    @property
    def known_or_asked(self) -> NDArray[np.uint64]:
        """The same of all pairs that were known or asked for."""
        asked = self.asked
        places, is_known = self._places(asked[0])
        return np.insert(self._known, places[~is_known], asked[:, ~is_known], axis=1)

    def similarities(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Those of the texts of each pair, int64 [m, 2]; some of them are in memory at a time: float64 [m]."""
        left, right = pairs.T
        names = self._digests[left] ^ self._digests[right]
        places, is_known = self._places(names)
        found = np.empty(len(pairs))
        found[is_known] = self._known[1, places[is_known]].view(np.float64)
        found[~is_known] = self._compared(pairs[~is_known])
        self._asked.append(np.stack([names, found.view(np.uint64)]))
        return found

    def _places(self, names: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where pairs are among the known, or would be, int64 [m]; and which are there, bool [m]."""
        places = np.searchsorted(self._known[0], names)
        is_known = places < self._known.shape[1]
        is_known[is_known] = self._known[0, places[is_known]] == names[is_known]
        return places, is_known

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
        self,
        signatures: ShardArrays,
        sketches: ShardArrays,
        rows: NDArray[np.int64],
        compared: Compared,
        threshold: float,
        labels: NDArray[np.int64],
    ) -> None:
        self.labels = np.concatenate([labels, np.arange(len(labels), len(rows))])
        self._signatures, self._rows, self._compared, self._threshold = signatures, rows, compared, threshold
        # Each number of all texts by itself: a core's cache holds them.
        parts = [part[own] for part, own in sketches.by_shard(rows)]
        self._sketches = [np.concatenate([part[:, word] for part in parts]) for word in range(WORDS)]
        self._links: list[NDArray[np.int64]] = []
        self._waiting = 0

    def add(self, links: NDArray[np.int64]) -> None:
        """Keep the links, int64 [2, m], of texts that may be near, until they are many; each once, if many bands do."""
        unlike = np.zeros(links.shape[1], np.uint16)
        for bits, sketches in enumerate(self._sketches, 1):
            left, right = links
            unlike += np.bitwise_count(sketches[left] ^ sketches[right])
            # Of two bits one agrees by chance.
            alike = unlike <= 64 * bits * (1 - _least((1 + self._threshold) / 2, 64 * bits))
            links, unlike = links[:, alike], unlike[alike]
        left, right = links[:, self.labels[links[0]] != self.labels[links[1]]]
        self._links.append(left << _TEXT_BITS | right)
        self._waiting += len(self._links[-1])
        if self._waiting > _CANDIDATES:
            self._links = [_distinct(self._links)]
            self._waiting = len(self._links[0])
            if self._waiting > _CANDIDATES // 2:
                self.settle()

    def settle(self) -> None:
        """Compare the texts of the links that are likely to be near, and connect those that are."""
        numbers = _distinct(self._links)
        links = np.stack([numbers >> _TEXT_BITS, numbers & _TEXT], axis=1)
        self._links, self._waiting = [], 0
        agree = self._agreement(links)
        likely = np.flatnonzero(agree >= _least(self._threshold, HASHES))
        # What is most alike first, as that connects many of the others; and those as they are, side by side.
        links = links[likely[np.argsort(-np.maximum(agree[likely], self._threshold), kind="stable")]]
        nodes = self.labels[links]
        is_node = np.zeros(len(self.labels), np.bool_)
        is_node[nodes] = True
        names, nodes = np.flatnonzero(is_node), (np.cumsum(is_node) - 1)[nodes]
        joined: NDArray[np.integer] = np.arange(len(names))
        while len(links):
            near = self._compared.similarities(links[:_CONNECTED_AT_ONCE]) >= self._threshold
            connected = components(nodes[:_CONNECTED_AT_ONCE][near], len(names))
            joined, nodes = connected[joined], connected[nodes[_CONNECTED_AT_ONCE:]]
            apart = nodes[:, 0] != nodes[:, 1]
            links, nodes = links[_CONNECTED_AT_ONCE:][apart], nodes[apart]
        _, first, joined = np.unique(joined, return_index=True, return_inverse=True)
        renamed = np.arange(len(self.labels))
        renamed[names] = names[first[joined]]
        self.labels = renamed[self.labels]

    def _agreement(self, links: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often the signatures of the texts of each link agree, as a share: float64 [m]."""
        agree = np.empty(len(links))
        for start in range(0, len(links), _ESTIMATED_AT_ONCE):
            rows, places = np.unique(self._rows[links[start : start + _ESTIMATED_AT_ONCE]], return_inverse=True)
            some = self._signatures[rows]
            left, right = places.reshape(-1, 2).T
            equal = (some[left] == some[right]).view(np.uint64)
            agree[start : start + _ESTIMATED_AT_ONCE] = np.bitwise_count(equal).sum(axis=1, dtype=np.uint16) / HASHES
        return agree


def _distinct(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The numbers of all parts, each once, ascending."""
    numbers = np.concatenate([np.empty(0, np.int64), *parts])
    numbers.sort()
    return numbers[np.diff(numbers, prepend=-1) > 0]


def _least(share: float, length: int) -> float:
    """The least share of so many that agree, where each does with a probability of ``share``: hardly ever fewer do."""
    return share - _DEVIATIONS * (share * (1 - share) / length) ** 0.5


def _keys_of_bands(
    signatures: ShardArrays, rows: NDArray[np.int64], known: int, starts: Sequence[int], size: int
) -> Iterator[NDArray[np.uint64]]:
    """The keys of some bands of the texts after those that are known, and of all others that share a band with one.

    Args:
        signatures: uint8 [n, ``HASHES``].
        rows: those of the texts, int64 [k].
        known: how many are known.
        starts: where the bands begin.
        size: how many bytes they have.

    Returns:
        Of each band, a hash of it and below that the number of the text, uint64 [m], in any order.
    """
    keys: list[list[NDArray[np.uint64]]] = [[] for _ in starts]
    is_wanted = np.zeros((len(starts), 2**_PLACE_BITS if known else 0), np.bool_)

    def each(first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint64], NDArray[np.uint64]]]:
        for part, own in signatures.by_shard(rows[first:last]):
            numbers = np.arange(first, first + len(own), dtype=np.uint64)
            first += len(own)
            for band, start in enumerate(starts):
                hashed = _band(part, own, start, size) * _ODD
                yield band, hashed >> np.uint64(64 - _PLACE_BITS), hashed & ~np.uint64(_TEXT) | numbers

    for band, places, found in each(known, len(rows)):
        keys[band].append(found)
        if known:
            is_wanted[band, places] = True
    for band, places, found in each(0, known):
        keys[band].append(found[is_wanted[band, places]])
    return map(np.concatenate, keys)


def _band(signatures: NDArray[np.uint8], rows: NDArray[np.int64], start: int, size: int) -> NDArray[np.uint64]:
    """Some bytes of the signatures of some rows as a number each, uint64 [k]."""
    # Each row's eight bytes from a place on, as one number: NumPy takes these many times as fast as eight bytes.
    place = min(start, HASHES - _KEY_BYTES)
    numbers = np.ndarray(len(signatures), "<u8", signatures, place, (HASHES,))[rows]
    numbers >>= np.uint64(8 * (start - place))
    return numbers & np.uint64(2 ** (8 * size) - 1)


def _links(keys: NDArray[np.uint64], known: int) -> NDArray[np.int64]:
    """Pairs of texts whose keys have the same hash, int64 [2, m].

    Each text that is not ``known`` comes after the first of its hash and after those before it, by number.
    """
    keys.sort()
    hashes = keys >> np.uint64(_TEXT_BITS)
    follows = np.zeros(len(keys), np.bool_)
    follows[1:] = hashes[1:] == hashes[:-1]
    shared = follows.copy()
    shared[:-1] |= follows[1:]
    numbers = (keys[shared] & np.uint64(_TEXT)).astype(np.int64)
    follows = follows[shared]
    first = np.maximum.accumulate(np.where(follows, 0, np.arange(len(numbers))))
    later = np.flatnonzero(follows & (numbers >= known))
    found = [np.stack([numbers[first[later]], numbers[later]])]
    for back in range(1, _BEFORE + 1):
        between = later[later - back > first[later]]
        found.append(np.stack([numbers[between - back], numbers[between]]))
    return np.concatenate(found, axis=1)
