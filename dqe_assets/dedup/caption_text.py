"""Captions that say the same in the same words, or nearly so."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.dedup.exact import Pairs, exact_pairs, links_to_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_GRAM = 4
# A pair of Jaccard similarity 0.8 shares none of the bands once in 2,800 times, one of 0.9 once in 37 million.
_BANDS = 20
_ROWS_PER_BAND = 5
_SEED = 1


def normalised_text(text: str) -> str:
    """A caption without what does not count: its words in lower case (NFKC, case-folded), one space between them.

    Words are runs of letters, marks and digits of any script. Empty if there is none.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in folded)
    return " ".join("".join(kept).split())


def text_pairs(captions: pa.Array | pa.ChunkedArray, threshold: float) -> Pairs[np.float64]:
    """Captions whose normalised texts are equal, and those whose texts are nearly so.

    Near means that the sets of four-letter runs of two normalised texts have a Jaccard similarity of at least
    ``threshold``. Candidates come from MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets,
    3.4); their similarity is then computed, so that no pair is reported that is not near.

    Args:
        captions: strings [n]; null and what has no word take no part.
        threshold: Jaccard similarity, above 0 and at most 1.

    Returns:
        Links of equal texts, pairs of near ones, and their similarity.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a Jaccard similarity above 0 and at most 1, not {threshold}")
    texts = [normalised_text(text) if text else "" for text in captions.to_pylist()]
    equal = exact_pairs(pa.array([text or None for text in texts], pa.string()))
    distinct = np.setdiff1d(np.flatnonzero([bool(text) for text in texts]), equal[:, 1], assume_unique=True)
    near, similarity = _near([texts[row] for row in distinct], threshold)
    return Pairs(equal, distinct[near], similarity)


def text_similarities(captions: pa.Array | pa.ChunkedArray, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jaccard similarity of the captions of each pair of rows, int64 [m, 2], as `text_pairs` has it: float64 [m]."""
    rows, positions = np.unique(pairs, return_inverse=True)
    grams = [_grams(normalised_text(text)) for text in captions.take(pa.array(rows)).to_pylist()]
    return np.array([_jaccard(grams[left], grams[right]) for left, right in positions.reshape(-1, 2)], np.float64)


def _near(texts: Sequence[str], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from rensa import RMinHash

    grams = [_grams(text) for text in texts]
    digests = np.array(
        RMinHash.digests_from_token_sets(map(sorted, grams), _BANDS * _ROWS_PER_BAND, _SEED), dtype=np.uint32
    ).reshape(len(texts), _BANDS, _ROWS_PER_BAND)
    bands = np.ascontiguousarray(digests).view(np.dtype((np.void, 4 * _ROWS_PER_BAND)))[..., 0]
    candidates = np.unique(
        np.concatenate([np.empty((0, 2), dtype=np.int64), *(_neighbours(bands[:, band]) for band in range(_BANDS))]),
        axis=0,
    )
    similarity = np.array([_jaccard(grams[left], grams[right]) for left, right in candidates], dtype=np.float64)
    kept = similarity >= threshold
    return candidates[kept], similarity[kept]


def _neighbours(codes: NDArray[np.void]) -> NDArray[np.int64]:
    """Links of every row to the first of its code and to the one before it.

    Most rows that share a code are near one another: two links each connect them, where all pairs of a caption that
    is repeated with a number in it would be too many.
    """
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    following = np.stack([order[:-1][same], order[1:][same]], axis=1)
    return np.concatenate([links_to_first(codes), following])


def _grams(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[start : start + _GRAM] for start in range(max(1, len(padded) - _GRAM + 1)))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
