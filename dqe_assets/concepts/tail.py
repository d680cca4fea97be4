"""The long tail of concepts: how unevenly data teaches, and whether two data sets are uneven in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.statistics import mean_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

LIMITS = (10, 100, 1000)


@dataclass(frozen=True, slots=True)
class Correlation:
    """How alike the frequencies of concepts are in two data sets.

    Attributes:
        pearson: correlation of ln(count), a count of 0 taken as 1; nan if one data set has all counts the same.
        spearman: correlation of the ranks; nan likewise.
        concepts: concepts compared.
    """

    pearson: float
    spearman: float
    concepts: int


def rank_frequency(counts: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rank-frequency curve: ranks from 1, and the counts from the greatest to the least; both int64 [concepts]."""
    frequencies = np.sort(np.asarray(counts, np.int64))[::-1]
    return np.arange(1, len(frequencies) + 1), frequencies


def gini(counts: ArrayLike) -> float:
    """The Gini coefficient of counts: 0 if all concepts are equally frequent, near 1 if few have nearly everything.

    nan if there are no concepts or nothing shows any.
    """
    ordered = np.sort(np.asarray(counts, np.float64))
    total = ordered.sum()
    if not total:
        return float("nan")
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def share_under(counts: ArrayLike, limits: Sequence[int] = LIMITS) -> dict[int, float]:
    """The share of concepts that fewer samples show than each limit; nan if there are no concepts."""
    numbers = np.asarray(counts)
    return {limit: float((numbers < limit).mean()) if numbers.size else float("nan") for limit in limits}


def rarest(concepts: Sequence[str], counts: ArrayLike, k: int) -> list[tuple[str, int]]:
    """The k concepts of the lowest counts, rarest first, then by name; the paper's Let It Wag takes 290."""
    return sorted(zip(concepts, np.asarray(counts).tolist(), strict=True), key=lambda pair: (pair[1], pair[0]))[:k]


def correlate(first: ArrayLike, second: ArrayLike) -> Correlation:
    """How alike two data sets' counts of the same concepts are.

    Raises:
        ValueError: the two differ in length.
    """
    logs = [np.log(np.maximum(np.asarray(counts, np.float64), 1)) for counts in (first, second)]
    if len(logs[0]) != len(logs[1]):
        raise ValueError(f"{len(logs[0])} counts and {len(logs[1])}: they must be of the same concepts")
    if any(len(values) < 2 or values.min() == values.max() for values in logs):
        return Correlation(float("nan"), float("nan"), len(logs[0]))
    ranks = [mean_ranks(np.asarray(counts)) for counts in (first, second)]
    pearson, spearman = (float(np.corrcoef(*pair)[0, 1]) for pair in (logs, ranks))
    return Correlation(pearson, spearman, len(logs[0]))
