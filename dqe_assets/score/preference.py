"""Which of two captions fits better, counted, and how sure the counts are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dqe_assets.core.schema import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

THRESHOLDS = (0.7, 0.8, 0.9)
RESAMPLES = 2000


class PreferenceCount(NamedTuple):
    """How many captions of each side are preferred with a probability strictly above a threshold."""

    threshold: float
    above_a: int
    above_b: int


@dataclass(frozen=True, slots=True)
class PreferenceComparison:
    """How two caption sources compare at a threshold; low and high are the ends of a 95 % interval.

    Attributes:
        source_a: one caption source.
        source_b: the other.
        against: the caption source that each of them was put against; None if they were put against each other.
        threshold: probability.
        n: samples that were compared.
        above_a: those where the caption of a is preferred with a probability strictly above the threshold.
        above_b: those where that of b is.
        share_a: above_a / n; NaN if n is 0.
        share_a_low: its lower end.
        share_a_high: its higher end.
        share_b: above_b / n.
        share_b_low: its lower end.
        share_b_high: its higher end.
        ratio: above_b / above_a, how many times as often b is preferred; NaN if neither is.
        ratio_low: its lower end.
        ratio_high: its higher end.
    """

    source_a: str
    source_b: str
    against: str | None
    threshold: float
    n: int
    above_a: int
    above_b: int
    share_a: float
    share_a_low: float
    share_a_high: float
    share_b: float
    share_b_low: float
    share_b_high: float
    ratio: float
    ratio_low: float
    ratio_high: float


def preference_counts(
    probability_a: ArrayLike, probability_b: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> list[PreferenceCount]:
    """How often each of two captions is preferred with a probability strictly above each threshold.

    Args:
        probability_a: [n], probability that the image goes with caption a; NaN if there is none. A threshold is
            rounded to the type of float that these are.
        probability_b: [n], the same for caption b.
        thresholds: probabilities.
    """
    a, b = _floats(probability_a), _floats(probability_b)
    return [PreferenceCount(value, int((a > value).sum()), int((b > value).sum())) for value in thresholds]


def preference_report(
    probabilities: Mapping[tuple[str, str], tuple[ArrayLike, ArrayLike]],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    sample: int | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[PreferenceComparison]:
    """How caption sources compare: each pair directly, and captioners by how each compares with the originals.

    Captioners are compared over the samples where both were put against the original caption: "how many times as
    often does InternVL2 beat the original as CogVLM2 does". Intervals are percentiles of a bootstrap over the samples
    (Efron 1979), which of two captioners resamples both at once, since they were given the same images.

    Args:
        probabilities: for each pair of caption sources, the probabilities of a's and of b's caption, [n] each, of the
            same n samples in the same order for all pairs; NaN if there is none. All by one scorer.
        thresholds: probabilities, ascending.
        sample: compare only so many samples, drawn without replacement; all by default, or if there are fewer.
        seed: of that draw and of the bootstrap: the same seed gives the same figures.
        resamples: of the bootstrap.

    Raises:
        ValueError: the arrays differ in length, or the thresholds do not ascend.
    """
    floats = {pair: (_floats(a), _floats(b)) for pair, (a, b) in probabilities.items()}
    lengths = {len(side) for sides in floats.values() for side in sides}
    if len(lengths) > 1:
        msg = f"the probabilities of all pairs must be of the same samples, found {sorted(lengths)} of them"
        raise ValueError(msg)
    if list(thresholds) != sorted(set(thresholds)):
        msg = f"thresholds must ascend, found {list(thresholds)}"
        raise ValueError(msg)
    total = max(lengths, default=0)
    if sample is not None and sample < total:
        drawn = np.random.default_rng(seed).choice(total, sample, replace=False)
        floats = {pair: (a[drawn], b[drawn]) for pair, (a, b) in floats.items()}
    levels = {pair: (_levels(a, thresholds), _levels(b, thresholds)) for pair, (a, b) in floats.items()}
    report = []
    for (a, b), sides in levels.items():
        report += compare_levels(a, b, None, level_table(*sides, len(thresholds)), thresholds, resamples, seed)
    beside = {
        pair[place]: sides[place] for pair, sides in levels.items() for place in (0, 1) if pair[1 - place] == ORIGINAL
    }
    for a, b in combinations(beside, 2):
        table = level_table(beside[a], beside[b], len(thresholds))
        report += compare_levels(a, b, ORIGINAL, table, thresholds, resamples, seed)
    return report


def compare_levels(  # noqa: PLR0917
    source_a: str,
    source_b: str,
    against: str | None,
    table: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[PreferenceComparison]:
    """A comparison for each threshold, from how many samples lie above how many thresholds.

    Samples of one cell are alike, so that resampling the cells by a multinomial is the bootstrap over the samples, at
    a cost that does not grow with them.

    Args:
        source_a: one caption source.
        source_b: the other.
        against: what each was put against; None for each other.
        table: int64 [t + 1, t + 1], samples whose probability of a is above so many thresholds, and of b so many.
        thresholds: t probabilities, ascending.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    n = int(table.sum())
    resample = np.random.default_rng(seed).multinomial
    drawn = resample(n, table.ravel() / max(n, 1), resamples).reshape(-1, *table.shape)
    found = []
    for place, threshold in enumerate(thresholds, 1):
        above_a, above_b = int(table[place:].sum()), int(table[:, place:].sum())
        drawn_a, drawn_b = drawn[:, place:].sum(axis=(1, 2)), drawn[:, :, place:].sum(axis=(1, 2))
        found.append(
            PreferenceComparison(
                *(source_a, source_b, against, threshold, n, above_a, above_b),
                *_estimate(above_a, n, drawn_a, n),
                *_estimate(above_b, n, drawn_b, n),
                *_estimate(above_b, above_a, drawn_b, drawn_a),
            )
        )
    return found


def level_table(levels_a: np.ndarray, levels_b: np.ndarray, thresholds: int) -> np.ndarray:
    """Counts of samples by how many thresholds each probability is above: int64 [t + 1, t + 1]; -1 is not counted."""
    both = (levels_a >= 0) & (levels_b >= 0)
    cells = levels_a[both] * (thresholds + 1) + levels_b[both]
    return np.bincount(cells, minlength=(thresholds + 1) ** 2).reshape(thresholds + 1, -1)


def _levels(probability: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """How many thresholds each probability is above: int64 [n], -1 if there is none."""
    above = np.zeros(len(probability), np.int64)
    for threshold in thresholds:
        above += probability > threshold
    return np.where(np.isnan(probability), -1, above)


def _floats(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _estimate(part: int, whole: int, parts: np.ndarray, wholes: ArrayLike) -> tuple[float, float, float]:
    """A share, with the 2.5 and 97.5 percentiles of the drawn ones, taken from them as some may be infinite."""
    drawn = _ratio(parts, wholes)
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975), method="inverted_cdf") if drawn.size else (np.nan, np.nan)
    return float(_ratio(part, whole)), float(low), float(high)


def _ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))
