"""The example: training curves that were not measured but made up, of four pools whose best mixture depends on compute.

They say how the law works and what the tables and pictures look like, and nothing about any data. The pools stand for
the best four tenths of a corpus of 128 million pairs by some score. The parameters are of the size that Goyal et al.
found for CLIP on DataComp, with half-lives short enough that what to keep changes within the budgets people have.
"""

from __future__ import annotations

import numpy as np

from dqe_assets.scaling.curves import EXAMPLE_FILE
from dqe_assets.scaling.law import PoolUtility, predict_error

POOL_SIZE = 12_800_000
POOLS = {
    "top 0-10%": PoolUtility(a=0.9, b=-0.190, tau=1.8, d=0.08),
    "top 10-20%": PoolUtility(a=0.9, b=-0.165, tau=2.4, d=0.08),
    "top 20-30%": PoolUtility(a=0.9, b=-0.145, tau=3.0, d=0.08),
    "top 30-40%": PoolUtility(a=0.9, b=-0.130, tau=3.4, d=0.08),
}
EPOCHS = (0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 10)
NOISE = 0.005
"""Standard deviation of the noise, relative to the error."""

SEED = 11


def example_csv() -> str:
    """The text of the file."""
    random = np.random.default_rng(SEED)
    seen = np.array(EPOCHS) * POOL_SIZE
    lines = [
        "# MADE-UP NUMBERS: no model was trained. An example of the table that scaling.measurements in data/dqe.yaml",
        "# names; written by dqe_assets/scaling/example.py from known parameters, with noise.",
        "pool,pool_size,samples_seen,metric,error",
    ]
    for name, pool in POOLS.items():
        errors = predict_error(pool, seen, POOL_SIZE) * (1 + NOISE * random.standard_normal(len(seen)))
        lines += [f"{name},{POOL_SIZE},{n:.0f},imagenet1k,{e:.5f}" for n, e in zip(seen, errors, strict=True)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    EXAMPLE_FILE.write_text(example_csv(), encoding="utf-8")
