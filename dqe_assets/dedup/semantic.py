"""Duplicates that show the same: image features whose cosine is above a threshold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.dedup.buckets import Search, UnitRows, all_pairs, bucketed_pairs, pairs_in_buckets
from dqe_assets.dedup.components import components
from dqe_assets.dedup.exact import Pairs, distinct_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 2048
_ROUNDING = 1e-4

EXACT_BELOW = 20_000
"""Rows up to which all pairs are tried."""


_GATHERED = 1 << 15
"""Pairs whose vectors are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of rows before their pairs are looked for.

    Attributes:
        digests: of their vectors, uint64 [n, 2].
        directed: whether their vectors have a direction, bool [n].
        places: where in ``codes`` and ``near`` each row is, int64 [n].
        codes: the codes of vectors (`dqe_assets.dedup.codebook.codes`), float16 [m, d].
        near: the buckets that each code is looked up in, int32 [m, probes].
        buckets: how many there are; 0 if all pairs are to be tried.
        threshold: cosine of codes from which two rows are a candidate.
    """

    digests: NDArray[np.uint64]
    directed: NDArray[np.bool_]
    places: NDArray[np.int64]
    codes: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))
    near: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    buckets: int = 0
    threshold: float = 0.0

    def candidates(self, rows: NDArray[np.int64], new: int) -> tuple[NDArray[np.int64], Search]:
        """Positions of rows that may be a pair, int64 [m, 2], one of them among the first ``new``."""
        places = self.places[rows]
        unit = UnitRows(self.codes, places, are_unit=True)
        found = pairs_in_buckets(unit, self.threshold, self.near[places], self.buckets, new)
        return found, Search(self.buckets, self.near.shape[1])


@dataclass(frozen=True, slots=True)
class DuplicateResult:
    """Which rows are duplicates, of which row, and how they were looked for.

    Attributes:
        representative: int64 [n], the row that stands for each row: the first of its cluster; itself if it has no
            duplicate.
        similarity: float64 [n], cosine of each row and its representative; NaN for a row without a direction.
        pairs: int64 [m, 2], the links that the clusters are the connected components of, the smaller row first.
        pair_similarity: float64 [m], their cosines.
        search: how the pairs were looked for.
    """

    representative: NDArray[np.int64]
    similarity: NDArray[np.float64]
    pairs: NDArray[np.int64]
    pair_similarity: NDArray[np.float64]
    search: Search

    @property
    def kept(self) -> NDArray[np.int64]:
        """Rows to keep: one of each cluster, and those without a duplicate."""
        return np.flatnonzero(self.representative == np.arange(len(self.representative)))

    @property
    def dropped(self) -> NDArray[np.int64]:
        """Rows that another one stands for."""
        return np.flatnonzero(self.representative != np.arange(len(self.representative)))


def cluster_duplicates(
    embeddings: NDArray[np.floating], threshold: float, *, exact_below: int = EXACT_BELOW
) -> DuplicateResult:
    """Clusters of rows that are connected by cosines of at least ``threshold``.

    Deterministic; another order of the rows gives the same clusters.

    Args:
        embeddings: floats [n, d], float16 or float32, of any length and best of one; rows that are zero or not finite
            have no duplicates.
        threshold: cosine, above -1 and at most 1.
        exact_below: with so many distinct rows or fewer, all pairs are tried; beyond that k-means buckets are searched
            (`dqe_assets.dedup.buckets.bucketed_pairs`).

    Raises:
        ValueError: if the threshold is out of range or the embeddings are not a matrix.
    """
    found, search = semantic_pairs(embeddings, threshold, exact_below=exact_below)
    pairs, similarity = found.all, np.concatenate([np.ones(len(found.equal)), found.measure])
    component = components(pairs, len(embeddings))
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    representative = first[inverse].astype(np.int64)
    to_representative = np.stack([np.arange(len(embeddings)), representative], axis=1)
    return DuplicateResult(representative, cosines(embeddings, to_representative), pairs, similarity, search)


def semantic_pairs(
    embeddings: NDArray[np.floating],
    threshold: float,
    *,
    exact_below: int = EXACT_BELOW,
    known: NDArray[np.bool_] | None = None,
    prepared: Prepared | None = None,
) -> tuple[Pairs[np.float64], Search]:
    """Pairs of rows whose cosine is at least ``threshold``: all of them, or of many rows nearly all.

    Candidates come from float32 products; their cosines are then computed one by one in float64, so that a pair at
    the threshold does not depend on where its rows stand. SemDeDup (Abbas et al. 2023) calls such pairs semantic
    duplicates.

    Args:
        embeddings: floats [n, d] of any length; rows that are zero or not finite take no part.
        threshold: cosine, above -1 and at most 1.
        exact_below: all pairs are tried of so many distinct rows, or of new and all rows if that is no more work.
        known: bool [n]; near pairs both of whose vectors belong to a known row are not looked for.
        prepared: what is known of the rows; it then decides whether all pairs are tried.

    Returns:
        Links of equal vectors, near pairs and their cosines, and how those were looked for.

    Raises:
        ValueError: if the threshold is out of range or the embeddings are not a matrix.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold must be a cosine above -1 and at most 1, not {threshold}")
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must be [n, d], not of shape {embeddings.shape}")
    rows = np.flatnonzero(has_direction(embeddings) if prepared is None else prepared.directed)
    digests = vector_digests(embeddings, rows) if prepared is None else prepared.digests[rows]
    # In the order of their digests, what is found does not depend on the order of the rows.
    equal, first, new = distinct_values(digests, None if known is None else known[rows])
    distinct = rows[first]
    if prepared is not None and prepared.buckets:
        candidates, search = prepared.candidates(distinct, new)
    elif prepared is not None or new * len(distinct) <= exact_below**2:
        candidates, search = all_pairs(UnitRows(embeddings, distinct), threshold - _ROUNDING, new), Search()
    else:
        candidates, search = bucketed_pairs(UnitRows(embeddings, distinct), threshold - _ROUNDING, new)
    near = np.sort(distinct[candidates], axis=1)
    similar = gathered_cosines(embeddings, near)
    kept = similar >= threshold
    return Pairs(rows[equal], near[kept], similar[kept]), search


