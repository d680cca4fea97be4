"""Semantic duplicates among planted ones: seconds, memory and recall, next to exact search and semhash, in one run.

    python -m benchmarks.dedup                                      # 100,000 x 384, three minutes
    python -m benchmarks.dedup --rows 100000 --rows 1000000         # and how time grows, ten minutes

Each method runs in a process of its own, over the same file of float16 vectors: topics, noise around them, and copies
of a tenth of the rows with cosines of 0.8 to 1. Exact search is faiss's flat index, over all rows up to 100,000; of
more rows a sample is searched, whose pairs are the truth and whose time is extrapolated. semhash runs where it is
installed (pip install semhash), up to 100,000 rows. One row in a hundred is then taken as new, and compared with the
others and with one another, as when a shard is added.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.common import publish

if TYPE_CHECKING:
    from collections.abc import Callable

DIMENSION = 384
THRESHOLD = 0.85
ALL_ROWS = 100_000
SAMPLED = 2_000
CHUNK = 50_000


def generate(path: Path, rows: int) -> None:
    """Topics of unlike sizes, rows around them at unlike distances, and noisy copies of a tenth of them."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(300, DIMENSION)).astype(np.float32)
    vectors = np.lib.format.open_memmap(path, "w+", np.float16, (rows, DIMENSION))
    originals = rows - rows // 10
    for start in range(0, originals, CHUNK):
        count = min(CHUNK, originals - start)
        nearness = rng.uniform(0.3, 1.2, (count, 1)).astype(np.float32)
        part = topics[rng.zipf(1.3, count) % 300] * nearness + rng.normal(size=(count, DIMENSION))
        vectors[start : start + count] = part / np.linalg.norm(part, axis=1, keepdims=True)
    for start in range(originals, rows, CHUNK):
        count = min(CHUNK, rows - start)
        noise = rng.normal(size=(count, DIMENSION))
        noise *= np.tan(np.arccos(rng.uniform(0.8, 1, count)))[:, None] / np.linalg.norm(noise, axis=1, keepdims=True)
        vectors[start : start + count] = vectors[np.sort(rng.integers(0, originals, count))] + noise


def ours(path: Path, _: int) -> dict[str, Any]:
    """What the platform does."""
    from dqe_assets.dedup.semantic import cluster_duplicates

    found = cluster_duplicates(np.load(path, mmap_mode="r"), THRESHOLD)
    return {"pairs": found.pairs, "removed": found.dropped, "how": str(found.search)}


def added(path: Path, rows: int) -> dict[str, Any]:
    """What the platform does when one row in a hundred is new."""
    from dqe_assets.dedup.semantic import semantic_pairs

    known = ~is_new(rows)
    found, search = semantic_pairs(np.load(path, mmap_mode="r"), THRESHOLD, known=known)
    return {"pairs": found.all, "how": str(search)}


def is_new(rows: int) -> np.ndarray:
    """Which rows are taken as new: bool [n]."""
    return np.random.default_rng(1).permutation(rows) < rows // 100


def exact(path: Path, rows: int) -> dict[str, Any]:
    """Every row, or every sampled row, against all rows."""
    import faiss

    vectors = np.load(path).astype(np.float32)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(vectors)
    sample = np.arange(rows) if rows <= ALL_ROWS else np.linspace(0, rows - 1, SAMPLED).astype(np.int64)
    limits, _, neighbours = index.range_search(vectors[sample], THRESHOLD)
    pairs = np.stack([np.repeat(sample, np.diff(limits.astype(np.int64))), neighbours], axis=1)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    return {"pairs": pairs, "share_searched": len(sample) / rows}


def semhash(path: Path, rows: int) -> dict[str, Any]:
    """semhash, with its own index and defaults."""
    from semhash import SemHash

    vectors = np.load(path).astype(np.float32)
    texts = [str(row) for row in range(rows)]
    result = SemHash.from_embeddings(vectors, texts, model=None).self_deduplicate(THRESHOLD)
    return {"removed": np.array(sorted(int(one.record) for one in result.filtered))}


def measured(method: Callable[[Path, int], dict[str, Any]], path: Path, rows: int) -> dict[str, Any]:
    """What a method gives, its seconds, and the most memory its process took, in MiB."""
    started = time.monotonic()
    result = method(path, rows)
    seconds = time.monotonic() - started
    return {**result, "seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(rows: Annotated[list[int] | None, typer.Option(help="How many vectors; may be repeated.")] = None) -> None:
    """Measure and publish."""
    seconds = {}
    for count in rows or [ALL_ROWS]:
        with TemporaryDirectory() as folder:
            path = Path(folder, "vectors.npy")
            generate(path, count)
            seconds[count] = compare(path, count)
    if len(seconds) > 1:
        fewest, most = min(seconds), max(seconds)
        exponent = np.log(seconds[most] / seconds[fewest]) / np.log(most / fewest)
        row = {"method": "ours", "from_rows": fewest, "to_rows": most, "exponent": float(exponent)}
        publish("dedup_growth", list(row), [row], "Time grows with the number of rows to the power of")


def compare(path: Path, rows: int) -> float:
    """Run every method on one file, and publish the figures; returns the seconds that ours took."""
    from dqe_assets.dedup.components import components

    methods = [exact, ours, added] + ([semhash] if rows <= ALL_ROWS and find_spec("semhash") else [])
    results = {}
    for method in methods:
        print(f"{method.__name__} over {rows:,} x {DIMENSION} ...", file=sys.stderr)
        # A process of its own, started afresh: its peak memory is its own too.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results[method.__name__] = pool.submit(measured, method, path, rows).result()
    truth, searched = results["exact"].pop("pairs"), results["exact"].pop("share_searched")
    results["exact"]["seconds"] /= searched
    figures = [{"method": "faiss, flat", **results["exact"], "pair_recall": 1.0, "pair_precision": 1.0}]
    wanted = keys(truth, rows)
    if searched == 1:
        labels = components(truth, rows)
        first = np.unique(labels, return_index=True)[1]
        removed = np.setdiff1d(np.arange(rows), first)
        figures[0]["removed"] = len(removed)
    for name, result in results.items():
        if name == "exact":
            continue
        row = {"method": name, **{key: result[key] for key in ("seconds", "peak_mib")}, "how": result.get("how")}
        if "pairs" in result:
            found = keys(result["pairs"], rows)
            if searched == 1:
                row["pair_precision"] = float(np.isin(found, wanted).mean())
            due = wanted[is_new(rows)[truth].any(axis=1)] if name == "added" else wanted
            row["pair_recall"] = float(np.isin(due, found).mean())
        if "removed" in result:
            row["removed"] = len(result["removed"])
        row["times_faster"] = results["exact"]["seconds"] / result["seconds"]
        figures.append(row)
    for row in figures:
        row |= {"rows": rows, "true_pairs": len(truth), "share_searched": searched}
    columns = ["method", "seconds", "times_faster", "peak_mib", "pair_recall", "pair_precision", "removed", "how"]
    publish("dedup", columns, figures, f"{rows:,} x {DIMENSION} vectors, cosine {THRESHOLD}, {len(truth):,} true pairs")
    return float(results["ours"]["seconds"])


def keys(pairs: np.ndarray, rows: int) -> np.ndarray:
    """A number for each pair."""
    return pairs[:, 0] * rows + pairs[:, 1]


if __name__ == "__main__":
    typer.run(main)
