"""How large a study is, and the two dqe.yaml of each seed: the scorer's, and that of all else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.study.findings import FINDINGS, TRUE, Arm, Finding, arms_of
from dqe_resources.errors import DataQualityError, UsageError
from dqe_resources.sources.world import WorldSource

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

SCORER = "scorer"
"""Folder, in that of a seed, in which its scorer is trained; and the name of the scale."""

SCALE = "study"
TASK = "objects"
WEB = "web"
TRUTH = "truth.csv"

CONCEPTS = 149
"""All that can be drawn: so a scorer, whose world has another seed, knows the same things."""

SCORER_SEED = 1_000_000
TASK_SEED = 2_000_000
"""Added to the seed: neither a pair of the scorer's nor an image of the task is of the pool that is filtered."""

_MINUTES_A_SEED = 5.0

_MODEL = {
    "embed_dim": 64,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


class StudyError(DataQualityError):
    """A study cannot be finished; says what failed, why, and what to do or where more stands."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is made for each seed.

    Attributes:
        rows: of the pool.
        samples_seen: by each model, repetitions counted.
        scorer_rows: pairs that the scorer is trained on.
        scorer_samples_seen: by the scorer.
        batch_size: of all trainings.
        images: of each concept to evaluate on.
    """

    rows: int
    samples_seen: int
    scorer_rows: int
    scorer_samples_seen: int
    batch_size: int
    images: int

    @classmethod
    def of(cls, minutes: float, seeds: int) -> Size:
        """What all findings with so many seeds take so many minutes for, on two quiet cores."""
        share = minutes / seeds / _MINUTES_A_SEED

        def scaled(number: int, least: int) -> int:
            return max(least, round(number * share))

        return cls(
            rows=scaled(10_000, 200),
            samples_seen=scaled(40_960, 640),
            scorer_rows=scaled(8_000, 200),
            scorer_samples_seen=scaled(81_920, 640),
            batch_size=256 if share >= 0.5 else 64,
            images=scaled(20, 1),
        )


@dataclass(frozen=True, slots=True)
class Study:
    """What is studied.

    Attributes:
        folder: where everything is made.
        size: how much.
        seeds: each is a world, with models of its own.
        findings: in the order of the page.
    """

    folder: Path
    size: Size
    seeds: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What one model of each seed is trained on, each."""
        return arms_of(self.findings)

    def seed_folder(self, seed: int) -> Path:
        """The data folder of a seed."""
        return self.folder / f"seed-{seed}"

    def scorer_folder(self, seed: int) -> Path:
        """The data folder in which its scorer is trained."""
        return self.seed_folder(seed) / SCORER

    def web(self, seed: int) -> WorldSource:
        """The pool of a seed."""
        rows = self.size.rows
        return WorldSource(name=WEB, rows_made=rows, seed=seed, concepts=CONCEPTS, shard_size=_shard_size(rows))

    def pairs(self, seed: int) -> WorldSource:
        """What its scorer is trained on: another world, in which all things are alike frequent."""
        rows = self.size.scorer_rows
        return WorldSource(
            name="pairs",
            rows_made=rows,
            seed=SCORER_SEED + seed,
            concepts=CONCEPTS,
            zipf=0.0,
            near_copies=0.0,
            shard_size=_shard_size(rows),
        )

    def scorer_settings(self, seed: int) -> dict[str, Any]:
        """The dqe.yaml of a scorer: pairs with their true captions, and one training."""
        return {
            "sources": [_written(self.pairs(seed))],
            "captioners": [_true_captions()],
            "filters": {},
            "subsets": [],
            "image_text": None,
            "training": {
                "scales": {SCORER: self._scale(self.size.scorer_samples_seen)},
                "runs": [{"subsets": ["all"], "scale": SCORER, "seeds": [seed], "captions": TRUE, "label": SCORER}],
            },
        }

    def settings(self, seed: int, names: Collection[str]) -> dict[str, Any]:
        """The dqe.yaml of a seed: the pool, its scorer, the subsets, the trainings and the task.

        Args:
            seed: which.
            names: of the concepts.
        """
        run = f"{SCORER}-{SCORER}-{seed}"
        made = f"{SCORER}/training/{run}"
        return {
            "sources": [_written(self.web(seed))],
            "captioners": [_true_captions()],
            "scorer": {
                "kind": "open_clip",
                "architecture": f"{made}/{run}.json",
                "weights": f"{made}/checkpoints/epoch_1.pt",
                "batch_size": 256,
            },
            "image_text": None,
            # A codebook of tokens of 96 pixels: pictures of 32 have no more to show.
            "compression": {
                "tower": {"kind": "efficientnet_lite0", "side": 96},
                "codebook": {"kind": "kmeans", "codes": 256, "seed": seed},
                "clustering": {"seed": seed},
            },
            "filters": {},
            "subsets": [{"name": arm.name, "expression": arm.expression} for arm in self.arms if arm.expression],
            "concepts": {"vocabulary": [], "names": list(names)},
            "training": {
                "scales": {SCALE: self._scale(self.size.samples_seen)},
                "runs": [
                    {"subsets": [arm.subset], "scale": SCALE, "seeds": [seed], "captions": arm.captions}
                    for arm in self.arms
                ],
            },
            "evaluation": {"tasks": [{"path": f"tasks/{TASK}"}], "batch_size": 256},
        }

    def _scale(self, samples_seen: int) -> dict[str, Any]:
        return {
            "model": _MODEL,
            "samples_seen": samples_seen,
            "batch_size": self.size.batch_size,
            "learning_rate": 3e-3,
            "warmup": 20,
            "weight_decay": 0.1,
            "checkpoints": 1,
        }


def chosen(numbers: str | None) -> tuple[Finding, ...]:
    """The findings of a list such as ``2,3``; all by default.

    Raises:
        UsageError: there is no such finding.
    """
    if numbers is None:
        return FINDINGS
    asked = {one.strip() for one in numbers.split(",")}
    unknown = sorted(asked - {str(finding.number) for finding in FINDINGS})
    if unknown:
        there = ", ".join(f"{finding.number} ({finding.name})" for finding in FINDINGS)
        raise UsageError(f"--findings: there is no finding {unknown[0]!r}; there are: {there}")
    return tuple(finding for finding in FINDINGS if str(finding.number) in asked)


def run_key(arm: Arm, seed: int) -> str:
    """The partition of the asset ``training_run`` of an arm."""
    return f"{arm.data}-{SCALE}-{seed}"


def _true_captions() -> dict[str, Any]:
    return {"kind": "table", "name": TRUE, "path": TRUTH, "key": "image_name"}


def _written(source: WorldSource) -> dict[str, Any]:
    return {"kind": source.kind, **source.model_dump(mode="json", exclude_unset=True)}


def _shard_size(rows: int) -> int:
    return max(1, -(-rows // 2))