def gathered_cosines(embeddings: Any, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """As ``cosines``; of the vectors, which may be in many files, each is read once for many pairs."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _GATHERED):
        rows, places = np.unique(pairs[start : start + _GATHERED], return_inverse=True)
        found[start : start + _GATHERED] = cosines(embeddings[rows], places.reshape(-1, 2))
    return found


def has_direction(embeddings: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows of [n, d] are finite and not zero, and so have a cosine with others: bool [n]."""
    parts = (embeddings[start : start + _BLOCK] for start in range(0, len(embeddings), _BLOCK))
    return np.concatenate(
        [np.empty(0, np.bool_), *(np.isfinite(part).all(axis=1) & part.any(axis=1) for part in parts)]
    )


def cosines(embeddings: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cosine of each pair of rows.

    Args:
        embeddings: floats [n, d].
        pairs: row numbers, int64 [m, 2].

    Returns:
        float64 [m], the same whatever the order of a pair; NaN if a row is zero or not finite.
    """
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        left, right = np.moveaxis(embeddings[pairs[start : start + _BLOCK]].astype(np.float64), 1, 0)
        with np.errstate(invalid="ignore"):
            dots = np.einsum("ij,ij->i", left, right)
            squares = np.einsum("ij,ij->i", left, left) * np.einsum("ij,ij->i", right, right)
            result[start : start + _BLOCK] = np.clip(dots / np.sqrt(squares), -1, 1)
    return result


def vector_digests(embeddings: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Digests of some rows of [n, d]: uint64 [m, 2]."""
    found = (hashlib.blake2b(embeddings[row].tobytes(), digest_size=16).digest() for row in rows)
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)
