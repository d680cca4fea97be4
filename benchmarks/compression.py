"""Clusters of codes at the size of a corpus: time, memory, and how well planted scenes are found.

python benchmarks/compression.py [--samples 1000000] [--clusters 3000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import adjusted_rand_score

from benchmarks.common import peak_mib, publish
from dqe_assets.compression.selection import CodeClusters, cluster_codes, select_from_clusters
from dqe_assets.compression.tables import IMAGE_CODES

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


def stored_bytes(codes: np.ndarray) -> float:
    """Bytes of a row of ``image_codes`` in its file."""
    random = np.random.default_rng(3)
    uids = [random.bytes(16).hex() for _ in range(len(codes))]
    table = pa.table({"uid": uids, "codes": list(codes), "fault": [None] * len(codes)}, schema=IMAGE_CODES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "codes.parquet")
        pq.write_table(table, path, compression="zstd")
        return path.stat().st_size / len(codes)


def main() -> None:
    """Print a table, and append its row to results/compression.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=3_000)
    options = parser.parse_args()
    codes, scene = planted(options.samples, options.clusters, 0.4, 0)
    before = time.process_time(), time.perf_counter()
    fitted = CodeClusters.fitted_to(codes, CODES, options.clusters)
    fit = time.process_time() - before[0]
    labels, _ = fitted.assigned(codes)
    assign = time.process_time() - before[0] - fit
    kept = select_from_clusters(labels, 0.25, "uniform")
    choose = time.process_time() - before[0] - fit - assign
    some = np.random.default_rng(2).choice(len(labels), min(len(labels), 50_000), replace=False)
    row = {
        "samples": options.samples,
        "clusters": options.clusters,
        "bytes_a_sample": stored_bytes(codes[:100_000]),
        "fit_cpu_s": fit,
        "assign_cpu_s": assign,
        "choose_cpu_s": choose,
        "wall_s": time.perf_counter() - before[1],
        "peak_mib": peak_mib(),
        "share_kept": float(kept.mean()),
        "clusters_kept": len(np.unique(labels[kept])),
        "rand_index": float(adjusted_rand_score(scene[some], labels[some])),
    }
    for features in ("histogram", "numbers"):
        small, truth = planted(6_000, 30, 0.2, 1)
        row[f"{features}_30_scenes"] = float(adjusted_rand_score(truth, cluster_codes(small, CODES, 30, features)))
    publish("compression", list(row), [row], f"Clusters of {TOKENS} codes of {CODES}")


if __name__ == "__main__":
    main()
