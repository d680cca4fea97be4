"""How zero-shot accuracy depends on concept frequency: it grows with the logarithm of the count.

This is the analysis of Udandarao et al., "No 'Zero-Shot' Without Exponential Data" (arXiv 2404.04125), with its cost:
if accuracy grows with ln(count), every further point multiplies the samples needed by the same factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.core.statistics import regression, student_t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

BINS = 12
LEVEL = 0.95
LEAST_POINTS = 3
"""Points that a line with intervals needs at least."""


@dataclass(frozen=True, slots=True)
class Line:
    """A least-squares line of accuracy over ln(count).

    Attributes:
        slope: accuracy gained when the count grows e-fold.
        intercept: accuracy at ln(count) = 0.
        slope_low: lower end of the slope's interval.
        slope_high: its upper end.
        intercept_low: lower end of the intercept's interval.
        intercept_high: its upper end.
        r: Pearson's correlation.
        p_value: of a test that there is no correlation, two-sided.
        points: points that the line goes through.
    """

    slope: float
    intercept: float
    slope_low: float
    slope_high: float
    intercept_low: float
    intercept_high: float
    r: float
    p_value: float
    points: int


@dataclass(frozen=True, slots=True)
class LogLinearFit:
    """Accuracy over frequency, in bins as the paper shows it, and concept by concept.

    Attributes:
        edges: float64 [bins], ln(count): the upper edge of each bin; the first holds the rarest concepts alone.
        means: float64 [bins], mean accuracy in each bin; nan in an empty one.
        concepts_per_bin: int64 [bins].
        binned: the line through ``edges`` and ``means`` without the first, the last and the empty bins: its ``r`` and
            ``p_value`` are the paper's.
        unbinned: the line through all concepts.
        concepts: concepts that were fitted.
        level: confidence of the intervals.
    """

    edges: Array
    means: Array
    concepts_per_bin: NDArray[np.int64]
    binned: Line
    unbinned: Line
    concepts: int
    level: float

    @property
    def half_bin(self) -> float:
        """Half the width of a bin, in ln(count): how far the paper's edges lie above the middle of their bins."""
        return float(self.edges[1] - self.edges[0]) / 2

    @property
    def empty(self) -> tuple[int, ...]:
        """Positions of the bins that no concept falls into, which are left out."""
        return tuple(np.flatnonzero(self.concepts_per_bin == 0).tolist())

    @property
    def r(self) -> float:
        """Pearson's correlation over the bins."""
        return self.binned.r

    @property
    def p_value(self) -> float:
        """Its p-value."""
        return self.binned.p_value


def log_linear_fit(counts: ArrayLike, accuracy: ArrayLike, bins: int = BINS, level: float = LEVEL) -> LogLinearFit:
    """Fit accuracy to the logarithm of frequency, as the paper's figures do.

    A count of 0 is taken as 1. ``bins`` edges are spread evenly from the least ln(count) to the greatest, and a concept
    belongs to the first edge that its ln(count) does not exceed (right-closed bins), so that concepts of the least
    count are a bin of their own. The line goes through the mean accuracy at each edge, without the first and the last.

    Args:
        counts: samples that show each concept, [n], whole numbers or not, none below 0.
        accuracy: zero-shot accuracy on each, [n], in any unit; predictions have the same.
        bins: number of edges.
        level: confidence of the intervals, which come from Student's t.

    Raises:
        ValueError: the two differ in length, a number is not finite, a count is below 0, all counts are the same, or
            fewer than three bins between the first and the last have concepts.
    """
    x, y = _log_counts(counts), np.asarray(accuracy, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"{x.size} counts and {y.size} accuracies: give one count and one accuracy for each concept")
    if not np.isfinite(y).all():
        raise ValueError("an accuracy is not finite")
    if not x.size or x.min() == x.max():
        raise ValueError("all counts are the same, so nothing can be fitted: measure concepts of different frequency")
    edges = np.linspace(x.min(), x.max(), bins)
    # The last edge may fall short of the greatest by a rounding.
    place = np.minimum(np.searchsorted(edges, x, side="left"), bins - 1)
    filled = np.bincount(place, minlength=bins)
    means = np.full(bins, np.nan)
    np.divide(np.bincount(place, y, minlength=bins), filled, out=means, where=filled > 0)
    inner = np.flatnonzero(filled[1:-1]) + 1
    if len(inner) < LEAST_POINTS:
        raise ValueError(
            f"{len(inner)} of the {bins - 2} bins between the first and the last have concepts, a fit needs "
            f"{LEAST_POINTS}: give fewer bins or more concepts"
        )
    return LogLinearFit(
        edges, means, filled, _line(edges[inner], means[inner], level), _line(x, y, level), len(x), level
    )


def predict_accuracy(fit: LogLinearFit, counts: ArrayLike) -> Array:
    """The accuracy that the bins' line gives for counts, in their shape and in the unit of the fitted accuracies.

    The paper draws each bin's mean at the bin's upper edge. That does not change the correlation or the slope, but at
    its own count a concept would be given the accuracy of one half a bin rarer, and its bill would nearly double: the
    line is taken through the middle of the bins instead. Far from the fitted counts it leaves the range that an
    accuracy can have.

    Raises:
        ValueError: a count is below 0 or not finite.
    """
    return fit.binned.intercept + fit.binned.slope * (_log_counts(counts) + fit.half_bin)


def samples_needed(fit: LogLinearFit, counts: ArrayLike, target: float) -> Array:
    """How many more samples each concept needs before ``predict_accuracy`` gives the target: the exponential bill.

    Args:
        fit: the line.
        counts: samples that show each concept now.
        target: the accuracy wanted, in the unit of the fitted accuracies.

    Returns:
        Whole numbers as float64, in the shape of ``counts``: 0 if the target is reached, ``inf`` if no number
        reaches it, since accuracy does not grow with frequency or the number is beyond what a float holds.

    Raises:
        ValueError: a count is below 0 or not finite.
    """
    now, reached = np.asarray(counts, np.float64), predict_accuracy(fit, counts) >= target
    if fit.binned.slope <= 0:
        return np.where(reached, 0.0, np.inf)
    with np.errstate(over="ignore"):
        needed = np.exp((target - fit.binned.intercept) / fit.binned.slope - fit.half_bin)
    return np.where(reached, 0.0, np.ceil(np.maximum(needed - now, 0.0)))


def accuracy_table(fit: LogLinearFit, concepts: Sequence[str], counts: ArrayLike, target: float) -> pa.Table:
    """What the fit says of each concept.

    Returns:
        concept, count (int64), predicted_accuracy (float64) and samples_needed (float64), in the order given.
    """
    return pa.table(
        {
            "concept": pa.array(concepts, pa.string()),
            "count": pa.array(np.asarray(counts), pa.int64()),
            "predicted_accuracy": predict_accuracy(fit, counts),
            "samples_needed": samples_needed(fit, counts, target),
        }
    )


def _log_counts(counts: ArrayLike) -> Array:
    numbers = np.asarray(counts, np.float64)
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError("a count is below 0 or not finite")
    logs: Array = np.log(np.maximum(numbers, 1.0))
    return logs


def _line(x: Array, y: Array, level: float) -> Line:
    found = regression(x, y)
    reach = student_t((1 + level) / 2, len(x) - 2)
    slope, intercept = found.slope, found.intercept
    over_slope, over_intercept = reach * found.slope_error, reach * found.intercept_error
    return Line(
        slope,
        intercept,
        slope - over_slope,
        slope + over_slope,
        intercept - over_intercept,
        intercept + over_intercept,
        found.r,
        found.p_value,
        len(x),
    )
