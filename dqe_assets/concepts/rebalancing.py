"""What to do about the tail: draw rare concepts more often, show them last, and find more samples of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from dqe_assets.concepts.lists import flat
from dqe_assets.core.statistics import mean_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from dqe_assets.concepts.lists import Lists

    Array = NDArray[np.float64]
    Search = Callable[[str, str, int], Iterable[tuple[str, float]]]


class Difficulty(NamedTuple):
    """The weight of each reason that makes a sample hard."""

    rarity: float = 1.0
    misalignment: float = 1.0
    length: float = 1.0


@dataclass(frozen=True, slots=True)
class Curriculum:
    """An order of samples from easy to hard.

    Attributes:
        difficulty: float64 [n], 0 to 1.
        rank: int64 [n], from 1 for the easiest; of samples that are equally hard the first given comes first.
    """

    difficulty: Array
    rank: NDArray[np.int64]


def rebalanced_weights(hits: Lists, counts: ArrayLike, temperature: float, cap: float) -> Array:
    """How often to draw each sample, on average over passes, so that rare concepts are seen more often.

    A sample is drawn in proportion to ``count ** -temperature`` of its rarest concept: the repeat factor of Gupta,
    Dollár and Girshick (LVIS, arXiv 1908.03195), there with a temperature of 1/2. At 0 every sample is drawn once; at 1
    concepts that share no samples are drawn equally often, as far as ``cap`` allows. Draws are moved between samples,
    never added; one without a concept is drawn once, since the concept list says nothing of it.

    Args:
        hits: list<int32>, concepts that each sample shows.
        counts: samples that show each concept, [C].
        temperature: 0 to 1.
        cap: most draws of a sample, 1 or more; may be ``inf``.

    Returns:
        float64 [n], with a sum of n and no value above ``cap``.

    Raises:
        ValueError: the temperature or the cap is out of range.
    """
    if not 0 <= temperature <= 1:
        raise ValueError(f"the temperature is {temperature}, it must be from 0 to 1")
    if not cap >= 1:
        raise ValueError(f"the cap is {cap}, it must be 1 or more, since each sample is drawn once on average")
    rarity = _rarest(hits, counts)
    weights = np.ones(len(rarity))
    known = np.isfinite(rarity)
    if known.any():
        # Relative to the most frequent, for a power of a large count alone could vanish.
        weights[known] = _capped((rarity[known] / rarity[known].max()) ** -temperature, cap)
    return weights


def concept_distribution(hits: Lists, weights: ArrayLike, concepts: int) -> Array:
    """How many draws show each concept, if each sample is drawn ``weights`` times: float64 [concepts]."""
    rows, values = flat(hits)
    drawn = np.bincount(values, np.asarray(weights, np.float64)[rows], minlength=concepts)
    return drawn.astype(np.float64, copy=False)


def curriculum(
    hits: Lists,
    counts: ArrayLike,
    alignment: ArrayLike,
    caption_words: ArrayLike,
    weights: Sequence[float] = Difficulty(),
) -> Curriculum:
    """An order from easy to hard: frequent concepts, captions that fit their image, and short captions come first.

    The difficulty is the weighted mean of three percentile ranks among the samples: of the count of the rarest concept,
    of the alignment (both from high to low), and of the caption's length. What is not known of a sample (no concept,
    no caption, no image) is taken as the middle, 0.5.

    Args:
        hits: list<int32>, concepts that each sample shows, [n].
        counts: samples that show each concept, [C].
        alignment: how well each caption fits its image, [n], nan if not known; only its order matters.
        caption_words: words of each caption, [n], nan if there is none.
        weights: of rarity, misalignment and length, none below 0.

    Raises:
        ValueError: the arguments differ in length, or the weights are not three numbers of 0 or more with one above.
    """
    wanted = np.asarray(weights, np.float64)
    if wanted.shape != (3,) or not (wanted >= 0).all() or not 0 < wanted.sum() < np.inf:
        raise ValueError(f"the weights are {tuple(weights)}: give three numbers, none below 0 and one above")
    reasons = [-_rarest(hits, counts), -np.asarray(alignment, np.float64), np.asarray(caption_words, np.float64)]
    if len({reason.shape for reason in reasons}) > 1:
        raise ValueError(f"there are {', '.join(str(len(reason)) for reason in reasons)} hits, alignments and lengths")
    difficulty = np.stack([_percentile(reason) for reason in reasons], axis=1) @ (wanted / wanted.sum())
    rank = np.empty(len(difficulty), np.int64)
    rank[np.argsort(difficulty, kind="stable")] = np.arange(1, len(difficulty) + 1)
    return Curriculum(difficulty, rank)


def rare_concept_retrieval(
    concepts: Iterable[str], items: Sequence[str], search: Search, k: int, dropped: Container[str] = ()
) -> pa.Table:
    """For each rare concept the nearest samples of a pool: candidates to add to the data.

    Args:
        concepts: the rare concepts, for instance those of ``tail.rarest``.
        items: what to search among, for instance ``image`` and the caption sources.
        search: ``search(concept, item, k)`` yields up to k uids and scores, best first.
        k: candidates for each concept and item.
        dropped: uids that are no candidates.

    Returns:
        concept, item, place (int32, from 1), uid and score (float32), in the order of concepts, items and places.
    """
    rows = [
        (concept, item, place, uid, score)
        for concept in concepts
        for item in items
        for place, (uid, score) in enumerate(_found(search, concept, item, k, dropped), 1)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(_CANDIDATES)
    return pa.table(dict(zip(_CANDIDATES.names, columns, strict=True)), schema=_CANDIDATES)


def _found(search: Search, concept: str, item: str, k: int, dropped: Container[str]) -> list[tuple[str, float]]:
    wanted = k
    while True:
        hits = list(search(concept, item, wanted))
        kept = [hit for hit in hits if hit[0] not in dropped][:k]
        if len(kept) == k or len(hits) < wanted:
            return kept
        wanted *= 2


_ROUNDING = 1e-9

_CANDIDATES = pa.schema(
    [
        ("concept", pa.string()),
        ("item", pa.string()),
        ("place", pa.int32()),
        ("uid", pa.string()),
        ("score", pa.float32()),
    ]
)


def _rarest(hits: Lists, counts: ArrayLike) -> Array:
    """The count of each sample's rarest concept, 1 at least; nan for a sample without one."""
    rows, values = flat(hits)
    rarest = np.full(len(hits), np.inf)
    np.minimum.at(rarest, rows, np.maximum(np.asarray(counts, np.float64), 1)[values])
    return np.where(np.isinf(rarest), np.nan, rarest)


def _capped(weights: Array, cap: float) -> Array:
    """The weights scaled to a mean of 1, with what exceeds the cap given to the others in proportion."""
    ascending = np.sort(weights)
    n = len(ascending)
    if np.isinf(cap):
        return weights * (n / ascending.sum())
    # Were the j largest at the cap, the others would be scaled by this: the first j that keeps them below it is right.
    scales = ((n - cap * np.arange(n)[::-1]) / np.cumsum(ascending))[::-1]
    scale = scales[np.argmax(scales * ascending[::-1] <= cap * (1 + _ROUNDING))]
    return np.minimum(weights * scale, cap)


def _percentile(values: Array) -> Array:
    known = np.isfinite(values)
    ranks = np.full(len(values), 0.5)
    ranks[known] = (mean_ranks(values[known]) - 0.5) / max(known.sum(), 1)
    return ranks
