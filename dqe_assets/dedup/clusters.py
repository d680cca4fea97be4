"""From pairs to clusters of duplicates, with one sample of each to keep."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from dqe_assets.dedup.components import components
from dqe_assets.dedup.exact import exact_pairs
from dqe_assets.dedup.perceptual import perceptual_pairs
from dqe_assets.dedup.semantic import cosines, semantic_pairs
from dqe_assets.dedup.text import text_pairs, text_similarities
from dqe_assets.schemas import CAPTION_DUPLICATES, DUPLICATE_CLUSTERS
from dqe_resources.component import Strict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

ANY = "any"
"""The kind that joins all others: samples that are duplicates in any way."""


class DuplicateRules(Strict):
    """When two images are duplicates.

    Attributes:
        max_distance: perceptual, in bits of the 64 of the hash.
        min_contrast: standard deviation of the luminance, 0 to 1, below which a hash says nothing.
        min_cosine: semantic, of the classifier's pooled features.
        min_jaccard: of two captions' sets of four-letter runs, from which they are nearly the same.
        representative: which sample of a cluster is kept: that with the largest image, that whose best caption fits
            best, or the earliest by shard and row. Of equal ones it is that with the smallest uid.
    """

    max_distance: Annotated[int, Field(ge=0, le=16)] = 8
    min_contrast: Annotated[float, Field(ge=0, le=1)] = 0.02
    min_cosine: Annotated[float, Field(gt=0, le=1)] = 0.85
    min_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.8
    representative: Literal["largest", "best_caption", "earliest"] = "largest"


def find_duplicates(
    samples: pa.Table, embeddings: NDArray[np.floating], preference: NDArray[np.floating], rules: DuplicateRules
) -> pa.Table:
    """All clusters of duplicate images.

    Args:
        samples: one row a sample that has an image, with ``uid``, ``sha256`` of ``RAW_SAMPLES`` and ``pixel_digest``,
            ``perceptual_hash``, ``contrast`` of ``IMAGE_FEATURES``.
        embeddings: their features, floats [n, d]; they may be mapped from a file.
        preference: floats [n]: the sample of a cluster with the greatest is kept.
        rules: the thresholds.

    Returns:
        Table of ``DUPLICATE_CLUSTERS``; it does not depend on the order of the rows.
    """
    samples = samples.combine_chunks()
    perceptual, _ = perceptual_pairs(
        samples["perceptual_hash"].to_numpy(),
        rules.max_distance,
        contrast=samples["contrast"].to_numpy(),
        min_contrast=rules.min_contrast,
    )
    pairs = {
        "exact": np.concatenate([exact_pairs(samples["sha256"]), exact_pairs(samples["pixel_digest"])]),
        "perceptual": perceptual,
        "semantic": semantic_pairs(embeddings, rules.min_cosine)[0],
    }
    pairs[ANY] = np.concatenate(list(pairs.values()))
    found = cluster(samples["uid"], pairs, preference, partial(cosines, embeddings))
    return found.cast(DUPLICATE_CLUSTERS)


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
        equal, near, _ = text_pairs(texts, threshold)
        pairs = {"exact": equal, "near": np.concatenate([equal, near])}
        found = cluster(uids, pairs, np.zeros(len(uids)), partial(text_similarities, texts))
        found = found.append_column("caption_source", pa.repeat(source, found.num_rows))
        tables.append(found.select(CAPTION_DUPLICATES.names).cast(CAPTION_DUPLICATES))
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
        similarities: gives the similarity of each of some pairs of rows, int64 [k, 2]; NaN where there is none.

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
