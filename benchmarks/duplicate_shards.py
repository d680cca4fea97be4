"""Duplicates over shards of 10,000 samples: CPU seconds and memory from nothing and for one more shard, and growth.

    python -m benchmarks.duplicate_shards [--shards 10 --shards 30 --shards 100] [--steps captions]

The store is made: captions of words as frequent as in English, long ones as a model writes them, some of them
repeated and some changed by a word. No model runs. Each step is a process of its own, which makes one asset over all
shards as ``dqe materialize`` does, with its checks. Its memory is what it took beyond files that it mapped (RssAnon),
looked at a hundred times a second.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from benchmarks.common import data_folder, measured, publish
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.store import Stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 10_000
CAPTIONER = "labels"
SETTINGS = f"""
sources: [{{kind: folder, name: made, path: photos}}]
captioners: [{{kind: labels, name: {CAPTIONER}}}]
image_text: null
"""
STEPS = {"captions": "caption_duplicates"}
"""What is measured, and the asset that is made for it."""

_LETTERS = np.array(list("etaoinshrdlucmfw"))
_PHRASES = np.array(["the image features a", "in the background there are", "a close up of a", "standing next to a"])


def shard_names(count: int) -> list[str]:
    """The first shards of the source."""
    return [f"made-{number:05d}" for number in range(count)]


def uids(shard: str) -> list[str]:
    """The samples of a shard."""
    return [blake2b(f"{shard}/{row}".encode(), digest_size=16).hexdigest() for row in range(ROWS)]


def captions(number: int, words: int) -> list[str]:
    """Captions of about so many words: 1 in 20 repeats one of another shard, 1 in 50 but for a word."""
    rng = np.random.default_rng([number, words])
    vocabulary = _vocabulary()
    ranks = np.minimum(rng.zipf(1.2, (ROWS, 2 * words)), len(vocabulary)) - 1
    lengths = np.maximum(2, rng.poisson(words, ROWS))
    made = [" ".join(vocabulary[some[:length]]) for some, length in zip(ranks, lengths, strict=True)]
    if words > 20:
        made = [f"{_PHRASES[row % 4]} {text} {_PHRASES[(row + 1) % 4]}" for row, text in enumerate(made)]
    # What repeats comes from a pool that all shards share.
    pool = np.random.default_rng(words).zipf(1.2, (2_000, words)) % len(vocabulary)
    for row in rng.choice(ROWS, ROWS // 20, replace=False):
        made[row] = " ".join(vocabulary[pool[rng.integers(len(pool))]])
    for row in rng.choice(ROWS, ROWS // 50, replace=False):
        made[row] = f"{' '.join(vocabulary[pool[rng.integers(len(pool))]])} {vocabulary[rng.integers(1_000)]}"
    return made


def make_shard(number: int) -> None:
    """Store what the steps read of a shard, and the signatures of its captions."""
    store = load_settings().opened_store
    shard = shard_names(number + 1)[-1]
    made = uids(shard)
    raw = {
        "uid": made,
        "source": ["made"] * ROWS,
        "shard": [shard] * ROWS,
        "row": np.arange(ROWS),
        "image_name": [f"{row}.jpg" for row in range(ROWS)],
        "caption": captions(number, 11),
        "status": ["ok"] * ROWS,
        "reason": ["ok"] * ROWS,
        "width": np.full(ROWS, 500),
        "height": np.full(ROWS, 375),
    }
    synthetic = {
        "uid": made,
        "caption": captions(number, 110),
        "finish_reason": ["stop"] * ROWS,
        "model": ["made"] * ROWS,
    }
    for asset, columns, schema in (
        ("raw_samples", raw, RAW_SAMPLES),
        (f"synthetic_captions/{CAPTIONER}", synthetic, SYNTHETIC_CAPTIONS),
    ):
        store.write_table(asset, shard, _filled(columns, schema), schema, Stamp(shard, "made", ROWS))
    make("caption_signatures", number + 1, [shard])


def make(name: str, shards: int, partitions: Sequence[str | None]) -> None:
    """Make an asset's partitions, of so many shards."""
    settings = load_settings()
    stage = next(one for one in graph.stages(settings) if one.name == name)
    arguments = stage.arguments(graph.resources(settings))
    for partition in partitions:
        work = stage.work(settings.opened_store, partition, shard_names(shards))
        _, _, results = stage.make(work, arguments)
        failed = {check: result.description for check, result in results.items() if not result.passed}
        if failed:
            raise RuntimeError(f"{name}: {failed}")


def main(
    shards: Annotated[list[int] | None, typer.Option(help="How many shards; may be repeated.")] = None,
    steps: Annotated[list[str] | None, typer.Option(help=f"Which of {', '.join(STEPS)}; all by default.")] = None,
    only: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and publish."""
    if only:
        print(time.process_time(), flush=True)
        make(STEPS[only], (shards or [0])[0], [None])
        return
    rows: list[dict[str, Any]] = []
    with data_folder() as data:
        (data / "dqe.yaml").write_text(SETTINGS)
        (data / "photos").mkdir()
        there = 0
        for count in sorted(shards or [10, 30, 100]):
            for number in range(there, count - 1):
                make_shard(number)
            rows += [_figures(step, count - 1, "from nothing") for step in steps or STEPS]
            make_shard(count - 1)
            rows += [_figures(step, count, "one more shard") for step in steps or STEPS]
            there = count
    for row in rows:
        fewest = next(one for one in rows if (one["step"], one["what"]) == (row["step"], row["what"]))
        if row is not fewest:
            ratio = row["cpu_seconds"] / fewest["cpu_seconds"]
            row["exponent"] = float(np.log(ratio) / np.log(row["shards"] / fewest["shards"]))
    publish(
        "duplicate_shards",
        ["step", "what", "shards", "cpu_seconds", "peak_mib", "exponent"],
        rows,
        "Duplicates over shards of 10,000 samples; the exponent is that of the growth from the fewest shards",
    )


def _figures(step: str, shards: int, what: str) -> dict[str, Any]:
    if what == "from nothing":
        (Path(load_settings().opened_store.path(STEPS[step], None))).unlink(missing_ok=True)
    print(f"{step}, {shards} shards, {what} ...", file=sys.stderr)
    command = [sys.executable, "-m", "benchmarks.duplicate_shards", "--only", step, "--shards", str(shards)]
    usage, text = measured(command)
    usage["cpu_seconds"] -= float(text.splitlines()[0])
    return {"step": step, "what": what, "shards": shards, **usage}


@cache
def _vocabulary() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array(["".join(rng.choice(_LETTERS, size)) for size in np.clip(rng.poisson(5, 30_000), 2, 12)])


def _filled(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """A table whose other columns are null."""
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(ROWS, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


if __name__ == "__main__":
    typer.run(main)
