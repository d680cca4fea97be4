"""Images per second of the whole per-shard chain beside bare loops over the same images, and its peak memory.

    python -m benchmarks.pipeline [--images 1024] [--repetitions 3] [--shards 1 4 16]

- chain: every asset of a shard, from raw_samples to caption_collection, checks and metadata included, as a run makes
  them on an empty store, with the models loaded.
- models: nothing but EfficientNet-Lite0 over pixels that are ready and MiniLM over the same original and synthetic
  captions, through the platform's own ONNX sessions at their default batch sizes.
- loop: read the bytes, decode, prepare, EfficientNet-Lite0, MiniLM over the original captions, one after another.

All three see the same images in alternating repetitions; figures are medians. CPU seconds are of all threads. Memory
is the peak of a fresh ``dqe materialize`` of the per-shard assets, and of what is over all shards, for each number of
shards.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from benchmarks.common import data_folder, publish
from dqe_assets import graph
from dqe_assets.ingest.sample import BROKEN, sample_rows
from dqe_assets.schemas import IMAGE_TYPE
from dqe_assets.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dqe_assets.settings import Settings

SHARD_SIZE = 256
_PAIRS = "pairs"
_IMAGES_A_GROUP = 256


@dataclass(frozen=True)
class Timing:
    """What one pass took: wall and CPU seconds, and wall seconds of each stage."""

    wall: float
    cpu: float
    stages: dict[str, float]


def write_source(folder: Path, images: int) -> None:
    """A Parquet file of the sample's photos and captions, again and again until there are enough, no two alike."""
    planted = [row for row in sample_rows() if row.truth and row.truth.image not in BROKEN]
    names, files, captions = [], [], []
    for number, row in enumerate(islice(cycle(planted), images)):
        if not isinstance(row.image, bytes):
            raise TypeError(f"{row.key} of the sample has no bytes")
        names.append(f"{number:06d}.jpg")
        # Decoders do not read beyond an image's end: another file of the same picture.
        files.append({"bytes": row.image + names[-1].encode(), "path": names[-1]})
        captions.append(row.caption)
    table = pa.table({"name": names, "image": pa.array(files, IMAGE_TYPE), "caption": captions})
    pq.write_table(table, folder / "pairs.parquet", row_group_size=_IMAGES_A_GROUP)
    source = {
        "kind": "parquet",
        "name": _PAIRS,
        "path": "pairs.parquet",
        "key_column": "name",
        "shard_size": SHARD_SIZE,
    }
    settings = {"sources": [source], "captioners": [{"kind": "labels", "name": "labels"}]}
    (folder / "dqe.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def chain(settings: Settings) -> dict[str, float]:
    """Make every per-shard asset of every shard; returns the seconds of each stage."""
    resources = graph.resources(settings)
    stages = [stage for stage in graph.stages(settings) if stage.partitioned]
    shards = [settings.sources[0].key(shard.index) for shard in settings.sources[0].shards()]
    seconds = dict.fromkeys((stage.name for stage in stages), 0.0)
    for shard in shards:
        for stage in stages:
            started = time.perf_counter()
            stored, _, verdicts = stage.make(stage.work(settings, shard, shards), stage.components(resources))
            seconds[stage.name] += time.perf_counter() - started
            failed = [name for name, verdict in verdicts.items() if not verdict.passed]
            if failed:
                raise RuntimeError(f"{stage.name}, {shard}: {', '.join(failed)}; stored at {stored.path}")
    return seconds


def models(settings: Settings, pixels: np.ndarray, texts: list[str]) -> dict[str, float]:
    """The two models over input that is ready; returns the seconds of each."""
    started = time.perf_counter()
    settings.image_model.embed(pixels)
    between = time.perf_counter()
    settings.scorer.embed_texts(texts)
    return {"image model": between - started, "text encoder": time.perf_counter() - between}


def loop(settings: Settings, path: Path) -> dict[str, float]:
    """What one would write without a platform: nothing is checked, kept or measured besides."""
    model = settings.image_model
    for pixels, captions in _prepared(settings, path, model.batch_size):
        model.embed(pixels)
        settings.scorer.embed_texts(captions)
    return {}


def measured(work: Callable[[], dict[str, float]]) -> Timing:
    """Wall and CPU seconds of one pass."""
    wall, cpu = time.perf_counter(), time.process_time()
    stages = work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, stages)


