"""Images per second of ``dqe.quality`` on a folder, beside the bare models, and whether it agrees with the assets.

    python -m benchmarks.python_api [--images 1000]

- quality: the folder measured by ``dqe.quality``, the models loaded.
- assets: ``raw_samples``, ``image_features``, ``joint_embeddings``, ``caption_scores`` and ``text_quality`` of the same
  folder, made by their stages into an empty store.
- models side by side: EfficientNet-Lite0 over pixels that are ready and MiniLM over the captions, a batch on each core,
  and nothing else: the least that it can take.

All in one process, one after another. ``columns_that_differ`` counts the columns of which a value of ``quality`` is not
that of the assets, bit for bit. CPU seconds are of all threads: where other processes share the machine, trust them.
"""

from __future__ import annotations

import argparse
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

import dqe_assets as dqe
from benchmarks.common import data_folder, publish
from benchmarks.pipeline import Bare, measured
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_resources import images
from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.text_encoders.minilm import MiniLM
from dqe_resources.sources.sample_images import BROKEN, sample_rows

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

ASSETS = ("raw_samples", "image_features", "joint_embeddings", "caption_scores", "text_quality")
SHARD = "photos-00000"
COLUMNS = ("what", "images", "images_per_second", "cpu_ms_per_image", "models_of_it_in_cpu", "columns_that_differ")


def write_folder(folder: Path, count: int) -> list[str]:
    """The sample's photos again and again until there are enough, no two files alike; returns the captions."""
    planted = [row for row in sample_rows() if row.truth and row.truth.image not in BROKEN and row.image]
    captions = []
    for number, row in enumerate(islice(cycle(planted), count)):
        if not isinstance(row.image, bytes):
            raise TypeError(f"{row.key} of the sample has no bytes")
        # Decoders do not read beyond an image's end: another file of the same picture.
        (folder / f"{number:06d}.jpg").write_bytes(row.image + str(number).encode())
        (folder / f"{number:06d}.txt").write_text(row.caption or "")
        captions.append(row.caption or "")
    return captions


def make_assets() -> list[pa.Table]:
    """Make the assets in the data folder; returns their tables."""
    settings = load_settings({})
    resources, stages = graph.resources(settings), {stage.name: stage for stage in graph.stages(settings)}
    tables = []
    for name in ASSETS:
        stage = stages[name]
        stage.make(stage.work(settings.opened_store, SHARD, [SHARD]), stage.arguments(resources))
        if stage.schema is not None and name != "joint_embeddings":
            columns = [column for column in stage.schema.names if column != "image"]
            tables.append(settings.opened_store.read(name, SHARD, stage.schema, columns))
    return tables


def differing(found: Any, tables: list[pa.Table]) -> list[str]:
    """The columns that are in both and differ in any value."""
    pairs = [(name, table) for table in tables for name in table.column_names if name in found.column_names]
    return [name for name, table in pairs if not found[name].combine_chunks().equals(table[name].combine_chunks())]


def main() -> None:
    """Measure and publish."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--images", type=int, default=1000)
    count = options.parse_args().images
    kept: dict[str, Any] = {}
    with data_folder() as data:
        folder = data / "photos"
        folder.mkdir()
        captions = write_folder(folder, count)
        source = {"kind": "folder", "name": "photos", "path": "photos"}
        settings = {"sources": [source], "captioners": [], "image_text": None}
        (data / "dqe.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        files = sorted(folder.glob("*.jpg"))
        dqe.score(files[:1], captions[:1])  # loads the models
        model = ImageModel()
        pixels = np.stack([model.preprocess(images.decode(file.read_bytes())) for file in files])
        bare = Bare(model, MiniLM(), folder, pixels, captions).using(threads=1)
        taken = {
            "quality": measured(lambda: kept.update(found=dqe.quality(folder)) or {}),
            "models side by side": measured(bare.models_side_by_side),
            "assets": measured(lambda: kept.update(tables=make_assets()) or {}),
        }
        differ = differing(kept["found"], kept["tables"])
    rows = [
        {
            "what": what,
            "images": count,
            "images_per_second": count / timing.wall,
            "cpu_ms_per_image": 1000 * timing.cpu / count,
            "models_of_it_in_cpu": taken["models side by side"].cpu / timing.cpu,
            **({"columns_that_differ": len(differ)} if what == "quality" else {}),
        }
        for what, timing in taken.items()
    ]
    publish("python_api", COLUMNS, rows, f"A folder of {count:,} images measured from Python")
    if differ:
        raise SystemExit(f"not as the assets have it: {', '.join(differ)}")


if __name__ == "__main__":
    main()
