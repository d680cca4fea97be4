"""Pairs of near vectors among more rows than all pairs can be tried of: k-means buckets, and their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

RECALL = 0.999
"""Share of the pairs of sampled rows that must lie in the buckets that are searched."""

_SAMPLED_ROWS = 2_000
_SAMPLED_PAIRS = 10_000
_SAFETY = 4
_BUCKETS_PER_ROOT = 2
_TRAINING_ROWS_PER_BUCKET = 64
_ITERATIONS = 8
_ROUNDING = 1e-4
_TILE = 4_096
_PAIRS_AT_ONCE = 1 << 18
_FEW_IN_BUCKET = 32
_WHOLE_SHARE = 0.1
"""Share of a bucket's old rows that are near another one, above which all are compared with the new ones there."""


@dataclass(frozen=True, slots=True)
class Search:
    """How the pairs were looked for.

    Attributes:
        buckets: k-means buckets that the rows were put into; 0 if all pairs were tried.
        probes: buckets that each row was looked up in, its own included.
        sampled_pairs: pairs that sampled rows have, found by trying all rows, that the probes were chosen by.
        sampled_recall: share of them that lies within the probes.
    """

    buckets: int = 0
    probes: int = 0
    sampled_pairs: int = 0
    sampled_recall: float = 1.0


