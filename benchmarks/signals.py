"""How well each signal tells right captions from those that were planted: AUC, and a mix beside the best single one.

    python -m benchmarks.signals [--seeds 901 902 903] [--rows 4000]        # some minutes for each seed

- **The sample**: right captions against others of each kind, on images that show their photo whole, by the embedded
  scorer. The seeds are those of the random batches.
- **Made worlds**, one for each seed: right captions against others of each kind. Two small CLIPs are trained for each,
  on other worlds: ``clean`` on true captions, which is in the place of a DFN, and ``noisy`` on captions as they were
  found. The targets of normsim are the images of the study's task.

The published weights of M-FLYT are taken as they are, and the equal ones have been chosen by nobody: nothing here was
tuned. A sample without a score counts as the lowest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
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
from dqe_assets.study import worker
from dqe_assets.study.files import write_seed
from dqe_assets.study.plan import CONCEPTS, SCORER, TASK, Size, Study
from dqe_resources.sources.sample_images import NEAR_COPIES
from dqe_resources.sources.world import WorldSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WHOLE = ("original", "exact_copy", *sorted(NEAR_COPIES))
NOISY = "noisy"
NOISY_SEED = 3_000_000
"""Added to the seed: the world of the noisy model is another one."""

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
    for stage in stages:
        if stage.name in due:
            arguments = stage.arguments(graph.resources(settings))
            for shard in shards if stage.partitioned else [None]:
                stage.make(stage.work(settings.opened_store, shard, shards), arguments)
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


def train(folder: Path) -> None:
    """Train the scorer that the dqe.yaml of a folder describes."""
    environment = {"DQE_DATA": str(folder), "DAGSTER_HOME": str(folder / "dagster_home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dqe_assets.study.worker", str(os.getpid()), worker.SCORER]
    subprocess.run(command, env={**os.environ, **environment}, check=True)  # noqa: S603 - ourselves


def write_noisy(study: Study, seed: int) -> None:
    """The folder of the scorer that is trained on captions as they were found."""
    import yaml

    rows = study.size.scorer_rows
    source = WorldSource(rows_made=rows, seed=NOISY_SEED + seed, concepts=CONCEPTS, shard_size=rows)
    settings = study.scorer_settings(seed)
    settings["sources"] = [{"kind": source.kind, **source.model_dump(mode="json", exclude_unset=True)}]
    settings["captioners"] = []
    settings["training"]["runs"][0]["captions"] = ORIGINAL
    folder = study.seed_folder(seed) / NOISY
    folder.mkdir(exist_ok=True)
    (folder / "cache").symlink_to(study.folder / "cache")
    (folder / "dqe.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def of_world(folder: Path, seed: int, size: Size) -> list[dict[str, Any]]:
    """The figures of the world of a seed."""
    study = Study(folder, size, (seed,), ())
    write_seed(study, seed)
    write_noisy(study, seed)
    run = f"{SCORER}-{SCORER}-{seed}"
    for model in (SCORER, NOISY):
        train(study.seed_folder(seed) / model)
    os.environ["DQE_DATA"] = str(study.seed_folder(seed))

    def clip(of: str) -> dict[str, Any]:
        made = f"{of}/training/{run}"
        weights = f"{made}/checkpoints/epoch_1.pt"
        return {"kind": "open_clip", "architecture": f"{made}/{run}.json", "weights": weights, "batch_size": 256}

    settings = Settings.model_validate(
        {
            "sources": [{"kind": "world", **study.web(seed).model_dump(mode="json", exclude_unset=True)}],
            "scorer": clip(SCORER),
            "scorers": [{**clip(NOISY), "name": NOISY}, {"kind": "label_space", "name": "label_space"}],
            "targets": [{"name": "task", "task": TASK}],
            "evaluation": {"tasks": [{"path": f"tasks/{TASK}"}]},
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[901, 902, 903])
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--samples-seen", type=int, default=81_920)
    options = parser.parse_args()
    size = Size(options.rows, 0, options.rows, options.samples_seen, 256, 4)
    rows: list[dict[str, Any]] = []
    with data_folder() as folder:
        for seed in options.seeds:
            rows += of_sample(seed)
        for seed in options.seeds:
            rows += of_world(folder, seed, size)
    publish("signals", list(rows[0]), rows, "Signals of each seed", show=False)
    for pool in ("sample", "world"):
        found = means(rows, pool)
        title = f"AUC of right captions against those of each kind, {pool}, mean of {len(options.seeds)} seeds"
        publish("signals", list(found[0]), found, title, keep=False)


if __name__ == "__main__":
    main()
