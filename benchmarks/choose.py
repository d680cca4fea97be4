"""Seconds and memory of the scores that samples are chosen by, on a million rows of 512 numbers.

    python -m benchmarks.choose [--rows 1000000] [--batch 32768] [--rounds 3]

``s_clip_loss`` of one batch is timed in turn with the bare matrix product of the same vectors, in one process:
``of_product`` is the product's processor seconds as a share of its own. Each function then goes over a quarter of the
rows and over all of them, in a process of its own, with the embeddings in files of 16-bit floats that are mapped: its
memory is what it takes beyond these. There ``s_clip_loss`` has batches of 2,048 rows, since its time grows with the
batch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import measured, publish
from dqe_assets.filtering import scores

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 512
TARGETS = 50_000
NEAREST_TARGETS = 1_000
SMALL_BATCH = 2_048
CONCEPTS = 50_000
_PART = 65_536
_BLOCK = 4_096


def write_vectors(path: Path, rows: int, seed: int) -> None:
    """Unit vectors [rows, 512] of 16-bit floats around a common direction, as CLIP's are."""
    with path.open("wb") as file:
        for start in range(0, rows, _PART):
            random = np.random.default_rng((seed, start))
            some = random.normal(size=(min(_PART, rows - start), WIDTH)).astype(np.float32) + 1
            some /= np.linalg.norm(some, axis=1, keepdims=True)
            some.astype(np.float16).tofile(file)


def mapped(folder: Path, name: str, rows: int) -> np.ndarray:
    """The first rows of a file of vectors."""
    return np.memmap(folder / name, np.float16, "r", shape=(rows, WIDTH))


def against_product(folder: Path, batch: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of ``s_clip_loss`` of one batch, and of the bare product, in turn."""
    from threadpoolctl import threadpool_limits

    images, texts = (np.asarray(mapped(folder, name, batch), np.float32) for name in ("images", "texts"))
    across, out = np.ascontiguousarray(texts.T), np.empty((_BLOCK, batch), np.float32)
    own = bare = 0.0
    for _ in range(rounds):
        started = time.process_time()
        # One thread: others would wait for work, and their waiting would count.
        with threadpool_limits(1, "blas"):
            for start in range(0, batch, _BLOCK):
                block = images[start : start + _BLOCK]
                np.matmul(block, across, out=out[: len(block)])
        bare += time.process_time() - started
        started = time.process_time()
        scores.s_clip_loss(images, texts, batch=batch, repeats=1)
        own += time.process_time() - started
    what = f"s_clip_loss, a batch of {batch:,}"
    found = {"cpu_s": own / rounds, "product_cpu_s": bare / rounds, "of_product": bare / own}
    return {"what": what, "rows": batch, **found}


def functions(folder: Path, rows: int) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name."""
    random = np.random.default_rng(0)
    images, texts = (mapped(folder, name, rows) for name in ("images", "texts"))
    columns = {str(number): random.normal(size=rows) for number in range(5)}
    hits = np.minimum(random.zipf(1.3, 3 * rows), CONCEPTS) - 1

    def balanced() -> Any:
        import pyarrow as pa

        lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 3 * rows + 1, 3, dtype=np.int32)), pa.array(hits))
        return scores.balanced_probabilities(lists, np.bincount(hits, minlength=CONCEPTS), 1_000)

    return {
        f"s_clip_loss, batches of {SMALL_BATCH:,}": lambda: scores.s_clip_loss(
            images, texts, batch=SMALL_BATCH, repeats=1
        ),
        f"normsim, p=2, {TARGETS:,} targets": lambda: scores.normsim(images, texts[:TARGETS]),
        f"normsim, p=inf, {NEAREST_TARGETS:,} targets": lambda: scores.normsim(images, texts[:NEAREST_TARGETS], np.inf),
        "normsim_d, 10 steps": lambda: scores.normsim_d(images, columns["0"]),
        "mix of 5": lambda: scores.mix(columns, dict.fromkeys(columns, 0.5)),
        "soft_cap, as many draws as rows": lambda: scores.soft_cap(columns["0"], rows),
        "balanced_probabilities, 3 concepts each": balanced,
    }


def one(folder: Path, name: str, rows: int) -> None:
    """Print the seconds of one function, by the clock and of the processor."""
    run = functions(folder, rows)[name]
    started, began = time.perf_counter(), time.process_time()
    run()
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - began}))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(Path(options.one[0]), options.one[1], options.rows)
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for seed, file in enumerate(("images", "texts")):
            write_vectors(folder / file, max(options.rows, options.batch), seed)
        found = [against_product(folder, options.batch, options.rounds)]
        for what in functions(folder, 1_000):
            for rows in (options.rows // 4, options.rows):
                command = [sys.executable, "-m", "benchmarks.choose", "--one", name, what, "--rows", str(rows)]
                usage, printed = measured(command)
                times = json.loads(printed.splitlines()[-1])
                found.append({"what": what, "rows": rows, **times, "peak_mib": usage["peak_mib"]})
    columns = ["what", "rows", "seconds", "cpu_s", "peak_mib", "product_cpu_s", "of_product"]
    publish("choose", columns, found, "Scores to choose by: seconds, and memory beyond the mapped embeddings")


if __name__ == "__main__":
    main()
