"""How well each stage finds what was planted in the embedded sample: precision, recall and AUC.

    python -m benchmarks.planted

Makes the sample's assets in a folder of its own, and draws docs/images/duplicate_thresholds.png.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import data_folder, publish
from dqe_assets.dedup.plots import duplicate_thresholds
from dqe_assets.ingest.planted import pair_similarity, planted_figures, text_figures
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "duplicate_thresholds.png"
COSINES = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
DISTANCES = (4, 6, 8, 10, 12, 14, 16)


def make(settings: Settings) -> tuple[list[str], dict[str, pa.Schema]]:
    """Make every asset that is measured; returns the shards, and the schema of each asset that is a table."""
    source = settings.sources[0]
    shards = [source.key(shard.index) for shard in source.shards()]
    measured = {"raw_samples", "image_features", "joint_embeddings", "caption_scores"}
    measured |= {"duplicate_pairs", "duplicate_clusters", "image_text", "masked_similarity"}
    stages = graph.stages(settings)
    for stage in stages:
        if stage.name in measured:
            arguments = stage.arguments(graph.resources(settings))
            for shard in shards if stage.partitioned else [None]:
                stage.make(stage.work(settings.opened_store, shard, shards), arguments)
    return shards, {stage.name: stage.schema for stage in stages if stage.schema is not None}


def main() -> None:
    """Print the figures."""
    with data_folder():
        settings = Settings.model_validate({"sources": [{"kind": "sample"}]})
        shards, schemas = make(settings)
        store = settings.opened_store

        def table(asset: str, columns: list[str] | None = None) -> pa.Table:
            return pa.concat_tables(store.read(asset, shard, schemas[asset], columns) for shard in shards)

        raw = table("raw_samples", ["uid", "status", "reason", "width", "height", "truth"])
        features = table("image_features", ["uid", "embedding", "perceptual_hash"])
        clusters = store.read("duplicate_clusters", None, schemas["duplicate_clusters"])
        figures = planted_figures(raw, features, table("caption_scores"), clusters)
        text = text_figures(raw, table("image_text", ["uid", "text_area"]), table("masked_similarity"))
        figures = pa.concat_tables([figures, text])
        pairs = pair_similarity(raw, features)
        rules = settings.duplicates
        PICTURE.write_bytes(duplicate_thresholds(pairs, rules.min_cosine, rules.max_distance))
    publish("planted", figures.column_names, figures.to_pylist(), "What each stage finds of what was planted")
    publish(
        "planted_thresholds", ["rule", "recall", "false_pairs", "of"], thresholds(pairs), "Thresholds of duplicates"
    )


def thresholds(pairs: pa.Table) -> list[dict[str, float | int | str]]:
    """For each threshold, the share of pairs of one photo within it, and how many pairs of two photos are too."""
    same = pairs["same_photo"].to_numpy()
    cosine, distance = pairs["cosine"].to_numpy(), pairs["distance"].to_numpy()
    rules = {f"cosine at least {least:g}": cosine >= least for least in COSINES}
    rules |= {f"hashes within {most} bits": distance <= most for most in DISTANCES}
    return [
        {
            "rule": rule,
            "recall": float(within[same].mean()),
            "false_pairs": int(np.count_nonzero(within & ~same)),
            "of": int(np.count_nonzero(~same)),
        }
        for rule, within in rules.items()
    ]


if __name__ == "__main__":
    main()
