"""From pairs to clusters of duplicates, with one sample of each to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.uids import packed_uids, unpacked_uids
from dqe_assets.dedup.components import components
from dqe_assets.dedup.pairs import KINDS
from dqe_assets.dedup.semantic import gathered_cosines, has_direction
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ANY = "any"
"""The kind that joins all others: samples that are duplicates in any way."""


def clusters_of_pairs(
    pairs: pa.Table,
    uids: pa.ChunkedArray,
    embeddings: Any,
    preference: NDArray[np.floating],
    *,
    directed: NDArray[np.bool_] | None = None,
    earlier: pa.Table | None = None,
    unchanged: NDArray[np.bool_] | None = None,
) -> pa.Table:
    """All clusters of duplicate images: the connected components of their pairs.

    Args:
        pairs: table of ``DUPLICATE_PAIRS``.
        uids: string [n], unique: the samples that are in a pair.
        embeddings: their features, floats [n, d]; those of two whose cosine is known are not read.
        preference: floats [n]: the sample of a cluster with the greatest is kept.
        directed: bool [n], which features are finite and not zero; found if it is not given.
        earlier: uid, representative and similarity of what this function found; it changes nothing.
        unchanged: bool [n], which samples have the features that they had then.

    Returns:
        Table of ``DUPLICATE_CLUSTERS``; it does not depend on the order of the rows.

    Raises:
        ValueError: a pair's sample is not among the uids.
    """
    ends = [pc.index_in(pairs[end], uids) for end in ("uid_a", "uid_b")]
    if any(end.null_count for end in ends):
        raise ValueError("a pair has a sample that is not there")
    rows = np.stack([end.to_numpy() for end in ends], axis=1).astype(np.int64)
    kinds = pairs["kind"].to_numpy()
    by_kind = {kind: rows[kinds == kind] for kind in KINDS} | {ANY: rows}
    names = packed_uids(uids)
    alike = _Cosines(embeddings, has_direction(embeddings) if directed is None else directed)
    alike.add(by_kind["semantic"], pairs["similarity"].to_numpy()[kinds == "semantic"])
    if earlier is not None and unchanged is not None:
        differ = pc.not_equal(earlier["uid"], earlier["representative"])
        known = earlier.filter(pc.and_(earlier["similarity"].is_valid(), differ))
        before = [pc.index_in(known[end], uids).fill_null(-1).to_numpy() for end in ("uid", "representative")]
        holds = np.append(unchanged, False)[np.stack(before, axis=1)].all(axis=1)
        alike.add(np.stack(before, axis=1)[holds].astype(np.int64), known["similarity"].to_numpy()[holds])
    tables = [
        cluster_table(kind, names, components(found, len(names)), preference, alike) for kind, found in by_kind.items()
    ]
    return pa.concat_tables(tables).cast(DUPLICATE_CLUSTERS)


class _Cosines:
    """Cosines of pairs of rows; NaN where one has no direction. What several kinds ask for is computed once."""

    def __init__(self, embeddings: Any, directed: NDArray[np.bool_]) -> None:
        self._embeddings, self._directed = embeddings, directed
        self._names: NDArray[np.int64] = np.empty(0, np.int64)
        self._values: NDArray[np.floating] = np.empty(0)

    def add(self, pairs: NDArray[np.int64], values: NDArray[np.floating]) -> None:
        """Say what the cosines of pairs are."""
        names, values = np.concatenate([self._names, self._name(pairs)]), np.concatenate([self._values, values])
        self._names, first = np.unique(names, return_index=True)
        self._values = values[first]

    def __call__(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.where(self._directed[pairs[:, 0]], 1.0, np.nan)
        others = np.flatnonzero(pairs[:, 0] != pairs[:, 1])
        names, places = np.unique(self._name(pairs[others]), return_inverse=True)
        new = np.setdiff1d(names, self._names, assume_unique=True)
        ends = np.stack(np.divmod(new, max(1, len(self._directed))), axis=1)
        self.add(ends, gathered_cosines(self._embeddings, ends))
        found[others] = self._values[np.searchsorted(self._names, names)][places]
        return found

    def _name(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        low, high = np.sort(pairs, axis=1).T
        return low * len(self._directed) + high


def cluster_table(
    kind: str,
    uids: NDArray[np.bytes_],
    component: NDArray[np.integer],
    preference: NDArray[np.floating],
    similarities: Callable[[NDArray[np.int64]], NDArray[np.floating]],
) -> pa.Table:
    """The clusters of one kind: the components of two or more samples.

    Args:
        kind: what the clusters are called.
        uids: the samples [n], each once, as `dqe_assets.core.uids.packed_uids` has them.
        component: the number of each sample's component [n].
        preference: floats [n]: of a cluster that sample with the greatest represents it, and of equal ones that with
            the smallest uid; NaN is less than all others.
        similarities: gives the similarity of each of some pairs of positions, int64 [k, 2]; NaN if there is none.

    Returns:
        Table with the columns that ``DUPLICATE_CLUSTERS`` and ``CAPTION_DUPLICATES`` share: a row for each sample of a
        cluster, by cluster and uid.

    Raises:
        ValueError: if the lengths differ.
    """
    if not len(uids) == len(component) == len(preference):
        raise ValueError(f"{len(uids)} uids, {len(component)} components and {len(preference)} preferences")
    _, component, sizes = np.unique(component, return_inverse=True, return_counts=True)
    members = np.flatnonzero(sizes[component] > 1)
    # In order of uid, so that the first of a component has its smallest uid.
    members = members[np.argsort(uids[members], kind="stable")]
    names = uids[members]
    _, first, component, sizes = np.unique(
        component[members], return_index=True, return_inverse=True, return_counts=True
    )
    ranked = np.nan_to_num(np.asarray(preference[members], np.float64), nan=-np.inf)
    preferred = np.lexsort((-ranked, component))
    _, best = np.unique(component[preferred], return_index=True)
    order = np.argsort(first[component], kind="stable")
    of_cluster, representative = first[component][order], preferred[best][component][order]
    similarity = similarities(members[np.stack([order, representative], axis=1)]).astype(np.float32)
    columns = {
        "uid": unpacked_uids(names[order]),
        "kind": pa.repeat(kind, len(order)),
        "cluster": unpacked_uids(names[of_cluster]),
        "representative": unpacked_uids(names[representative]),
        "is_representative": order == representative,
        "similarity": pa.array(similarity, mask=np.isnan(similarity)),
        "size": sizes[component][order].astype(np.int32),
    }
    return pa.table(columns)
