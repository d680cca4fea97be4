"""Scoring a shard with open_clip, from JPEG files to scores, next to the bare model over tensors that are ready.

    python -m benchmarks.scoring [--images 256] [--repetitions 3] [--precision fp32 --precision bf16]

- chain: ``joint_embeddings`` and ``caption_scores`` of a shard of the store: images read, decoded and transformed,
  captions of two sources tokenised, all embedded and scored. Nothing is left out but the writing.
- loop: the same model over pixels and tokens that lie in memory, as one usually writes it: batches of 32, each on all
  cores, texts padded to the context of 77 tokens.
- images only, chain and loop: the same without the captions, where the loop pads nothing.

The model is ViT-B-32 with random weights, which take as long as any. The images are the sample's photos as JPEG, at
most 640 pixels a side, with their captions (original) and those of the captioner labels. Repetitions alternate;
figures are medians. CPU seconds are of all threads: where other processes share the machine, trust them.
"""

from __future__ import annotations

import time
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from PIL import Image

from benchmarks.common import data_folder, publish
from dqe_assets.core.schema import IMAGE_TYPE
from dqe_assets.score.alignment import ROWS_AT_ONCE, caption_scores, joint_embeddings
from dqe_resources.models.open_clip_loading import import_open_clip
from dqe_resources.scorers.open_clip import OpenClipScorer
from dqe_resources.sources.sample_images import BROKEN, sample_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dqe_resources.models.open_clip_network import OpenClipNetwork

MODEL, BATCH = "ViT-B-32", 32
SYNTHETIC = (
    "A photo of {}. It is a bright picture with warm colours, and most of what there is to see is in the middle."
)


def random_weights(path: Path) -> None:
    """A checkpoint of the model with random weights."""
    import_open_clip()
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(MODEL).state_dict(), path)


def write_shard(path: Path, images: int) -> dict[str, pa.Array]:
    """A Parquet file of JPEG files; returns the captions of each source."""
    planted = [row for row in sample_rows() if row.truth and row.truth.image not in BROKEN]
    chosen = list(islice(cycle([row for row in planted if isinstance(row.image, bytes) and row.caption]), images))
    files = [{"bytes": row.image, "path": None} for row in chosen]
    pq.write_table(pa.table({"image": pa.array(files, IMAGE_TYPE)}), path, row_group_size=ROWS_AT_ONCE)
    original = [row.caption for row in chosen]
    return {"original": pa.array(original), "labels": pa.array([SYNTHETIC.format(caption) for caption in original])}


def chain(path: Path, captions: dict[str, pa.Array], scorer: OpenClipScorer) -> pa.Table:
    """Score the shard as the stages do."""
    with pq.ParquetFile(path) as file:
        total = file.metadata.num_rows
        uids = pa.chunked_array([[f"{row:032x}" for row in range(total)]])
        batches = file.iter_batches(ROWS_AT_ONCE, columns=["image"])
        embeddings = joint_embeddings(uids, batches, np.ones(total, bool), captions, scorer)
    return caption_scores(embeddings, list(captions)) if captions else embeddings


def prepared(path: Path, captions: dict[str, pa.Array], network: OpenClipNetwork) -> tuple[Any, Any]:
    """Pixels and tokens of the shard, as tensors."""
    import io

    import torch

    files = pq.read_table(path)["image"].to_pylist()
    pixels = torch.stack([network.preprocess(Image.open(io.BytesIO(file["bytes"]))) for file in files])
    return pixels, network.tokenizer([text for texts in captions.values() for text in texts.to_pylist()])


def loop(module: Any, pixels: Any, tokens: Any, dtype: Any) -> None:
    """The bare model; no tokens for images only."""
    import torch

    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            module.encode_image(pixels[start : start + BATCH].to(dtype), normalize=True)
        for start in range(0, len(tokens), BATCH):
            module.encode_text(tokens[start : start + BATCH], normalize=True)


def measured(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one pass."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(folder: Path, images: int, repetitions: int, precision: str) -> list[dict[str, Any]]:
    """Chain and loop in alternating repetitions, the first of which warms up."""
    import torch

    scorer = OpenClipScorer(
        architecture=MODEL, weights=str(folder / "random.pt"), precision=precision, device="cpu", batch_size=BATCH
    )
    captions = write_shard(folder / "shard.parquet", images)
    network = scorer.load()
    pixels, tokens = prepared(folder / "shard.parquet", captions, network)
    usual = import_open_clip().create_model(
        MODEL, pretrained=str(folder / "random.pt"), precision=precision, device="cpu"
    )
    usual.eval()
    shard = folder / "shard.parquet"
    ways: dict[str, Callable[[], object]] = {
        "loop": lambda: loop(usual, pixels, tokens, network.dtype),
        "chain": lambda: chain(shard, captions, scorer),
        "loop, images only": lambda: loop(usual, pixels, tokens[:0], network.dtype),
        "chain, images only": lambda: chain(shard, {}, scorer),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repetitions + 1):
        for name, way in ways.items():
            times[name].append(measured(way))
    wall = {name: median(one[0] for one in found[1:]) for name, found in times.items()}
    cpu = {name: median(one[1] for one in found[1:]) for name, found in times.items()}
    return [
        {
            "way": name,
            "precision": precision,
            "images_per_second": images / wall[name],
            "to_the_loop": wall[name.replace("chain", "loop")] / wall[name],
            "cpu_ms_per_image": 1000 * cpu[name] / images,
            "to_the_loop_by_cpu": cpu[name.replace("chain", "loop")] / cpu[name],
            "images": images,
            "captions_per_image": 0 if "only" in name else len(captions),
            "torch": torch.__version__,
        }
        for name in ways
    ]


def main(
    images: Annotated[int, typer.Option(help="Images of the shard.")] = 256,
    repetitions: Annotated[int, typer.Option(help="After one that warms up.")] = 3,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; may be repeated.")] = None,
) -> None:
    """Measure and publish."""
    with data_folder() as folder:
        random_weights(folder / "random.pt")
        rows = [row for each in precision or ["fp32", "bf16"] for row in compare(folder, images, repetitions, each)]
    columns = ["way", "precision", "images_per_second", "to_the_loop", "cpu_ms_per_image", "to_the_loop_by_cpu"]
    publish("scoring", columns, rows, f"{MODEL}, {images:,} images with {rows[0]['captions_per_image']} captions each")


if __name__ == "__main__":
    typer.run(main)
