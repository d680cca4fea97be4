"""Seconds and residual of fit_pool against grid searches of 100,000 points over the same objective, in one run.

    python -m benchmarks.scaling_fit

The first grid search is what the paper's authors publish: a loop over the points of the grid. The second computes the
same grid as arrays, as fast as we know how.
"""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import publish
from dqe_assets.scaling.fitting import fit_pool
from dqe_assets.scaling.law import PoolUtility, mixture_errors, predict_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_assets.scaling.law import Array

SIZE = 12_800_000
SEEN = np.array([0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 10]) * SIZE
TRUTH = PoolUtility(a=0.9, b=-0.18, tau=3.0, d=0.1)
GRID = {
    "a": np.linspace(0.5, 1.5, 20),
    "b": np.linspace(-0.4, -0.02, 25),
    "tau": np.geomspace(0.5, 20.0, 20),
    "d": np.linspace(0.0, 0.3, 10),
}


def loop(error: Array) -> float:
    """The least sum of squares over the grid, a point at a time."""
    sizes = np.array([float(SIZE)])
    return min(
        float(np.sum((mixture_errors(np.array([[point]]), SEEN, sizes)[0] - error) ** 2))
        for point in product(*GRID.values())
    )


def arrays(error: Array) -> float:
    """The same, a thousand points at a time."""
    points = np.stack(np.meshgrid(*GRID.values(), indexing="ij"), axis=-1).reshape(-1, 1, 4)
    sizes = np.array([float(SIZE)])
    return min(
        float(((mixture_errors(few, SEEN, sizes) - error) ** 2).sum(axis=1).min())
        for few in np.array_split(points, len(points) // 1000)
    )


def fitted(error: Array) -> float:
    """The sum of squares of the fit, without its intervals."""
    return fit_pool(SEEN, error, SIZE, resamples=0).residual ** 2 * len(error)


def with_intervals(error: Array) -> float:
    """The same with 1,000 resampled fits."""
    return fit_pool(SEEN, error, SIZE).residual ** 2 * len(error)


def timed(run: Callable[[Array], float], error: Array, times: int) -> tuple[float, float]:
    """Median seconds, and the result."""
    seconds, result = [], np.nan
    for _ in range(times):
        started = time.perf_counter()
        result = run(error)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)), result


def main() -> None:
    """Measure a curve without and one with noise."""
    points = int(np.prod([len(values) for values in GRID.values()]))
    rows = []
    for noise in (0.0, 0.01):
        error = predict_error(TRUTH, SEEN, SIZE)
        error = error * (1 + noise * np.random.default_rng(0).standard_normal(len(error)))
        fitted(error)
        results = {
            "fit_pool": timed(fitted, error, 15),
            "fit_pool with 1,000 resampled fits": timed(with_intervals, error, 3),
            f"grid of {points:,}, a loop": timed(loop, error, 1),
            f"grid of {points:,}, as arrays": timed(arrays, error, 3),
        }
        for name, (seconds, squares) in results.items():
            ratio = seconds / results["fit_pool"][0]
            rows.append(
                {
                    "noise": f"{noise:.0%}",
                    "method": name,
                    "seconds": seconds,
                    "times": ratio,
                    "squares": f"{squares:.3e}",
                }
            )
    publish("scaling_fit", ["noise", "method", "seconds", "times", "squares"], rows, "Fitting one pool")


if __name__ == "__main__":
    main()