class UnitRows:
    """Rows of a matrix as unit vectors in float32, made as they are read: the matrix may be mapped from a file.

    Args:
        vectors: floats [n, d].
        rows: row numbers, int64 [m], none of a row that is zero.
        are_unit: whether they are unit vectors already, but for rounding.
    """

    def __init__(self, vectors: NDArray[np.floating], rows: NDArray[np.int64], *, are_unit: bool = False) -> None:
        self._vectors, self._rows, self._are_unit = vectors, rows, are_unit
        self.dimension = vectors.shape[1]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        taken = self._vectors[self._rows[positions]]
        if self._are_unit:
            return taken.astype(np.float32)
        # A row may be so long that its norm is beyond float32.
        wide: NDArray[np.floating] = taken.astype(np.float64 if taken.dtype.itemsize > 4 else np.float32)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        return wide.astype(np.float32, copy=False)

    def only(self, positions: NDArray[np.int64]) -> UnitRows:
        """Those at some positions."""
        return UnitRows(self._vectors, self._rows[positions], are_unit=self._are_unit)

    def parts(self, size: int = 4 * _TILE) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All rows, some thousands at a time: their positions, and the unit vectors."""
        for start in range(0, len(self), size):
            positions = np.arange(start, min(start + size, len(self)))
            yield positions, self[positions]


def all_pairs(unit: UnitRows, threshold: float, new: int) -> NDArray[np.int64]:
    """Every pair of rows whose cosine in float32 is at least ``threshold``, one of them among the first ``new``.

    Returns:
        Positions, int64 [m, 2], the smaller first.
    """
    looked_up = [(rows, unit[rows]) for rows in np.split(np.arange(new), range(_TILE, new, _TILE))]
    found = [np.empty((0, 2), dtype=np.int64)]
    for others, other in unit.parts(_TILE):
        for rows, tile in looked_up:
            if rows.size and rows[0] <= others[-1]:
                pairs = _pairs_between(tile, other, threshold, rows, others)
                found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def bucketed_pairs(unit: UnitRows, threshold: float, new: int) -> tuple[NDArray[np.int64], Search]:
    """Nearly all pairs of rows whose cosine in float32 is at least ``threshold``, one of them among the first ``new``.

    As in SemDeDup (Abbas et al. 2023), the rows are put into k-means buckets and compared within them; but a pair may
    lie across a border, so each row is looked up in the neighbouring buckets too. In how many is measured: the pairs
    of a sample of rows are found by trying all rows, and four times as many buckets are searched as hold ``RECALL`` of
    them. A bucket is left out if it cannot matter: of two unit vectors at most ``delta`` apart in different
    buckets, one is within ``delta / 2`` of the plane halfway between the centroids, and is looked up across it.

    The buckets are about twice the root of n, so that time grows with n to the power of 1.5 at most. In memory are the
    numbers of the near buckets, and the pairs.

    Returns:
        Positions, int64 [m, 2], the smaller first, sorted, each pair once; and how they were looked for.
    """
    index = trained(unit, round(_BUCKETS_PER_ROOT * len(unit) ** 0.5))
    margin = border_margin(threshold)
    search = measured(unit, unit, threshold, index, margin)
    near = near_buckets(unit, index, search.probes, margin)
    return pairs_in_buckets(unit, threshold, near, index.ntotal, new), search


def pairs_in_buckets(
    unit: UnitRows, threshold: float, near: NDArray[np.int32], buckets: int, new: int
) -> NDArray[np.int64]:
    """Pairs of rows of which one is looked up in the bucket of the other.

    Args:
        unit: the rows.
        threshold: least cosine in float32.
        near: the buckets that each row is looked up in, its own first: int32 [n, probes], -1 for none.
        buckets: how many there are.
        new: a pair has one of so many first rows.

    Returns:
        Positions, int64 [m, 2], the smaller first, sorted, each pair once.
    """
    from threadpoolctl import threadpool_limits

    if not new:
        return np.empty((0, 2), np.int64)
    members = _by_bucket(near[:, :1], buckets)
    few = _FewNew(unit, threshold, near, buckets, new) if new <= _FEW_IN_BUCKET * buckets else None
    guests = _guests(near, members, buckets) if few is None else _by_bucket(near[:new, 1:], buckets)

    def pairs_of(bucket: int) -> NDArray[np.int64]:
        inside, outside = members(bucket), guests(bucket)
        # Positions ascend, so that new rows come first; an old one is looked up among new ones only.
        fresh = int(np.searchsorted(inside, new))
        within, found = unit[inside], []
        if few is not None:
            outside, rest = few.split(inside[fresh:], outside)
            found.append(few.pairs_of(inside[fresh:], within[fresh:], rest))
        own = _pairs_between(within[:fresh], within, threshold, inside[:fresh], inside)
        found.append(own[own[:, 0] < own[:, 1]])
        visiting = int(np.searchsorted(outside, new))
        for guest, host in ((outside[:visiting], len(inside)), (outside[visiting:], fresh)):
            for start in range(0, len(guest) if host else 0, _TILE):
                part = guest[start : start + _TILE]
                pairs = _pairs_between(unit[part], within[:host], threshold, part, inside[:host])
                found.append(np.sort(pairs, axis=1))
        return np.concatenate(found)

    with threadpool_limits(1, "blas"):
        found = np.concatenate(list(ordered_map(pairs_of, range(buckets))))
    # A pair across a border may be found from both sides, or in buckets that are compared as a whole.
    keys = np.unique(found[:, 0] * len(unit) + found[:, 1])
    pairs = np.stack(np.divmod(keys, len(unit)), axis=1)
    parts = np.split(pairs, range(_PAIRS_AT_ONCE, len(pairs), _PAIRS_AT_ONCE))
    return np.concatenate([part[partner_rank(near, part) < near.shape[1]] for part in parts])


def _guests(
    near: NDArray[np.int32], members: Callable[[int], NDArray[np.int64]], buckets: int
) -> Callable[[int], NDArray[np.int64]]:
    """Gives the rows that a bucket's own are compared with, in order: those that are looked up in it, and not in it.

    Of two buckets whose rows are mostly near both, all are compared once, rather than most of them from either side.
    """
    sizes = np.bincount(near[:, 0], minlength=buckets)
    # The last column is for none.
    counts = np.zeros((buckets, buckets + 1), np.int64)
    parts = [slice(start, start + _PAIRS_AT_ONCE) for start in range(0, len(near), _PAIRS_AT_ONCE)]
    for part in parts:
        home, listed = near[part, :1].astype(np.int64), near[part, 1:]
        names = (home * (buckets + 1) + np.where(listed < 0, buckets, listed)).ravel()
        counts += np.bincount(names, minlength=counts.size).reshape(counts.shape)
    shares = (counts[:, :-1] / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    whole = np.triu(shares + shares.T >= 1, 1)
    settled = np.append(whole | whole.T, np.ones((buckets, 1), np.bool_), axis=1)
    rest = near[:, 1:].copy()
    for part in parts:
        rest[part][settled[near[part, :1], rest[part]]] = -1
    looked_up = _by_bucket(rest, buckets)
    return lambda bucket: np.sort(
        np.concatenate([looked_up(bucket), *map(members, np.flatnonzero(whole[bucket]).tolist())])
    )


class _FewNew:
    """Looks old rows up among few new ones: to read each old row for each bucket would take longer than all else.

    Args:
        unit: the rows.
        threshold: as of ``pairs_in_buckets``, like the others.
        near: the buckets that each row is looked up in.
        buckets: how many there are.
        new: how many rows are new.
    """

    def __init__(self, unit: UnitRows, threshold: float, near: NDArray[np.int32], buckets: int, new: int) -> None:
        import faiss
        from faiss.contrib.ivf_tools import add_preassigned

        self._near, self._buckets = near, buckets
        self._home = near[:new, 0].astype(np.int64)
        self._in_bucket = np.bincount(self._home, minlength=buckets + 1)
        # What is found is above it.
        self._below = float(np.nextafter(np.float32(threshold), np.float32(-2)))
        quantizer = faiss.IndexFlatIP(unit.dimension)
        self._index: Any = faiss.IndexIVFFlat(quantizer, unit.dimension, buckets, faiss.METRIC_INNER_PRODUCT)
        self._index.is_trained, self._index.nprobe = True, max(1, near.shape[1] - 1)
        add_preassigned(self._index, unit[np.arange(new)], self._home)

    def split(self, old: NDArray[np.int64], outside: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How old rows of one bucket are looked up.

        Args:
            old: the rows.
            outside: the new rows that are looked up in their bucket.

        Returns:
            The new rows that all of them are compared with, in order; and for each the buckets that it is looked up in
            besides, -1 for none, int64 [n, m].
        """
        listed = self._near[old, 1:].astype(np.int64)
        counts = np.bincount(listed[listed >= 0], minlength=self._buckets)
        is_guest = (counts > _WHOLE_SHARE * len(old))[self._home]
        is_guest[outside] = True
        # The last is that of none.
        left = self._in_bucket - np.bincount(self._home[is_guest], minlength=self._buckets + 1)
        return np.flatnonzero(is_guest), np.where(left[listed] > 0, listed, -1)

    def pairs_of(
        self, old: NDArray[np.int64], vectors: NDArray[np.float32], listed: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Pairs of an old row and a new one in the buckets that are given for it, as of ``split``: int64 [m, 2]."""
        import faiss

        some = np.flatnonzero((listed >= 0).any(axis=1)) if listed.size else np.empty(0, np.int64)
        if not some.size:
            return np.empty((0, 2), np.int64)
        # As many threads look at buckets as there are cores.
        faiss.omp_set_num_threads(1)
        ends, _, others = self._index.range_search_preassigned(
            vectors[some], self._below, listed[some], np.zeros((len(some), listed.shape[1]), np.float32)
        )
        return np.stack([others, np.repeat(old[some], np.diff(ends.astype(np.int64)))], axis=1)


def trained(unit: UnitRows, count: int) -> Any:
    """Spherical k-means of so many buckets on a sample of the rows: a faiss index of the centroids."""
    import faiss

    sample = spread(len(unit), count * _TRAINING_ROWS_PER_BUCKET)
    means = faiss.Kmeans(
        unit.dimension,
        count,
        niter=_ITERATIONS,
        spherical=True,
        seed=0,
        max_points_per_centroid=_TRAINING_ROWS_PER_BUCKET,
    )
    means.train(unit[sample])
    return means.index


def border_margin(threshold: float) -> float:
    """How far from the border of its bucket a row may be that has a partner across it."""
    return (2 - 2 * threshold) ** 0.5 / 2 + _ROUNDING


def measured(unit: UnitRows, searched: UnitRows, threshold: float, index: Any, margin: float) -> Search:
    """In how many buckets a row is to be looked up, by the pairs of a sample of rows.

    Args:
        unit: the rows whose cosines count.
        searched: the same rows as they are put into buckets.
        threshold: least cosine.
        index: as ``trained`` gives it.
        margin: as ``near_buckets`` takes it.
    """
    pairs = _pairs_of_sample(unit, spread(len(unit), _SAMPLED_ROWS), threshold)
    pairs = pairs[spread(len(pairs), _SAMPLED_PAIRS)]
    rows, places = np.unique(pairs, return_inverse=True)
    near, places = near_buckets(searched.only(rows), index, index.ntotal, margin), places.reshape(pairs.shape)
    rank = partner_rank(near, places)
    last = int(np.quantile(rank, RECALL, method="higher")) if len(pairs) else 0
    probes = min(_SAFETY * (last + 1), index.ntotal)
    return Search(index.ntotal, probes, len(pairs), float((rank < probes).mean()) if len(pairs) else 1.0)


def near_buckets(unit: UnitRows, index: Any, probes: int, margin: float) -> NDArray[np.int32]:
    """The nearest buckets of each row, its own first: int32 [n, probes].

    -1 for one whose border is farther than the margin: a partner there is not found from this side.
    """
    centroids = index.reconstruct_n(0, index.ntotal)
    apart = np.sqrt(np.maximum(2 - 2 * (centroids @ centroids.T), 1e-12))
    near = np.empty((len(unit), probes), dtype=np.int32)
    for rows, part in unit.parts():
        cosine, buckets = index.search(part, probes)
        to_border = (cosine[:, :1] - cosine) / apart[buckets[:, :1], buckets]
        to_border[:, 0] = 0
        near[rows] = np.where(to_border <= margin, buckets, -1)
    return near


def partner_rank(near: NDArray[np.int32], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the home of one row of a pair stands among the buckets near the other, whichever is first: int64 [m].

    Their number if nowhere.

    Args:
        near: as ``near_buckets`` gives it.
        pairs: positions in it, int64 [m, 2].
    """

    def rank(row: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        hits = near[row] == near[other, :1]
        return np.where(hits.any(axis=1), hits.argmax(axis=1), near.shape[1])

    return np.minimum(rank(*pairs.T), rank(*pairs.T[::-1]))


def _pairs_of_sample(unit: UnitRows, sample: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """All pairs between a sampled row and another one."""
    sampled = unit[sample]
    pairs = np.concatenate([_pairs_between(sampled, part, threshold, sample, rows) for rows, part in unit.parts()])
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _by_bucket(near: NDArray[np.int32], buckets: int) -> Callable[[int], NDArray[np.int64]]:
    """Gives the positions that are near a bucket, in order: of int32 [n, m], -1 for none."""
    from scipy.sparse import csr_array

    # Turned from rows to columns, a number takes 5 bytes, and nothing is sorted. The last column is for none.
    columns = np.where(near < 0, buckets, near).ravel()
    begins = np.arange(len(near) + 1, dtype=np.int64) * near.shape[1]
    turned = csr_array((np.ones(len(columns), np.bool_), columns, begins), shape=(len(near), buckets + 1)).tocsc()
    return lambda bucket: turned.indices[turned.indptr[bucket] : turned.indptr[bucket + 1]].astype(np.int64)


def _pairs_between(
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    threshold: float,
    left_rows: NDArray[np.int64],
    right_rows: NDArray[np.int64],
) -> NDArray[np.int64]:
    # Several times as fast as numpy.nonzero of a matrix.
    i, j = np.divmod(np.flatnonzero(left @ right.T >= threshold), len(right))
    return np.stack([left_rows[i], right_rows[j]], axis=1)


def spread(rows: int, wanted: int) -> NDArray[np.int64]:
    """Row numbers spread evenly, at most as many as wanted."""
    return np.unique(np.linspace(0, rows - 1, min(rows, wanted)).round().astype(np.int64))
