"""From pairs to clusters of duplicates, with one sample of each to keep."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.dedup.caption_text import text_pairs, text_similarities
from dqe_assets.dedup.components import components
from dqe_assets.dedup.pairs import KINDS
from dqe_assets.dedup.semantic import cosines
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, DUPLICATE_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

ANY = "any"
"""The kind that joins all others: samples that are duplicates in any way."""


def clusters_of_pairs(
    pairs: pa.Table,
    uids: pa.ChunkedArray,
    embeddings: NDArray[np.floating],
    preference: NDArray[np.floating],
) -> pa.Table:
    """All clusters of duplicate images: the connected components of their pairs.

    Args:
        pairs: table of ``DUPLICATE_PAIRS``.
        uids: string [n], unique: the samples that are in a pair.
        embeddings: their features, floats [n, d]; they may be mapped from a file.
        preference: floats [n]: the sample of a cluster with the greatest is kept.

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
    return cluster(uids, by_kind, preference, partial(cosines, embeddings)).cast(DUPLICATE_CLUSTERS)


def find_caption_duplicates(
    uids: pa.ChunkedArray, captions: Mapping[str, pa.ChunkedArray], threshold: float
) -> pa.Table:
    """All clusters of equal captions, and of equal or nearly equal ones, in each caption source by itself.

    Args:
        uids: string [n], unique.
        captions: the captions of each caption source, strings [n].
        threshold: Jaccard similarity from which two captions are nearly equal.

    Returns:
        Table of ``CAPTION_DUPLICATES``; it does not depend on the order of the rows. The first by uid of a cluster
        represents it.
    """
    tables = [CAPTION_DUPLICATES.empty_table()]
    for source, texts in captions.items():
        found = text_pairs(texts, threshold)
        pairs = {"exact": found.equal, "near": found.all}
        clusters = cluster(uids, pairs, np.zeros(len(uids)), partial(text_similarities, texts))
        clusters = clusters.append_column("caption_source", pa.repeat(source, clusters.num_rows))
        tables.append(clusters.select(CAPTION_DUPLICATES.names).cast(CAPTION_DUPLICATES))
    return pa.concat_tables(tables).combine_chunks()


def cluster(
    uids: pa.Array | pa.ChunkedArray,
    pairs_by_kind: Mapping[str, NDArray[np.int64]],
    preference: NDArray[np.floating],
    similarities: Callable[[NDArray[np.int64]], NDArray[np.floating]],
) -> pa.Table:
    """Clusters of each kind of pair: the connected components of the pairs.

    Args:
        uids: string [n], unique.
        pairs_by_kind: for each kind its pairs of row numbers, int64 [m, 2].
        preference: floats [n]: of a cluster that row with the greatest represents it, and of equal ones that with the
            smallest uid; NaN is less than all others.
        similarities: gives the similarity of each of some pairs of rows, int64 [k, 2]; NaN if there is none.

    Returns:
        Table with the columns that ``DUPLICATE_CLUSTERS`` and ``CAPTION_DUPLICATES`` share: a row for each row of a
        cluster of two or more, by kind (in the order given), cluster and uid.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(uids) != len(preference):
        raise ValueError(f"{len(uids)} uids and {len(preference)} preferences")
    names = np.asarray(uids.to_pylist(), dtype=np.str_)
    ranked = np.nan_to_num(np.asarray(preference, np.float64), nan=-np.inf)
    tables = [_clusters_of(kind, names, pairs, ranked, similarities) for kind, pairs in pairs_by_kind.items()]
    return pa.concat_tables(tables).combine_chunks()


def _clusters_of(
    kind: str,
    uids: NDArray[np.str_],
    pairs: NDArray[np.int64],
    preference: NDArray[np.float64],
    similarities: Callable[[NDArray[np.int64]], NDArray[np.floating]],
) -> pa.Table:
    members = np.unique(pairs)
    component = components(np.searchsorted(members, pairs), len(members))

    # In order of uid, so that the first of a component has its smallest uid.
    by_uid = np.argsort(uids[members], kind="stable")
    members, component = members[by_uid], component[by_uid]
    _, first, component, sizes = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    first_of, size_of = first[component], sizes[component]
    preferred = np.lexsort((-preference[members], component))
    _, best = np.unique(component[preferred], return_index=True)
    representative = members[preferred[best]][component]
    similarity = similarities(np.stack([members, representative], axis=1)).astype(np.float32)

    columns = {
        "uid": pa.array(uids[members], pa.string()),
        "kind": pa.repeat(kind, len(members)),
        "cluster": pa.array(uids[members[first_of]], pa.string()),
        "representative": pa.array(uids[representative], pa.string()),
        "is_representative": members == representative,
        "similarity": pa.array(similarity, mask=np.isnan(similarity)),
        "size": size_of.astype(np.int32),
    }
    return pa.table(columns).take(pa.array(np.argsort(first_of, kind="stable")))