def throughput(folder: Path, images: int, repetitions: int) -> list[dict[str, Any]]:
    """Images per second of the chain and the bare loops, and the seconds of each stage."""
    write_source(folder, images)
    settings = load_settings({})
    path = folder / "pairs.parquet"
    chain(settings)
    captions = [caption for _, batch in _prepared(settings, path, _IMAGES_A_GROUP) for caption in batch]
    texts = captions + _synthetic(settings)
    pixels = np.concatenate([pixels for pixels, _ in _prepared(settings, path, _IMAGES_A_GROUP)])
    timings: dict[str, list[Timing]] = {"chain": [], "models": [], "loop": []}
    for _ in range(repetitions):
        _empty(folder)
        timings["chain"].append(measured(lambda: chain(settings)))
        timings["models"].append(measured(lambda: models(settings, pixels, texts)))
        timings["loop"].append(measured(lambda: loop(settings, path)))
    seconds = {what: median(timing.wall for timing in taken) for what, taken in timings.items()}
    cpu_seconds = {what: median(timing.cpu for timing in taken) for what, taken in timings.items()}
    rows: list[dict[str, Any]] = [
        {
            "what": what,
            "images_per_second": images / seconds[what],
            "cpu_ms_per_image": 1000 * cpu_seconds[what] / images,
            "chain_against_it": seconds[what] / seconds["chain"],
            "chain_against_it_in_cpu": cpu_seconds[what] / cpu_seconds["chain"],
            "images": images,
            "repetitions": repetitions,
        }
        for what in timings
    ]
    for what in ("chain", "models"):
        for part in timings[what][0].stages:
            taken = median(timing.stages[part] for timing in timings[what])
            rows.append({"what": f"{what}: {part}", "ms_per_image": 1000 * taken / images})
    return rows


def memory(folder: Path, shards: int) -> dict[str, Any]:
    """Peak memory of the commands that make the per-shard assets, and then the others, each in a fresh process."""
    _empty(folder)
    write_source(folder, shards * SHARD_SIZE)
    partitioned = [stage.name for stage in graph.stages(load_settings({})) if stage.partitioned]
    return {
        "shards": shards,
        "images": shards * SHARD_SIZE,
        "peak_mib_per_shard_assets": _peak_mib(folder, partitioned),
        "peak_mib_assets_over_all_shards": _peak_mib(folder, []),
    }


def _peak_mib(folder: Path, assets: list[str]) -> float:
    environment = {**os.environ, "DQE_DATA": str(folder), "DAGSTER_HOME": str(folder / "dagster_home")}
    command = [sys.executable, "-m", "dqe_assets.cli", "materialize", *assets]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _prepared(settings: Settings, path: Path, size: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Batches of preprocessed images with their captions, those that have one."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=size, columns=["image", "caption"]):
            pixels, captions = [], []
            for row in batch.to_pylist():
                with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                    pixels.append(settings.image_model.preprocess(image.convert("RGB")))
                captions.append(row["caption"] or "")
            yield np.stack(pixels), [caption for caption in captions if caption.strip()]


def _synthetic(settings: Settings) -> list[str]:
    captions: list[str] = []
    for name in settings.captioner_names:
        asset = f"synthetic_captions/{name}"
        for shard in settings.sources[0].shards():
            path = settings.opened_store.path(asset, settings.sources[0].key(shard.index))
            captions += pq.read_table(path, columns=["caption"])["caption"].drop_null().to_pylist()
    return captions


def _empty(folder: Path) -> None:
    """Remove all that was made, but not the models."""
    for name in ("store", "qdrant", "dagster_home"):
        shutil.rmtree(folder / name, ignore_errors=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 4, 16], help="points of the memory measurement")
    arguments = parser.parse_args()
    with data_folder() as folder:
        rows = throughput(folder, arguments.images, arguments.repetitions)
    columns = ["what", "images_per_second", "cpu_ms_per_image", "chain_against_it", "chain_against_it_in_cpu"]
    publish("pipeline", columns, [row for row in rows if "images_per_second" in row], "Images per second")
    publish("pipeline_parts", ["what", "ms_per_image"], [row for row in rows if "ms_per_image" in row], "Where it goes")
    with data_folder() as folder:
        points = [memory(folder, shards) for shards in arguments.shards]
    if points:
        publish("pipeline_memory", list(points[0]), points, f"Peak memory, in shards of {SHARD_SIZE} images")


if __name__ == "__main__":
    main()
