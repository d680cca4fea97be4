"""What SciPy's statistics would give, to the last bit: those take half a second to load, and these a tenth of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TINY = 1e-20


class Regression(NamedTuple):
    """A least-squares line: its slope and intercept, with their standard errors, and how far the points lie on it.

    ``r`` is Pearson's correlation, and ``p_value`` that of a two-sided test that there is none.
    """

    slope: float
    intercept: float
    r: float
    p_value: float
    slope_error: float
    intercept_error: float


def mean_ranks(values: NDArray[np.number]) -> NDArray[np.float64]:
    """The rank of each number, from 1 for the least; equal ones share the mean of theirs: float64 [n].

    Args:
        values: [n], none NaN.
    """
    order = np.argsort(values)
    in_order = values[order]
    begins = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1])[: len(order)])
    ends = np.append(begins[1:], len(order))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat((begins + 1 + ends) / 2, ends - begins)
    return ranks


def student_t(probability: float, freedom: int) -> float:
    """The value that Student's t, of so many degrees of freedom, is below with this probability."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def regression(x: NDArray[np.float64], y: NDArray[np.float64]) -> Regression:
    """The least-squares line of y over x, [n] each, n at least 3.

    Raises:
        ValueError: all of x are equal.
    """
    from scipy.special import stdtr

    xx, xy, _, yy = np.cov(x, y, bias=True).flat
    if not xx:
        raise ValueError("all points have the same x")
    r = np.clip(xy / np.sqrt(xx * yy), -1, 1) if yy else np.float64(np.nan if not xy else 0)
    slope, freedom = xy / xx, len(x) - 2
    t = r * np.sqrt(freedom / ((1 - r + _TINY) * (1 + r + _TINY)))
    slope_error = np.sqrt((1 - r**2) * yy / xx / freedom)
    return Regression(
        float(slope),
        float(np.mean(y) - slope * np.mean(x)),
        float(r),
        float(2 * stdtr(freedom, -np.abs(t))),
        float(slope_error),
        float(slope_error * np.sqrt(xx + np.mean(x) ** 2)),
    )
