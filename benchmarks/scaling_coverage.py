"""How often the interval of a fit holds the true value.

    python -m benchmarks.scaling_coverage [trials]

Curves of known parameters, with noise of 1 % of the error, are fitted again and again.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.common import publish
from dqe_assets.scaling.fitting import fit_pools
from dqe_assets.scaling.law import PARAMETERS, PoolUtility, predict_error

NOISE = 0.01
SIZE = 12_800_000
CHECKPOINTS = np.array([0.125, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) * SIZE
POOL = PoolUtility(a=0.9, b=-0.18, tau=3.0, d=0.1)
POOLS = [PoolUtility(0.9, b, tau, 0.1) for b, tau in ((-0.20, 2.5), (-0.17, 3.5), (-0.145, 4.5), (-0.125, 3.0))]
DESIGNS: dict[str, tuple[list[PoolUtility], float | None]] = {
    "one pool, d given (as the paper fits)": ([POOL], POOL.d),
    "four pools, a and d in common": (POOLS, None),
    "one pool, everything free": ([POOL], None),
}


def coverage(pools: list[PoolUtility], d: float | None, trials: int) -> dict[str, list[float]]:
    """The share of trials in which each pool's interval holds the true value, for each parameter."""
    random = np.random.default_rng(0)
    hits = np.zeros((len(pools), len(PARAMETERS)))
    for trial in range(trials):
        errors = [
            predict_error(pool, CHECKPOINTS, SIZE) * (1 + NOISE * random.standard_normal(len(CHECKPOINTS)))
            for pool in pools
        ]
        fit = fit_pools([CHECKPOINTS] * len(pools), errors, SIZE, d=d, seed=trial)
        for row, (pool, found) in enumerate(zip(pools, fit.pools, strict=True)):
            for column, name in enumerate(PARAMETERS):
                low, high = found.intervals[name]
                hits[row, column] += low - 1e-12 <= getattr(pool, name) <= high + 1e-12
    return {name: (hits[:, column] / trials).tolist() for column, name in enumerate(PARAMETERS)}


def main() -> None:
    """Measure each design, the lowest share of all its pools for each parameter."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rows = []
    for name, (pools, d) in DESIGNS.items():
        started = time.perf_counter()
        found = coverage(pools, d, trials)
        shares = {key: min(values) for key, values in found.items() if key != "d" or d is None}
        rows.append({"design": name, "trials": trials, **shares, "seconds": time.perf_counter() - started})
    title = f"95 % intervals that hold the true value: {NOISE:.0%} noise, {len(CHECKPOINTS)} points a pool"
    publish("scaling_coverage", ["design", "trials", *PARAMETERS, "seconds"], rows, title)


if __name__ == "__main__":
    main()
