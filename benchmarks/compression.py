"""Clusters of codes at the size of a corpus: time, memory, and how well planted scenes are found.

python benchmarks/compression.py [--samples 1000000] [--clusters 3000]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from sklearn.metrics import adjusted_rand_score

from dqe_assets.compression.selection import CodeClusters, cluster_codes, select_from_clusters

TOKENS, CODES = 49, 1024


def planted(samples: int, scenes: int, own: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of made images, of which a share of the tokens is of the scene's own 40 codes; and the scenes."""
    random = np.random.default_rng(seed)
    scene = random.integers(scenes, size=samples)
    codes_of_scene = random.integers(CODES, size=(scenes, 40), dtype=np.uint16)
    codes = random.integers(CODES, size=(samples, TOKENS), dtype=np.uint16)
    for start in range(0, samples, 100_000):
        block = slice(start, start + 100_000)
        is_own = random.random(codes[block].shape) < own
        drawn = codes_of_scene[scene[block][:, None], random.integers(40, size=codes[block].shape)]
        codes[block] = np.where(is_own, drawn, codes[block])
    return codes, scene


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=3_000)
    options = parser.parse_args()
    codes, scene = planted(options.samples, options.clusters, 0.4, 0)
    print(f"{options.samples:,} samples of {TOKENS} codes, {codes.nbytes / options.samples:.0f} bytes each")
    for features in ("histogram", "numbers"):
        small, truth = planted(6_000, 30, 0.2, 1)
        score = adjusted_rand_score(truth, cluster_codes(small, CODES, 30, features))
        print(f"{features:>10}: adjusted Rand index {score:.2f} with 30 planted scenes")
    before = time.process_time()
    fitted = CodeClusters.fitted_to(codes, CODES, options.clusters)
    fit = time.process_time() - before
    labels, _ = fitted.assigned(codes)
    assign = time.process_time() - before - fit
    kept = select_from_clusters(labels, 0.25, "uniform")
    choose = time.process_time() - before - fit - assign
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"fit {fit:.0f} s, assign {assign:.0f} s, choose {choose:.1f} s of CPU; peak {peak:,.0f} MiB")
    print(f"kept {kept.mean():.4f} of the samples, from {len(np.unique(labels[kept])):,} clusters")
    some = np.random.default_rng(2).choice(len(labels), min(len(labels), 50_000), replace=False)
    score = adjusted_rand_score(scene[some], labels[some])
    print(f"adjusted Rand index with the {options.clusters:,} planted scenes: {score:.2f}")


if __name__ == "__main__":
    main()
