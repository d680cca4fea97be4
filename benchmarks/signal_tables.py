"""A table of signals of millions of rows against shards of 10,000 samples: seconds and memory, and those of a scan.

    python -m benchmarks.signal_tables [--rows 10000000] [--shards 5]

The table is Parquet with URLs and two numbers, in random order. It is sorted once, into data/cache; then each shard
finds its rows. Beside it stands what a shard takes that scans the table for its keys. All is one process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.common import peak_mib, publish
from dqe_assets.signals.settings import SignalTable
from dqe_assets.signals.sorted_table import key_digests, sorted_table
from dqe_resources.keyed_table import KeyedTable

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = 10_000
_AT_ONCE = 1_000_000


class Scanned(KeyedTable):
    """The same table, scanned for the keys of one shard."""

    holds: ClassVar[str] = "signals"
    values_type: ClassVar[pa.DataType] = pa.float32()

    @property
    def value_columns(self) -> list[str]:
        """Both numbers."""
        return ["nsfw", "aesthetic"]


def url(row: int) -> str:
    """The key of a row."""
    return f"https://images.example.org/of/some/length/{row:09d}.jpg"


def write_table(path: Path, rows: int) -> None:
    """The table."""
    rng = np.random.default_rng(0)
    order = rng.permutation(rows)
    schema = pa.schema([("url", pa.string()), ("nsfw", pa.float32()), ("aesthetic", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _AT_ONCE):
            some = order[start : start + _AT_ONCE].tolist()
            numbers = [rng.random(len(some), np.float32) for _ in range(2)]
            writer.write_table(pa.table([list(map(url, some)), *numbers], schema=schema))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what it gives."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def find(table: SignalTable, keys: pa.Array) -> pa.Table:
    """What the stage does for a shard, apart from reading and writing it."""
    digests, _ = key_digests(keys, table.key)
    opened = sorted_table(table)
    return opened.table.take(pa.array(opened.find(digests)))


def main(
    rows: Annotated[int, typer.Option(help="Rows of the table.")] = 10_000_000,
    shards: Annotated[int, typer.Option(help="Shards to look up.")] = 5,
) -> None:
    """Measure, and print a table."""
    with TemporaryDirectory() as name:
        # Not the cache of the project: the sorted table is of no use to it.
        os.environ["DQE_DATA"] = name
        path = Path(name, "table.parquet")
        write_table(path, rows)
        before = peak_mib()
        table = SignalTable(name="made", path=path, key="url")
        sorting, opened = timed(lambda: sorted_table(table))
        memory = peak_mib() - before
        rng = np.random.default_rng(1)
        keys = [pa.array(list(map(url, rng.choice(rows, SAMPLES, replace=False).tolist()))) for _ in range(shards)]
        finding = float(np.median([timed(lambda some=some: find(table, some))[0] for some in keys]))
        scanned = Scanned(path=path, key="url")
        scanning = float(np.median([timed(lambda some=some: scanned.find(some.to_pylist()))[0] for some in keys]))
        if opened.keys != rows:
            raise RuntimeError(f"{opened.keys:,} keys of {rows:,} rows")
    row = {
        "rows": rows,
        "sorting_seconds": round(sorting, 1),
        "more_memory_mib": round(memory),
        "shard_seconds": round(finding, 3),
        "scanned_seconds": round(scanning, 3),
        "ratio": round(scanning / finding, 1),
    }
    publish("signal_tables", list(row), [row], f"A table of signals against shards of {SAMPLES:,} samples")


if __name__ == "__main__":
    typer.run(main)
