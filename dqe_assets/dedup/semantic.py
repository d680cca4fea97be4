"""Duplicates that show the same: image features whose cosine is above a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.dedup.exact import links_to_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 2048
_ROUNDING = 1e-4


def semantic_pairs(embeddings: NDArray[np.floating], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All pairs of rows whose cosine is at least ``threshold``.

    Candidates come from blocks of float32 products; their cosines are then computed one by one in float64, so that
    a pair at the threshold does not depend on where its rows stand. Equal rows count as one, as in
    `dqe_assets.dedup.perceptual.perceptual_pairs`. SemDeDup (Abbas et al. 2023) calls such pairs semantic duplicates.
    Time grows with the square of the number of distinct rows; memory with the number of pairs, beside a float32 copy.

    Args:
        embeddings: floats [n, d] of any length; rows that are zero or not finite take no part.
        threshold: cosine, above -1 and at most 1.

    Returns:
        Row numbers int64 [m, 2], the smaller first in each pair, and cosines float64 [m].

    Raises:
        ValueError: if the threshold is out of range or the embeddings are not a matrix.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold must be a cosine above -1 and at most 1, not {threshold}")
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must be [n, d], not of shape {embeddings.shape}")
    rows = np.flatnonzero(has_direction(embeddings))
    if not rows.size:
        return np.empty((0, 2), dtype=np.int64), np.empty(0)
    equal = _equal_rows(embeddings[rows])
    distinct = np.setdiff1d(np.arange(len(rows)), equal[:, 1], assume_unique=True)
    unit = embeddings[rows[distinct]].astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    candidates = rows[distinct[_candidates(unit, threshold - _ROUNDING)]]
    similar = cosines(embeddings, candidates)
    kept = similar >= threshold
    return np.concatenate([rows[equal], candidates[kept]]), np.concatenate([np.ones(len(equal)), similar[kept]])


def has_direction(embeddings: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which rows of [n, d] are finite and not zero, and so have a cosine with others: bool [n]."""
    return np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)


def cosines(embeddings: NDArray[np.floating], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cosine of each pair of rows.

    Args:
        embeddings: floats [n, d].
        pairs: row numbers, int64 [m, 2].

    Returns:
        float64 [m], the same whatever the order of a pair; NaN where a row is zero or not finite.
    """
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        left, right = np.moveaxis(embeddings[pairs[start : start + _BLOCK]].astype(np.float64), 1, 0)
        with np.errstate(invalid="ignore"):
            dots = np.einsum("ij,ij->i", left, right)
            squares = np.einsum("ij,ij->i", left, left) * np.einsum("ij,ij->i", right, right)
            result[start : start + _BLOCK] = np.clip(dots / np.sqrt(squares), -1, 1)
    return result


def _equal_rows(embeddings: NDArray[np.floating]) -> NDArray[np.int64]:
    contiguous = np.ascontiguousarray(embeddings)
    as_bytes = contiguous.view(np.dtype((np.void, contiguous.dtype.itemsize * contiguous.shape[1]))).ravel()
    return links_to_first(as_bytes)


def _candidates(unit: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(unit), _BLOCK):
        for other in range(start, len(unit), _BLOCK):
            within = unit[start : start + _BLOCK] @ unit[other : other + _BLOCK].T >= threshold
            if other == start:
                within = np.triu(within, 1)
            left, right = np.nonzero(within)
            found.append(np.stack([left + start, right + other], axis=1))
    return np.concatenate(found)
