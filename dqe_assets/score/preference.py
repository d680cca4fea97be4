"""Which of two captions fits better, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

THRESHOLDS = (0.7, 0.8, 0.9)


def preference_counts(
    probability_a: ArrayLike, probability_b: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> list[tuple[float, int, int]]:
    """How often each of two captions is preferred with a probability strictly above each threshold.

    Args:
        probability_a: [n], probability that the image goes with caption a; NaN where there is none.
        probability_b: [n], the same for caption b.
        thresholds: probabilities.

    Returns:
        For each threshold: it, the count of a, the count of b.
    """
    a, b = np.asarray(probability_a, np.float64), np.asarray(probability_b, np.float64)
    return [(threshold, int((a > threshold).sum()), int((b > threshold).sum())) for threshold in thresholds]
