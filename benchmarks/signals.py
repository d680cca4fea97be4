"""How well each signal tells right captions from those that were planted: AUC, and a mix beside the best single one.

    python -m benchmarks.signals [--seeds 901 902] [--rows 4000]        # some minutes for each seed

- **The sample**: right captions against others of each kind, on images that show their photo whole, by the embedded
  scorer. The seeds are those of the random batches.
- **Made worlds**, one for each seed: right captions against others of each kind. Two small CLIPs are trained for each,
  on other worlds: ``clean`` on true captions, which is in the place of a DFN, and ``noisy`` on captions as they were
  found. The targets of normsim are pictures of each thing alone.

The published weights of M-FLYT are taken as they are, and the equal ones have been chosen by nobody: nothing here was
tuned. A sample without a score counts as the lowest.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.common import data_folder, publish
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters.pool_scores import PoolRows
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.ingest.planted import auc
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings
from dqe_resources.sources.sample_images import NEAR_COPIES
from dqe_resources.sources.world import WorldSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WHOLE = ("original", "exact_copy", *sorted(NEAR_COPIES))
CONCEPTS = 149
"""All that can be drawn: so models of other worlds know the same things."""
CLEAN_SEED, NOISY_SEED, TARGETS_SEED = 1_000_000, 2_000_000, 3_000_000
"""Added to the seed: neither a pair that a model was trained on nor a target is of the pool."""
TARGETS_EACH = 4
SCALE = {
    "model": {
        "embed_dim": 64,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    },
    "batch_size": 256,
    "learning_rate": 3e-3,
    "warmup": 20,
    "weight_decay": 0.1,
    "checkpoints": 1,
}
"""The trainings of ``dqe study``."""

OF_SAMPLE = {
    "similarity": "similarity",
    "s_clip_loss": "s_clip_loss(seed={seed})",
    "normsim_d": "normsim_d(seed={seed})",
    "quality (prompt axis)": "quality",
    "mix, equal weights": "mix({{similarity: 1, s_clip_loss(seed={seed}): 1, normsim_d(seed={seed}): 1, quality: 1}})",
}
OF_WORLD = {
    "clean (as DFN)": "similarity",
    "noisy": "noisy",
    "label_space": "label_space",
    "s_clip_loss, clean": "s_clip_loss",
    "s_clip_loss, noisy": "s_clip_loss(noisy)",
    "normsim": "normsim(task)",
    "normsim_d": "normsim_d",
    "mix, M-FLYT's weights": "mix({{similarity: 0.80, normsim(task): 0.55, s_clip_loss: 0.51, noisy: 0.21}})",
    "mix, equal weights": "mix({{similarity: 1, s_clip_loss: 1, noisy: 1, s_clip_loss(noisy): 1}})",
}


def make(settings: Settings, wanted: Sequence[str]) -> StorePool:
    """Make these assets, and all that they read; returns the pool."""
    source = settings.sources[0]
    shards = [source.key(shard.index) for shard in source.shards()]
    stages = graph.stages(settings)
    due = {*wanted}
    for stage in reversed(stages):
        if stage.name in due:
            due.update((*stage.inputs, *stage.unpartitioned_inputs))
    runs = settings.training.keys
    for stage in stages:
        if stage.name in due:
            arguments = stage.arguments(graph.resources(settings))
            for key in shards if stage.partitioned else runs if stage.of_runs else [None]:
                stage.make(stage.work(settings.opened_store, key, shards, runs=runs), arguments)
    return StorePool(settings.opened_store, tuple(shards), signals=graph.signals(settings))


def scores_of(pool: StorePool, signals: Mapping[str, str], seed: int) -> dict[str, np.ndarray]:
    """Each signal of all samples of the pool, by its name: float64 [n], the lowest where there is none."""
    rows, found = PoolRows([pool]), {}
    for name, text in signals.items():
        (leaf,) = parse(f"score_top(1.0, score={text.format(seed=seed)})").leaves
        score = leaf.score  # type: ignore[attr-defined]
        values = rows.numbers(score) if isinstance(score, str) else score.of(rows)[0]
        found[name] = np.where(np.isfinite(values), values, np.nanmin(values) - 1)
    return found


def truth_of(pool: StorePool) -> tuple[np.ndarray, np.ndarray]:
    """The kinds of image and of caption that were planted, of all samples of the pool: texts [n]."""
    tables = [part.table("raw_samples", ["truth"]).filter(part.has_image) for part in pool.parts]
    truth = pa.concat_tables(tables)["truth"].combine_chunks()
    images, captions = (pc.struct_field(truth, name).to_numpy(zero_copy_only=False) for name in ("image", "caption"))
    return images.astype(str), captions.astype(str)


def figures(
    pool: str, seed: int, scores: Mapping[str, np.ndarray], captions: np.ndarray, judged: np.ndarray
) -> list[dict[str, Any]]:
    """For each signal, the chance that a right caption has a higher score than one of each kind.

    Args:
        pool: what to call it.
        seed: of it.
        scores: [n], by the signal.
        captions: kind of each caption [n]; those in other languages are one kind.
        judged: the samples that count [n].
    """
    kinds = np.where(np.char.startswith(captions, "language"), "language", captions)
    right = judged & (kinds == "right")
    rows = []
    for signal, values in scores.items():
        row: dict[str, Any] = {"pool": pool, "seed": seed, "signal": signal}
        for kind in ("other_photo", "partial", "generic", "file_name", "one_word", "markup", "language", "all"):
            wrong = judged & (~right if kind == "all" else kinds == kind)
            if wrong.any():
                row[kind] = auc(values[right | wrong], right[right | wrong])
        rows.append(row)
    return rows


def of_sample(seed: int) -> list[dict[str, Any]]:
    """The figures of the embedded sample."""
    scorers = [{"kind": "prompt_axis", "name": "quality", "axis": "quality"}]
    settings = Settings.model_validate({"sources": [{"kind": "sample"}], "scorers": scorers})
    pool = make(settings, ["joint_embeddings", "caption_scores", "scores/quality"])
    images, captions = truth_of(pool)
    return figures("sample", seed, scores_of(pool, OF_SAMPLE, seed), captions, np.isin(images, WHOLE))


def train(folder: Path, name: str, source: WorldSource, samples_seen: int, *, true: bool) -> dict[str, Any]:
    """Train a small CLIP on a world, in a data folder of its own; returns it as a scorer.

    Args:
        folder: the data folder of what it is for.
        name: of its own folder there.
        source: the world.
        samples_seen: repetitions counted.
        true: whether it is trained on true captions, or on those that were found.
    """
    own = folder / name
    own.mkdir()
    (own / "cache").symlink_to((folder / "cache").resolve())
    settings: dict[str, Any] = {
        "sources": [{"kind": source.kind, **source.model_dump(mode="json", exclude_unset=True)}],
        "image_text": None,
        "training": {
            "scales": {"toy": {**SCALE, "samples_seen": samples_seen}},
            "runs": [{"subsets": ["all"], "scale": "toy", "captions": "true" if true else ORIGINAL, "label": name}],
        },
    }
    os.environ["DQE_DATA"] = str(own)
    if true:
        scenes = map(source.world.scene, range(source.rows_made))
        rows = (f"{scene.number:08d}.png\t{source.world.true_caption(scene)}\n" for scene in scenes)
        (own / "true.tsv").write_text("image_name\tcaption\n" + "".join(rows), encoding="utf-8")
        settings["captioners"] = [{"kind": "table", "name": "true", "path": "true.tsv", "key": "image_name"}]
    parsed = Settings.model_validate(settings)
    make(parsed, ["training_run"])
    (run,) = parsed.training.keys
    os.environ["DQE_DATA"] = str(folder)
    made = f"{name}/training/{run}"
    weights = f"{made}/checkpoints/epoch_1.pt"
    return {"kind": "open_clip", "architecture": f"{made}/{run}.json", "weights": weights, "batch_size": 256}


def of_world(folder: Path, seed: int, rows: int, samples_seen: int) -> list[dict[str, Any]]:
    """The figures of the world of a seed."""

    def world(apart: int, **more: Any) -> WorldSource:
        return WorldSource(name="web", rows_made=rows, seed=apart + seed, concepts=CONCEPTS, shard_size=rows, **more)

    folder = folder / str(seed)
    folder.mkdir()
    (folder / "cache").symlink_to((folder.parent / "cache").resolve())
    clean = train(folder, "clean", world(CLEAN_SEED, zipf=0.0, near_copies=0.0), samples_seen, true=True)
    noisy = train(folder, "noisy", world(NOISY_SEED), samples_seen, true=False)
    targets, other = folder / "targets_of_task", world(TARGETS_SEED).world
    targets.mkdir()
    for concept in range(CONCEPTS):
        for number in range(TARGETS_EACH):
            other.image(other.single(concept, number)).save(targets / f"{concept}-{number}.png")
    source = world(0)
    settings = Settings.model_validate(
        {
            "sources": [{"kind": source.kind, **source.model_dump(mode="json", exclude_unset=True)}],
            "scorer": clean,
            "scorers": [{**noisy, "name": "noisy"}, {"kind": "label_space", "name": "label_space"}],
            "targets": [{"name": "task", "images": targets.name}],
        }
    )
    wanted = ["joint_embeddings", "caption_scores", "scores/noisy", "scores/label_space", "targets/task"]
    pool = make(settings, wanted)
    _, captions = truth_of(pool)
    return figures("world", seed, scores_of(pool, OF_WORLD, seed), captions, np.ones(len(captions), bool))


def means(rows: Sequence[Mapping[str, Any]], pool: str) -> list[dict[str, Any]]:
    """The mean over the seeds of each signal's figures."""
    found = []
    for signal in dict.fromkeys(row["signal"] for row in rows if row["pool"] == pool):
        own = [row for row in rows if row["pool"] == pool and row["signal"] == signal]
        kinds = [kind for kind in own[0] if kind not in {"pool", "seed", "signal"}]
        found.append({"signal": signal, **{kind: float(np.mean([row[kind] for row in own])) for kind in kinds}})
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[901, 902])
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--samples-seen", type=int, default=40_960)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with data_folder() as folder:
        for seed in options.seeds:
            rows += of_sample(seed)
        for seed in options.seeds:
            rows += of_world(folder, seed, options.rows, options.samples_seen)
    publish("signals", list(rows[0]), rows, "Signals of each seed", show=False)
    for pool in ("sample", "world"):
        found = means(rows, pool)
        title = f"AUC of right captions against those of each kind, {pool}, mean of {len(options.seeds)} seeds"
        publish("signals", list(found[0]), found, title, keep=False)


if __name__ == "__main__":
    main()
