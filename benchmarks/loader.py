"""Samples a second that a trainer is given: straight from the store, and from WebDataset tars of the same images.

    python -m benchmarks.loader [--samples 1000] [--rounds 5]

Shards of 500 of the embedded sample's photos, at most 320 pixels a side, are ingested; those with a caption are also
written as tars, as ``dqe reshard`` does. Both are then read to their end in turn, in one process without workers,
shuffled by shard and by a buffer of 1,000: pictures decoded to RGB, with their captions.

- tars: ``webdataset.WebDataset(...).shuffle(1000).decode("pilrgb").to_tuple("jpg;png;webp", "txt")``.
- pipeline: ``webdataset_pipeline`` with the same stages.
- data set: ``StoreDataset``.

The ratio is that of a round, of processor time, which other work on the machine changes little; figures are medians.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from benchmarks.common import data_folder, publish
from benchmarks.pipeline import write_source
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.training.data import every_sample
from dqe_assets.training.reshard import plan_shards, write_shards
from dqe_assets.training.samples import StoreShard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SHARD_SIZE = 500
LONGEST_SIDE = 320
BUFFER = 1_000


def fill(folder: Path, samples: int) -> tuple[str, list[str]]:
    """Ingest so many samples; returns the store, and the tars of the same samples."""
    write_source(folder, samples, SHARD_SIZE)
    configuration = yaml.safe_load((folder / "dqe.yaml").read_text(encoding="utf-8"))
    configuration["images"] = {"longest_side": LONGEST_SIDE}
    (folder / "dqe.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    settings = load_settings()
    store = settings.opened_store
    raw = next(stage for stage in graph.stages(settings) if stage.name == "raw_samples")
    shards = [settings.sources[0].key(shard.index) for shard in settings.sources[0].shards()]
    for shard in shards:
        raw.make(raw.work(store, shard, shards), raw.arguments(graph.resources(settings)))
    parts = [StoreShard(store, shard) for shard in shards]
    plan = plan_shards(every_sample(parts), parts, SHARD_SIZE)
    tables = [store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "caption"]).to_pylist() for shard in shards]
    mute = [row["uid"] for table in tables for row in table if not (row["caption"] or "").strip()]
    write_shards(plan.leaving_out(mute), folder / "tars", {})
    return store.root, sorted(map(str, (folder / "tars").glob("*.tar")))


def ways(store: str, tars: list[str]) -> dict[str, Callable[[], Iterable[Any]]]:
    """What gives the samples of an epoch, by its name."""
    import webdataset

    from dqe_assets.publish.loader import StoreDataset, webdataset_pipeline

    stages = (webdataset.decode("pilrgb"), webdataset.to_tuple("jpg;png;webp", "txt"))
    options = {"store": store, "captions": "original", "buffer": BUFFER}
    pipeline = webdataset_pipeline(*stages, **options)
    dataset = StoreDataset(**options)

    def from_tars() -> Iterable[Any]:
        shuffled = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(BUFFER)
        return shuffled.decode("pilrgb").to_tuple("jpg;png;webp", "txt")

    return {"tars": from_tars, "pipeline": lambda: pipeline, "data set": lambda: dataset}


def compare(samples: int, rounds: int) -> list[dict[str, Any]]:
    """The figures of each way, the first of which is what others are compared with."""
    with data_folder() as folder:
        found = ways(*fill(folder, samples))
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        counts = dict.fromkeys(found, 0)
        for _ in range(rounds):
            for name, read in found.items():
                wall, cpu = time.perf_counter(), time.process_time()
                counts[name] = sum(1 for _ in read())
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    if len({*counts.values()}) > 1:
        raise RuntimeError(f"not the same samples were read: {counts}")
    first = next(iter(found))
    per_cpu = {name: [counts[name] / cpu for _, cpu in times] for name, times in taken.items()}
    return [
        {
            "what": name,
            "samples": counts[name],
            "per_second": counts[name] / median(wall for wall, _ in times),
            "per_cpu_second": median(per_cpu[name]),
            "ratio": median(ours / theirs for ours, theirs in zip(per_cpu[name], per_cpu[first], strict=True)),
        }
        for name, times in taken.items()
    ]


def main(
    samples: Annotated[int, typer.Option(min=SHARD_SIZE)] = 1_000, rounds: Annotated[int, typer.Option(min=1)] = 5
) -> None:
    """Measure, print and record."""
    figures = compare(samples, rounds)
    columns = ["what", "samples", "per_second", "per_cpu_second", "ratio"]
    publish("loader", columns, figures, "samples a second for a trainer; ratio: to tars, by processor time")


if __name__ == "__main__":
    typer.run(main)
