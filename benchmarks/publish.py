"""Seconds and peak memory of publishing, next to the bare libraries writing the same samples from the same store.

    python -m benchmarks.publish [--samples 10000 --samples 30000] [--repetitions 3]

A shard of 1,000 of the embedded sample's photos, at most 320 pixels a side, goes through every stage; its tables are
then copied, each time under new uids and with other bytes of images, until there are enough samples, and the warehouse
is built over all of them. Each format is published in a process of its own, files of 10,000 samples, with card,
pictures and manifest of hashes. Beside it, in a process of its own too, what one would write without a platform, from
the same tables and warehouse, unchecked and not to be resumed: ``datasets.Dataset.from_generator(...).to_parquet``,
``webdataset.ShardWriter``, and DuckDB's ``COPY`` for metadata. Times are medians of alternating repetitions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer
import yaml

from benchmarks.common import data_folder, peak_mib, publish
from benchmarks.pipeline import write_source
from dqe_assets.core.schema import IMAGE_TYPE
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.publish import dataset as publishing
from dqe_assets.publish.selection import FACTS, published_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.publish.options import Format

COPIED = 1_000
SHARD_SIZE = 10_000
LONGEST_SIDE = 320
CONDITION, CAPTION = "true", "best"
_SQL = f'SELECT * FROM ({published_sql(CONDITION, CAPTION, chr(34) + "row" + chr(34))}) ORDER BY shard, "row"'  # noqa: S608


def fill(folder: Path, samples: int) -> None:
    """A data folder with so many samples, and the warehouse over them."""
    write_source(folder, COPIED, COPIED)
    configuration = yaml.safe_load((folder / "dqe.yaml").read_text(encoding="utf-8"))
    configuration["images"] = {"longest_side": LONGEST_SIDE}
    (folder / "dqe.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    command = [sys.executable, "-m", "dqe_assets.cli", "materialize"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    settings = load_settings()
    every = graph.stages(settings)
    (shard,) = (settings.sources[0].key(shard.index) for shard in settings.sources[0].shards())
    copies = [f"{shard[:-5]}{number:05d}" for number in range(1, samples // COPIED)]
    for copy in copies:
        for stage in every:
            if stage.partitioned:
                copy_partition(settings, stage, shard, copy)
    (warehouse,) = (stage for stage in every if stage.name == "warehouse")
    work = warehouse.work(settings.opened_store, None, [shard, *copies])
    warehouse.function(work, **warehouse.arguments(graph.resources(settings)))


def copy_partition(settings: Settings, stage: Stage, shard: str, copy: str) -> None:
    """What a stage made of a shard, under the name of another one, of other samples."""
    store = settings.opened_store
    stored = store.get(stage.name, shard)
    if stored is None:
        raise RuntimeError(f"{stage.name} of {shard} is not there")
    if stage.schema is None:
        store.write_manifest(stage.name, copy, stored.stamp)
        return
    table = store.read(stage.name, shard, stage.schema)
    made = {"uid": lambda uid: hashlib.md5(f"{copy}{uid}".encode(), usedforsecurity=False).hexdigest()}
    if stage.name == "raw_samples":
        # Decoders do not read beyond an image's end: another file of the same picture.
        made |= {
            "shard": lambda _: copy,
            "image": lambda image: image and {**image, "bytes": image["bytes"] + copy.encode()},
        }
    for name, change in made.items():
        column = [change(value) for value in table[name].to_pylist()]
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(column, field.type))
    store.write_table(stage.name, copy, table, stage.schema, replace(stored.stamp))


def ours(settings: Settings, folder: Path, kind: Format) -> int:
    """What the platform writes; returns how many samples."""
    request = publishing.Request(CONDITION, CAPTION, kind, SHARD_SIZE)
    return int(publishing.publish(settings, folder, request)["samples"])


def rows(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every sample with its image, in the order of the store."""
    with settings.warehouse.connect() as connection:
        facts = connection.sql(_SQL).to_arrow_table().drop_columns(["row"]).to_pylist()
    known = {row["uid"]: row for row in facts}
    for shard in sorted({row["shard"] for row in facts}):
        for batch in settings.opened_store.batches("raw_samples", shard, RAW_SAMPLES, ["uid", "image"], 256):
            for row in batch.filter(pc.is_in(batch["uid"], value_set=pa.array(known))).to_pylist():
                yield {"image": row["image"], **known[row["uid"]]}


