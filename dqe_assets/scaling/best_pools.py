"""Which pools to train on for a given compute, by the law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.scaling.law import UNIT, positive, predict_mixture_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from dqe_assets.scaling.law import Array, PoolUtility

_CROSSING_GRID = 512


@dataclass(frozen=True, slots=True)
class Crossing:
    """The compute from which another number of pools is best.

    Attributes:
        samples_seen: the compute.
        before: number of pools to keep below it.
        after: number of pools to keep above it.
    """

    samples_seen: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class BestPools:
    """How many of the best pools to train on, at each compute.

    Attributes:
        order: positions of the pools as given, from the highest utility to the lowest, [p].
        keep: how many of ``order`` to keep at each compute, [m].
        error: predicted error of keeping 1, 2 ... p pools, [p, m].
        crossings: where the number to keep changes, between the least and the most compute.
    """

    order: NDArray[np.int64]
    keep: NDArray[np.int64]
    error: Array
    crossings: tuple[Crossing, ...]


def best_pools(
    pools: Sequence[PoolUtility], samples_seen: ArrayLike, pool_size: ArrayLike, unit: float = UNIT
) -> BestPools:
    """How many of the pools to train on at each compute, the best first: "keep the best 2 of 5".

    Pools are ordered by their utility ``b``, as the paper orders them by the quality that ``b`` measures.

    Args:
        pools: the pools' parameters, ``a`` and ``d`` the same for all.
        samples_seen: the compute: samples seen in training, [m], each > 0.
        pool_size: samples in each pool: one number, or one for each.
        unit: samples are counted in this many.

    Raises:
        ValueError: as ``predict_mixture_error``.
    """
    seen = np.atleast_1d(positive("samples_seen", samples_seen)).ravel()
    sizes = positive("pool_size", np.broadcast_to(np.asarray(pool_size, dtype=np.float64), len(pools)))
    order = np.argsort([pool.b for pool in pools], kind="stable")

    def errors(at: Array) -> Array:
        kept = [order[: count + 1] for count in range(len(order))]
        return np.stack([predict_mixture_error([pools[i] for i in few], at, sizes[few], unit) for few in kept])

    table = errors(seen)
    return BestPools(order, np.argmin(table, axis=0) + 1, table, _crossings(errors, seen.min(), seen.max()))


def _crossings(errors: Callable[[Array], Array], low: float, high: float) -> tuple[Crossing, ...]:
    from scipy.optimize import brentq

    if not low < high:
        return ()
    grid = np.geomspace(low, high, _CROSSING_GRID)
    best = np.argmin(errors(grid), axis=0)
    found = []
    for place in np.flatnonzero(np.diff(best)):
        before, after = int(best[place]), int(best[place + 1])

        def difference(log_seen: float, before: int = before, after: int = after) -> float:
            table = errors(np.array([np.exp(log_seen)]))
            return float(table[before, 0] - table[after, 0])

        left, right = np.log(grid[place]), np.log(grid[place + 1])
        root = brentq(difference, left, right) if difference(left) * difference(right) < 0 else right
        found.append(Crossing(float(np.exp(root)), before + 1, after + 1))
    return tuple(found)
