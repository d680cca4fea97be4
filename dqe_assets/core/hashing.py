"""Hashes of numbers, for draws that do not depend on the order of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection in which each bit turns on all others.

    Args:
        values: uint64, of any shape.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draw_keys(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number for each uid by which it is drawn, uint64 [n].

    Args:
        high: the uids' first 64 bits [n].
        low: their last 64 bits [n].
    """
    return mixed(low ^ mixed(high))


def unit_interval(hashed: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Hashes as numbers from 0 to below 1: float64, of the same shape."""
    # 53 bits, as a double has.
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53