def bare_hf(settings: Settings, folder: Path) -> int:
    """What datasets writes from a generator."""
    from datasets import Dataset, Features, Image

    schema = pa.schema([pa.field("image", IMAGE_TYPE), *FACTS]).remove_metadata()
    schema = pa.schema([field.remove_metadata() for field in schema])
    features = Features({**Features.from_arrow_schema(schema), "image": Image()})
    made = Dataset.from_generator(
        rows, gen_kwargs={"settings": settings}, features=features, cache_dir=folder / "cache"
    )
    count = -(-len(made) // SHARD_SIZE)
    for number in range(count):
        made.shard(count, number, contiguous=True).to_parquet(folder / f"{number:05d}.parquet")
    return len(made)


def bare_webdataset(settings: Settings, folder: Path) -> int:
    """What webdataset writes."""
    from webdataset import ShardWriter

    count = 0
    with ShardWriter(str(folder / "%08d.tar"), maxcount=SHARD_SIZE, maxsize=1e12, verbose=0) as sink:
        for count, row in enumerate(rows(settings), 1):  # noqa: B007 - the last one is how many there are
            image = row.pop("image")["bytes"]
            sink.write({"__key__": row["uid"], "jpg": image, "txt": row["caption"], "json": row})
    return count


def bare_datacomp(settings: Settings, folder: Path) -> int:
    """What DuckDB copies."""
    with settings.warehouse.connect() as connection:
        target = str(folder / "metadata.parquet").replace("'", "''")
        copied = connection.execute(f"COPY ({_SQL}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchone()
    return int(copied[0]) if copied else 0


BARE: dict[Format, tuple[str, Callable[[Settings, Path], int]]] = {
    "hf": ("datasets", bare_hf),
    "webdataset": ("webdataset", bare_webdataset),
    "datacomp": ("DuckDB COPY", bare_datacomp),
}


def measured(who: str, kind: Format, folder: Path) -> dict[str, Any]:
    """Seconds, CPU seconds, peak memory and samples of one way to write one format, in this process."""
    settings = load_settings()
    folder.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    samples = ours(settings, folder, kind) if who == "ours" else BARE[kind][1](settings, folder)
    return {
        "samples": samples,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
    }


def in_a_process(who: str, kind: Format, folder: Path) -> dict[str, Any]:
    """The same in a process of its own, whose output is removed."""
    command = [sys.executable, "-m", "benchmarks.publish", "--step", f"{who}:{kind}", "--folder", str(folder)]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(samples: int, repetitions: int) -> list[dict[str, Any]]:
    """Figures of every format over so many samples."""
    figures = []
    with data_folder() as folder:
        fill(folder, samples)
        for kind, (library, _) in BARE.items():
            taken: dict[str, list[dict[str, Any]]] = {"ours": [], library: []}
            for _ in range(repetitions):
                for who, runs in taken.items():
                    runs.append(in_a_process(who, kind, folder / "out"))
                    print(who, kind, runs[-1], file=sys.stderr)
            medians = {who: {key: median(run[key] for run in runs) for key in runs[0]} for who, runs in taken.items()}
            if len({figure["samples"] for figure in medians.values()}) > 1:
                raise RuntimeError(f"{kind}: not the same samples were written")
            for who, figure in medians.items():
                row = {"format": kind, "what": who, **figure, "per_second": figure["samples"] / figure["seconds"]}
                row["times"] = medians[library]["seconds"] / figure["seconds"]
                figures.append(row)
    return figures


def main(
    samples: Annotated[list[int] | None, typer.Option(min=COPIED, help="How many; may be repeated.")] = None,
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    step: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Measure, print and record."""
    if step:
        who, _, kind = step.partition(":")
        print(json.dumps(measured(who, next(known for known in BARE if known == kind), folder)))
        return
    figures = [row for count in samples or [10_000, 30_000] for row in compare(count, repetitions)]
    columns = ["format", "what", "samples", "seconds", "cpu_seconds", "per_second", "times", "peak_mib"]
    publish("publish", columns, figures, "publishing; times: how many times as fast as the bare library")


if __name__ == "__main__":
    typer.run(main)
