"""What codebooks say of images: how their codes are used, captions written from them, clusters against the truth.

On the embedded sample's photos and on the made world, where what an image shows is known.

python benchmarks/compression_quality.py [--world 2000] [--side 96]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import data_folder, publish
from dqe_assets.compression.caption_codebook import train_codebook
from dqe_assets.compression.codebook import Codebook, health, k_means_codebook
from dqe_assets.compression.selection import cluster_codes
from dqe_assets.compression.settings import CaptionerCodebook
from dqe_resources.models.image_towers import EfficientNetTower
from dqe_resources.sources.sample import SampleSource
from dqe_resources.sources.world import WorldSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dqe_resources.sources.protocol import Source
    from dqe_resources.sources.rows import SourceRow

COLUMNS = (
    *("data", "images", "codebook", "tower", "codes", "perplexity", "loss", "unigram", "without_image"),
    *("clusters", "purity", "purity_random", "seconds"),
)


def largest_concept(source: WorldSource) -> Callable[[SourceRow], str]:
    """What gives the concept of the largest object of a row's scene."""
    world = source.world

    def of(row: SourceRow) -> str:
        scene = world.scene(int(row.truth.photo)) if row.truth and row.truth.photo else None
        return str(max(scene.objects, key=lambda one: one.size).concept) if scene else ""

    return of


def described(
    source: Source, concept: Callable[[SourceRow], str], tower: EfficientNetTower
) -> tuple[NDArray[np.float16], list[str], list[str]]:
    """Tokens [n, tokens, d], captions and concepts of the rows whose image can be read and that have a caption."""
    rows = [row for shard in source.shards() for row in source.rows(shard.index)]
    rows = [row for row in rows if isinstance(row.image, bytes) and row.caption]
    tokens = np.concatenate(list(tower.token_batches(row.image for row in rows if isinstance(row.image, bytes))))
    read = np.flatnonzero(np.isfinite(tokens[:, 0, 0]))
    kept = [rows[place] for place in read]
    return tokens[read].astype(np.float16), [row.caption or "" for row in kept], [concept(row) for row in kept]


def purity(labels: NDArray[np.integer], concepts: Sequence[str]) -> float:
    """The share of samples whose concept is the most frequent one of their cluster."""
    counted: dict[int, Counter[str]] = {}
    for label, concept in zip(labels.tolist(), concepts, strict=True):
        counted.setdefault(label, Counter())[concept] += 1
    return sum(max(one.values()) for one in counted.values()) / len(concepts)


def clustered(book: Codebook, tokens: NDArray[np.float16], concepts: Sequence[str], clusters: int) -> dict[str, Any]:
    """How codes are used, and how pure their clusters are, next to clusters of the same sizes drawn at random."""
    codes = book.nearest(tokens)
    labels = cluster_codes(codes, len(book.vectors), clusters)
    random = np.random.default_rng(0)
    return {
        **health(np.bincount(codes.ravel(), minlength=len(book.vectors))),
        "clusters": clusters,
        "purity": purity(labels, concepts),
        "purity_random": float(np.mean([purity(random.permutation(labels), concepts) for _ in range(5)])),
    }


def measured(
    name: str, tokens: NDArray[np.float16], captions: list[str], concepts: list[str], *, codes: int, clusters: int
) -> list[dict[str, Any]]:
    """A row for k-means of tokens, and one for a captioner."""
    rows = []
    before = time.process_time()
    found = clustered(k_means_codebook(tokens, codes, 0), tokens, concepts, clusters)
    rows.append({"codebook": "kmeans", "seconds": time.process_time() - before, **found})
    before = time.process_time()
    settings = CaptionerCodebook(codes=codes, draw=len(captions), batch_size=64)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_codebook(tokens, captions, settings, Path(folder), "1")
        seconds = time.process_time() - before
        # The same decoder that sees another image: what it knows of captions alone.
        others = np.random.default_rng(1).permutation(len(tokens))
        blind = train_codebook(tokens[others], captions, settings, Path(folder), "blind")
    losses = {
        "loss": min(one.held_out_loss for one in trained.epochs),
        "unigram": trained.unigram_loss,
        "without_image": min(one.held_out_loss for one in blind.epochs),
    }
    found = clustered(trained.codebook, tokens, concepts, clusters)
    rows.append({"codebook": "captioner", "seconds": seconds, **losses, **found})
    return [{"data": name, "images": len(captions), "tower": "frozen", **row} for row in rows]


def main() -> None:
    """Print a table, and append its rows to results/compression_quality.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", type=int, default=2_000, help="rows of the world")
    parser.add_argument("--side", type=int, default=96, help="pixels that the tower sees")
    options = parser.parse_args()
    tower = EfficientNetTower(side=options.side)
    world = WorldSource(rows_made=options.world, shard_size=500, side=64)
    with data_folder():
        rows = measured("sample", *described(SampleSource(), _photo, tower), codes=64, clusters=24)
        rows += measured("world", *described(world, largest_concept(world), tower), codes=256, clusters=120)
    publish("compression_quality", COLUMNS, rows, "Codebooks: use of the codes, captions in nats a token, clusters")


def _photo(row: SourceRow) -> str:
    return (row.truth.photo or "") if row.truth else ""


if __name__ == "__main__":
    main()
