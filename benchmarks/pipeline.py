"""Images per second of the whole per-shard chain, next to bare loops over the same images, and its peak memory.

    python -m benchmarks.pipeline [--images 1024] [--shard-size 256] [--repetitions 3] [--memory 1 4 16]

- chain: every asset of a shard, from raw_samples to caption_collection, with checks and metadata, as a run makes them
  on an empty store, the models loaded.
- loop: what one would write without a platform: read, decode and prepare each image, EfficientNet-Lite0 over batches
  of them, then MiniLM over all captions, one after another, each pass on all cores.
- models: EfficientNet-Lite0 over pixels that are ready and MiniLM over the same captions, nothing else.
- models side by side: the same, a batch on each core instead of each batch on all cores; the least that it can take.

All run the same ONNX models at the same batch sizes over the same images and the same captions, original and
synthetic (which the loop and the models are given), in alternating repetitions; figures are medians. CPU seconds are
of all threads: where other processes share the machine, trust them. Memory is the peak of a fresh
``dqe materialize`` of the per-shard assets, and then of what is over all shards, for each number of shards.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from benchmarks.common import data_folder, publish
from dqe_assets.core.schema import IMAGE_TYPE
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.sources.sample_images import BROKEN, sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.models.text_encoders.protocol import TextEncoder

_PAIRS = "pairs"
_ROW_GROUP = 256
_TEXTS = 64
# A process counts the memory that its parent had when it was started as its own, and this one has much.
_SMALL_PARENT = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True)
class Timing:
    """What one pass took: wall and CPU seconds, and wall seconds of each stage."""

    wall: float
    cpu: float
    stages: dict[str, float]


def write_source(folder: Path, images: int, shard_size: int) -> None:
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
    pq.write_table(table, folder / "pairs.parquet", row_group_size=_ROW_GROUP)
    source = {
        "kind": "parquet",
        "name": _PAIRS,
        "path": "pairs.parquet",
        "key_column": "name",
        "shard_size": shard_size,
    }
    # Neither loop nor chain looks for text in images: benchmarks.tmars says what that takes.
    captioners = [{"kind": "labels", "name": "labels"}]
    settings = {"sources": [source], "captioners": captioners, "image_text": None}
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
            stored, _, results = stage.make(
                stage.work(settings.opened_store, shard, shards), stage.arguments(resources)
            )
            seconds[stage.name] += time.perf_counter() - started
            failed = [name for name, result in results.items() if not result.passed]
            if failed:
                raise RuntimeError(f"{stage.name}, {shard}: {', '.join(failed)}; stored at {stored.path}")
    return seconds


@dataclass(frozen=True)
class Bare:
    """The two models, and the input of the bare loops: a Parquet file, its pixels [n, 3, 224, 224], all captions."""

    image_model: ImageModel
    text_encoder: TextEncoder
    path: Path
    pixels: np.ndarray
    texts: list[str]

    @classmethod
    def of(cls, settings: Settings, path: Path) -> Bare:
        """From a store in which the chain was made."""
        batches = list(_prepared(settings.image_model, path))
        captions = [caption for _, batch in batches for caption in batch] + _synthetic(settings)
        if not isinstance(settings.scorer, LabelSpace):
            raise TypeError("the bare loops are those of the scorer label_space")
        pixels = np.concatenate([pixels for pixels, _ in batches])
        return cls(settings.image_model, settings.scorer.text_encoder, path, pixels, captions)

    def using(self, threads: int) -> Bare:
        """With so many threads in each pass; 0 for one on each core."""
        update = {"threads": threads}
        return replace(
            self,
            image_model=self.image_model.model_copy(update=update),
            text_encoder=self.text_encoder.model_copy(update=update),
        )

    def loop(self) -> dict[str, float]:
        """Everything that the models need, and nothing else that is checked, kept or measured."""
        for pixels, _ in _prepared(self.image_model, self.path):
            self.image_model.embed(pixels)
        self.text_encoder.encode(self.texts)
        return {}

    def models(self) -> dict[str, float]:
        """The models alone; returns the seconds of each."""
        started = time.perf_counter()
        for start in range(0, len(self.pixels), self.image_model.batch_size):
            self.image_model.embed(self.pixels[start : start + self.image_model.batch_size])
        between = time.perf_counter()
        self.text_encoder.encode(self.texts)
        return {"image model": between - started, "text encoder": time.perf_counter() - between}

    def models_side_by_side(self) -> dict[str, float]:
        """The models alone, a batch on each core."""
        size = self.image_model.batch_size
        images = [self.pixels[start : start + size] for start in range(0, len(self.pixels), size)]
        by_length = sorted(self.texts, key=len)
        texts = [by_length[start : start + _TEXTS] for start in range(0, len(by_length), _TEXTS)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.image_model.embed, images))
            list(pool.map(self.text_encoder.encode, texts))
        return {}


def measured(work: Callable[[], dict[str, float]]) -> Timing:
    """Wall and CPU seconds of one pass."""
    wall, cpu = time.perf_counter(), time.process_time()
    stages = work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, stages)


def throughput(folder: Path, images: int, shard_size: int, repetitions: int) -> list[dict[str, Any]]:
    """Images per second of the chain and the bare loops, and the seconds of each stage."""
    write_source(folder, images, shard_size)
    settings = load_settings({})
    chain(settings)
    bare = Bare.of(settings, folder / "pairs.parquet")
    contestants: dict[str, Callable[[], dict[str, float]]] = {
        "chain": lambda: chain(settings),
        "loop": bare.using(threads=0).loop,
        "models": bare.using(threads=0).models,
        "models side by side": bare.using(threads=1).models_side_by_side,
    }
    timings: dict[str, list[Timing]] = {what: [] for what in contestants}
    for repetition in range(repetitions + 1):
        for what, contestant in contestants.items():
            _empty(folder)
            timing = measured(contestant)
            if repetition:  # the first one loads
                timings[what].append(timing)
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
            "shard_size": shard_size,
            "repetitions": repetitions,
        }
        for what in timings
    ]
    for what in ("chain", "models"):
        for part in timings[what][0].stages:
            taken = median(timing.stages[part] for timing in timings[what])
            rows.append({"what": f"{what}: {part}", "ms_per_image": 1000 * taken / images, "shard_size": shard_size})
    return rows


def memory(folder: Path, shards: int, shard_size: int) -> dict[str, Any]:
    """Peak memory of the commands that make the per-shard assets, and then the others, each in a fresh process."""
    _empty(folder)
    write_source(folder, shards * shard_size, shard_size)
    partitioned = [stage.name for stage in graph.stages(load_settings({})) if stage.partitioned]
    return {
        "shards": shards,
        "images": shards * shard_size,
        "peak_mib_per_shard_assets": _peak_mib(folder, partitioned),
        "peak_mib_assets_over_all_shards": _peak_mib(folder, []),
    }


def _peak_mib(folder: Path, assets: list[str]) -> float:
    environment = {**os.environ, "DQE_DATA": str(folder), "DAGSTER_HOME": str(folder / "dagster_home")}
    command = [sys.executable, "-m", "dqe_assets.cli", "materialize", *assets]
    measured = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _SMALL_PARENT, *command], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return int(measured.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


def _prepared(model: ImageModel, path: Path) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Batches of preprocessed images with their captions, those that have one."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=model.batch_size, columns=["image", "caption"]):
            pixels, captions = [], []
            for row in batch.to_pylist():
                with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                    pixels.append(model.preprocess(image.convert("RGB")))
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
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[1, 4, 16], help="numbers of shards")
    given = parser.parse_args()
    if given.repetitions:
        with data_folder() as folder:
            rows = throughput(folder, given.images, given.shard_size, given.repetitions)
        what = f"{given.images:,} images in shards of {given.shard_size}"
        columns = ["what", "images_per_second", "cpu_ms_per_image", "chain_against_it", "chain_against_it_in_cpu"]
        publish("pipeline", columns, [row for row in rows if "images_per_second" in row], f"Images per second: {what}")
        parts = [row for row in rows if "ms_per_image" in row]
        publish("pipeline_parts", ["what", "ms_per_image"], parts, f"Where the time goes: {what}")
    with data_folder() as folder:
        points = [memory(folder, shards, given.shard_size) for shards in given.memory]
    if points:
        publish("pipeline_memory", list(points[0]), points, f"Peak memory, in shards of {given.shard_size} images")


if __name__ == "__main__":
    main()
