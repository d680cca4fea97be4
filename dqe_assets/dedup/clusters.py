"""From pairs to clusters of duplicates, with one sample of each to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from dqe_assets.dedup.components import components
from dqe_assets.dedup.exact import exact_pairs
from dqe_assets.dedup.perceptual import perceptual_pairs
from dqe_assets.dedup.semantic import cosines, semantic_pairs
from dqe_assets.schemas import DUPLICATE_CLUSTERS
from dqe_resources.component import Strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ANY = "any"
"""The kind that joins all others: samples that are duplicates in any way."""


class DuplicateRules(Strict):
    """When two images are duplicates.

    Attributes:
        max_distance: perceptual, in bits of the 64 of the hash.
        min_contrast: standard deviation of the luminance, 0 to 1, below which a hash says nothing.
        min_cosine: semantic, of the classifier's pooled features.
    """

    max_distance: Annotated[int, Field(ge=0, le=16)] = 8
    min_contrast: Annotated[float, Field(ge=0, le=1)] = 0.02
    min_cosine: Annotated[float, Field(gt=0, le=1)] = 0.85


def find_duplicates(samples: pa.Table, embeddings: NDArray[np.floating], rules: DuplicateRules) -> pa.Table:
    """All clusters of duplicates.

    Args:
        samples: one row a sample that has an image, with ``uid``, ``sha256``, ``width``, ``height`` of ``RAW_SAMPLES``
            and ``perceptual_hash``, ``contrast`` of ``IMAGE_FEATURES``.
        embeddings: their features, floats [n, d]; they may be mapped from a file.
        rules: the thresholds.

    Returns:
        Table of ``DUPLICATE_CLUSTERS``; it does not depend on the order of the rows.
    """
    samples = samples.combine_chunks()
    pairs = {
        "exact": exact_pairs(samples["sha256"]),
        "perceptual": perceptual_pairs(
            samples["perceptual_hash"].to_numpy(),
            rules.max_distance,
            contrast=samples["contrast"].to_numpy(),
            min_contrast=rules.min_contrast,
        )[0],
        "semantic": semantic_pairs(embeddings, rules.min_cosine)[0],
    }
    areas = samples["width"].to_numpy().astype(np.int64) * samples["height"].to_numpy()
    return cluster(samples["uid"], pairs, areas, embeddings)


def cluster(
    uids: pa.Array | pa.ChunkedArray,
    pairs_by_kind: Mapping[str, NDArray[np.int64]],
    areas: NDArray[np.int64],
    embeddings: NDArray[np.floating],
) -> pa.Table:
    """Clusters of each kind of pair and of all together: the connected components of the pairs.

    Args:
        uids: string [n], unique.
        pairs_by_kind: for each kind its pairs of row numbers, int64 [m, 2].
        areas: width x height in pixels, int64 [n]: the largest image of a cluster represents it, and of equal ones
            that with the smallest uid.
        embeddings: floats [n, d], for the similarity of a sample to its representative; null where a row has none.

    Returns:
        Table of ``DUPLICATE_CLUSTERS``: a row for each sample of a cluster of two or more, by kind (in the order
        given, then ``any``), cluster and uid.

    Raises:
        ValueError: if the lengths differ.
    """
    if not len(uids) == len(areas) == len(embeddings):
        raise ValueError(f"{len(uids)} uids, {len(areas)} areas and {len(embeddings)} embeddings")
    everything = [np.empty((0, 2), dtype=np.int64), *pairs_by_kind.values()]
    names = np.asarray(uids.to_pylist(), dtype=np.str_)
    tables = [
        _clusters_of(kind, names, pairs, areas, embeddings)
        for kind, pairs in [*pairs_by_kind.items(), (ANY, np.concatenate(everything))]
    ]
    return pa.concat_tables(tables).combine_chunks()


def _clusters_of(
    kind: str,
    uids: NDArray[np.str_],
    pairs: NDArray[np.int64],
    areas: NDArray[np.int64],
    embeddings: NDArray[np.floating],
) -> pa.Table:
    members = np.unique(pairs)
    if not members.size:
        return DUPLICATE_CLUSTERS.empty_table()
    component = components(np.searchsorted(members, pairs), len(members))

    # In order of uid, so that the first of a component has its smallest uid.
    by_uid = np.argsort(uids[members], kind="stable")
    members, component = members[by_uid], component[by_uid]
    _, first, component, sizes = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    first_of, size_of = first[component], sizes[component]
    largest_first = np.lexsort((-areas[members], component))
    _, best = np.unique(component[largest_first], return_index=True)
    representative = members[largest_first[best]][component]
    similarity = cosines(embeddings, np.stack([members, representative], axis=1)).astype(np.float32)

    columns = {
        "uid": uids[members],
        "kind": np.full(len(members), kind),
        "cluster": uids[members[first_of]],
        "representative": uids[representative],
        "is_representative": members == representative,
        "similarity": pa.array(similarity, mask=np.isnan(similarity)),
        "size": size_of.astype(np.int32),
    }
    order = np.argsort(first_of, kind="stable")
    return pa.table(columns, schema=DUPLICATE_CLUSTERS).take(order)
