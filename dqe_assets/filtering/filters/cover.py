"""Samples that are as different from each other as can be: every other sample is near to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, InstanceOf, PrivateAttr

from dqe_assets.compression.selection import select_from_clusters
from dqe_assets.core.hashing import draw_keys, mixed
from dqe_assets.core.k_means import k_means, nearest_centroids, training_rows
from dqe_assets.filtering.filters.among import Among
from dqe_assets.filtering.filters.pool_scores import PoolRows
from dqe_assets.filtering.filters.protocol import FilterError, Seed, Selection
from dqe_assets.filtering.pool import UID
from dqe_assets.filtering.scores import farthest_first
from dqe_assets.filtering.subset import UID_TYPE, parse_uids, unique_uids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.filtering.filters.among import Batches
    from dqe_assets.filtering.filters.protocol import Filter
    from dqe_assets.filtering.pool import Pool

_IN_A_GROUP = 2_048
"""Samples that are chosen from at once: what so many cost grows with their square."""

_MEASURED = 10_000
_QUANTILES = np.linspace(0, 1, 51)
_ROWS_AT_ONCE = 8_192


class Cover(Among):
    """A share of the samples that covers all of them: each is near to one that is kept.

    Greedy k-center (Gonzalez 1985; of embeddings: Sener and Savarese, arXiv 1708.00489): the next sample is always the
    one that is farthest from all before it, by the cosine. Pools of more than 2,048 samples are cut into groups of
    alike samples by k-means, whatever shards they are in. Each group is put in that order, and of all groups those
    samples are kept that were farthest when they were taken: so a group in which samples differ gets more of them.

    It keeps as many samples as ``random`` of the same share does. A sample without an embedding is not kept.

    Attributes:
        share: Share of the samples to keep.
        by: Column of the embeddings.
        seed: Of k-means, and of which sample is the first of a group.
        of: What to choose among; by default what all else keeps that it is joined to by ``&``.
    """

    name: ClassVar[str] = "cover"
    meaning: ClassVar[str] = "a share to which all other samples are near"
    share: Annotated[float, Field(gt=0, le=1)]
    by: str = "image_features"
    seed: Seed = 0
    of: InstanceOf[Selection] | None = None

    _rows: PoolRows | None = PrivateAttr(None)

    @property
    def read(self) -> tuple[str, ...]:
        """Nothing beside the uids."""
        return ()

    @property
    def read_apart(self) -> tuple[str, ...]:
        """The embeddings, which are kept in a file."""
        return (self.by,)

    def fit_among(self, pools: Sequence[Pool], fitted: Mapping[str, Filter]) -> Filter:
        """As ``Filter.fit_among``."""
        reading = self.model_copy()
        reading._rows = PoolRows(pools)  # noqa: SLF001 - a copy of its own
        return super(Cover, reading).fit_among(pools, fitted)

    def fitted_to(self, batches: Batches) -> Filter:
        """With the samples that are kept.

        Memory holds the uids, and what is known of a group. The embeddings are in a temporary file, as 16-bit floats.
        """
        wanted = unique_uids(
            np.concatenate([np.empty(0, UID_TYPE), *(parse_uids(one.column(UID)) for one in batches())])
        )
        embedded = _Embedded.of(self._rows or PoolRows([]), self.by, wanted, self.seed)
        count = len(embedded.uids)
        if not count:
            raise FilterError(f"{self.name}: no sample has {self.by}")
        kept = int(select_from_clusters(np.zeros(count, np.int32), self.share, "uniform").sum())
        labels = self._groups(embedded)
        radii = np.full(count, -np.inf, np.float32)
        for members in _members(labels):
            radii[members] = farthest_first(embedded[members], kept)
        chosen = np.zeros(count, bool)
        chosen[np.argsort(-radii, kind="stable")[:kept]] = True
        facts = {"groups": len(np.unique(labels)), "samples": count, **self._measured(embedded, labels, chosen)}
        return self.keeping(embedded.uids[chosen], facts)

    def _groups(self, embedded: _Embedded) -> NDArray[np.int32]:
        """The group of each sample."""
        count = len(embedded.uids)
        groups = -(-count // _IN_A_GROUP)
        if groups == 1:
            return np.zeros(count, np.int32)
        drawn = np.arange(min(count, training_rows(groups, embedded.vectors.shape[1])))
        centroids = k_means(embedded[drawn], groups, seed=self.seed)
        blocks = (np.arange(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE))
        return np.concatenate([nearest_centroids(embedded[rows], centroids)[0] for rows in blocks])

    def _measured(self, embedded: _Embedded, labels: NDArray[np.int32], chosen: NDArray[np.bool_]) -> dict[str, Any]:
        """How far samples are from the nearest that is kept, and from the nearest of as many at random.

        Of whole groups, until there are ``_MEASURED`` samples.
        """
        rows = np.concatenate([np.empty(0, np.int64), *_first_of(labels, _MEASURED)])
        vectors, kept = embedded[rows], chosen[rows]
        drawn = np.zeros(len(rows), bool)
        drawn[np.random.default_rng(self.seed).permutation(len(rows))[: kept.sum()]] = True
        distances = {name: _distances(vectors, some) for name, some in (("cover", kept), ("random", drawn))}
        return {
            "measured": len(rows),
            "mean_distance": {name: float(found.mean()) for name, found in distances.items()},
            "largest_distance": {name: float(found.max()) for name, found in distances.items()},
            "distances": {name: np.quantile(found, _QUANTILES).round(4).tolist() for name, found in distances.items()},
        }


class _Embedded:
    """Samples that have an embedding, in an order that the seed and their uids alone decide."""

    def __init__(self, uids: NDArray[np.void], rows: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        self.uids, self._rows, self.vectors = uids, rows, vectors

    @classmethod
    def of(cls, rows: PoolRows, column: str, wanted: NDArray[np.void], seed: int) -> _Embedded:
        """Those of some samples, of sorted uids without repeats."""
        vectors = rows.vectors(column)
        places = rows.order[np.searchsorted(rows.uids[rows.order], wanted)]
        there = np.isfinite(vectors[:, 0])[places]
        uids = wanted[there]
        keys = mixed(draw_keys(uids["f0"], uids["f1"]) ^ mixed(np.array([seed], np.uint64)))
        order = np.argsort(keys, kind="stable")
        return cls(uids[order], places[there][order], vectors)

    def __getitem__(self, which: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.vectors[self._rows[which]].astype(np.float32)


def _members(labels: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """The samples of each group, in their order."""
    order = np.argsort(labels, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _first_of(labels: NDArray[np.int32], count: int) -> Iterator[NDArray[np.int64]]:
    """The first groups, until there are so many samples."""
    found = 0
    for members in _members(labels):
        if found >= count:
            return
        found += len(members)
        yield members[:count]


def _distances(vectors: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 - the cosine of each vector and the nearest that is kept, [n]."""
    if not kept.any():
        return np.ones(len(vectors), np.float32)
    there = vectors[kept]
    blocks = (vectors[start : start + 1_024] for start in range(0, len(vectors), 1_024))
    nearest = np.concatenate([1 - (block @ there.T).max(axis=1) for block in blocks])
    return np.where(kept, 0, np.maximum(nearest, 0))
