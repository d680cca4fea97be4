"""How large a study is, and the dqe.yaml of each of a seed's data folders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.study.findings import (
    BASE_AND_ANY,
    BASE_AND_RARE,
    DISTILLED,
    FINDINGS,
    MIXED,
    RIGHT,
    SYNTHETIC,
    TRUE,
    Addition,
    Arm,
    Finding,
    Law,
    arms_of,
)
from dqe_assets.training.settings import BEST
from dqe_resources.errors import DataQualityError, UsageError
from dqe_resources.sources.world import WorldSource

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

SCORER, CAPTIONER, SECOND, ADDED, CLEAN = "scorer", "captioner", "second", "added", "clean"
"""Data folders in that of a seed: two of models that are trained on other pairs, that of the second pool, that of a
part of the pool to which samples of the second are added, and that of a pool whose captions are mostly right. Of the
first two also the names of the scales."""

SCALE, CURVE, WARM = "study", "curve", "warm"
TASK, PAIRS = "objects", "pairs"
WEB, BASE = "web", "base"
TRUTH = "truth.csv"

LOSS = f"{CURVE}: {PAIRS} contrastive_loss"
"""What the law is fitted to: see ``training_curves``."""

CONCEPTS = 149
"""All that can be drawn: so a scorer, whose world has another seed, knows the same things."""

SCORER_SEED, TASK_SEED, CAPTIONER_SEED, SECOND_SEED, CLEAN_SEED = (n * 1_000_000 for n in (1, 2, 3, 4, 5))
"""Added to the seed: the pool that is filtered, what the scorer and the captioner learn from, what is evaluated on, the
second pool, and the parts of the clean one (the last number is that of the first part) have no scene in common."""

FITTED, CURVES = "law", "curves.csv"
"""The data folder of a study in which the law is fitted to the curves of all seeds together, and these."""

_SETTLED = 4
"""From this point on the law is fitted to what is trained on the clean parts. Before that all of them fall alike."""

RAREST = CONCEPTS // 10
"""How many concepts samples are added of."""

POINTS = 6
CLEAN_POINTS = 12
"""Checkpoints of a training that is followed, of which the last is at the end of a falling learning rate; of one on the
clean pool."""

_SYNTHETIC = frozenset({SYNTHETIC, BEST, MIXED})
"""Captions that the captioner's are among."""

_MINUTES_A_SEED = 10
_SHARD_SIZE = 10_000

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
        scorer_rows: pairs that the scorer is trained on, and as many others that the captioner is.
        scorer_samples_seen: by each of these two.
        warm_samples_seen: of the scorer's pairs, as found, by the model that those whose loss is followed start from.
        curve_samples_seen: by each of these, after that.
        clean_rows: of each part of the clean pool.
        clean_samples_seen: by each model of these, after the same start.
        second_rows: of the second pool.
        added: samples of each of the rarest concepts that are added from it.
        batch_size: of all trainings.
        images: of each concept to evaluate on.
        pairs: that are held out.
    """

    rows: int
    samples_seen: int
    scorer_rows: int
    scorer_samples_seen: int
    warm_samples_seen: int
    curve_samples_seen: int
    clean_rows: int
    clean_samples_seen: int
    second_rows: int
    added: int
    batch_size: int
    images: int
    pairs: int

    @classmethod
    def of(cls, minutes: float, seeds: int) -> Size:
        """What all findings with so many seeds were reckoned to take so many minutes for, about, on two fast cores."""
        share = minutes / seeds / _MINUTES_A_SEED
        batch = 128 if share >= 0.5 else 64

        def scaled(number: int, least: int) -> int:
            return max(least, round(number * share))

        def seen(number: int, parts: int = 1) -> int:
            # Whole batches, as they are trained.
            whole = parts * batch
            return -(-scaled(number, 640) // whole) * whole

        return cls(
            rows=scaled(8_000, 200),
            samples_seen=seen(30_720),
            scorer_rows=scaled(6_400, 200),
            scorer_samples_seen=seen(61_440),
            warm_samples_seen=seen(7_680),
            curve_samples_seen=seen(24_576, POINTS),
            clean_rows=scaled(4_000, 100),
            clean_samples_seen=seen(49_152, 2 * CLEAN_POINTS),
            second_rows=scaled(3_000, 100),
            added=scaled(10, 1),
            batch_size=batch,
            images=scaled(20, 1),
            pairs=scaled(1_024, 100),
        )

    @property
    def budgets(self) -> tuple[int, int]:
        """Samples seen at the first point of a training that is followed, and at the last at the full learning rate."""
        each = self.curve_samples_seen // POINTS
        return each, (POINTS - 1) * each

    @property
    def clean_budgets(self) -> tuple[int, int]:
        """Of one on the clean pool, from where the law is fitted to it on, and the last at the full learning rate."""
        each = self.clean_samples_seen // CLEAN_POINTS
        return _SETTLED * each, (CLEAN_POINTS - 1) * each


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
        """What one model of each seed is trained on, each, for as many samples seen."""
        return arms_of(self.findings)

    @property
    def law(self) -> Law | None:
        """What is followed through training, if a finding asks for that."""
        return next((one.law or one.advice for one in self.findings if one.law or one.advice), None)

    @property
    def clean(self) -> Law | None:
        """The same of a clean pool."""
        return next((one.clean for one in self.findings if one.clean), None)

    @property
    def addition(self) -> Addition | None:
        """What is added to an arm, if a finding asks for that."""
        return next((one.addition for one in self.findings if one.addition), None)

    @property
    def base(self) -> Arm:
        """The arm that samples are added to; StopIteration if there is none."""
        return next(arm for arm in self.arms if self.addition and arm.name == self.addition.base)

    @property
    def has_captioner(self) -> bool:
        """Whether a captioner is trained."""
        return bool(_SYNTHETIC & {arm.captions for arm in self.arms})

    def seed_folder(self, seed: int) -> Path:
        """The data folder of a seed."""
        return self.folder / f"seed-{seed}"

    def scorer_folder(self, seed: int) -> Path:
        """The data folder in which its scorer is trained."""
        return self.seed_folder(seed) / SCORER

    def captioner_folder(self, seed: int) -> Path:
        """The data folder in which its captioner is trained."""
        return self.seed_folder(seed) / CAPTIONER

    def second_folder(self, seed: int) -> Path:
        """The data folder of its second pool."""
        return self.seed_folder(seed) / SECOND

    def clean_folder(self, seed: int) -> Path:
        """The data folder of its clean pool."""
        return self.seed_folder(seed) / CLEAN

    @property
    def law_folder(self) -> Path:
        """The data folder in which the law is fitted to the curves of all seeds together."""
        return self.folder / FITTED

    def folder_of(self, arm: Arm, seed: int) -> Path:
        """The data folder in which an arm is trained."""
        return self.seed_folder(seed) / ADDED if arm.is_added_to else self.seed_folder(seed)

    def web(self, seed: int) -> WorldSource:
        """The pool of a seed."""
        rows = self.size.rows
        return WorldSource(name=WEB, rows_made=rows, seed=seed, concepts=CONCEPTS, shard_size=_SHARD_SIZE)

    def pairs(self, seed: int) -> WorldSource:
        """What its scorer is trained on: another world, in which all things are alike frequent."""
        return _even("pairs", SCORER_SEED + seed, self.size.scorer_rows)

    def captioned(self, seed: int) -> WorldSource:
        """What its captioner is trained on."""
        return _even("captioned", CAPTIONER_SEED + seed, self.size.scorer_rows)

    def second(self, seed: int) -> WorldSource:
        """Its second pool."""
        return _even(SECOND, SECOND_SEED + seed, self.size.second_rows)

    def clean_parts(self, seed: int) -> list[WorldSource]:
        """The parts of its clean pool."""
        return [
            _even(
                name,
                CLEAN_SEED + 1_000_000 * place + seed,
                self.size.clean_rows,
                caption_kinds={"right": share, "other_photo": 1 - share},
            )
            for place, (name, share) in enumerate(RIGHT.items())
        ]

    def scorer_settings(self, seed: int) -> dict[str, Any]:
        """The dqe.yaml of a scorer: a training on true captions of pairs, and a start for others on those as found."""
        settings = self._taught(SCORER, self.pairs(seed), seed)
        if self.law:
            settings["training"]["scales"][WARM] = self._constant(2 * self.size.warm_samples_seen, 2)
            settings["training"]["runs"].append({"subsets": ["all"], "scale": WARM, "seeds": [seed], "label": WARM})
        return settings

    def captioner_settings(self, seed: int) -> dict[str, Any]:
        """The dqe.yaml of a captioner: as a scorer's, with other pairs."""
        return self._taught(CAPTIONER, self.captioned(seed), seed)

    def _taught(self, name: str, source: WorldSource, seed: int) -> dict[str, Any]:
        return {
            "sources": [_written(source)],
            "captioners": [_true_captions()],
            "filters": {},
            "subsets": [],
            "image_text": None,
            "training": {
                "scales": {name: self._scale(self.size.scorer_samples_seen)},
                "runs": [{"subsets": ["all"], "scale": name, "seeds": [seed], "captions": TRUE, "label": name}],
            },
        }

    def settings(self, seed: int, names: Collection[str]) -> dict[str, Any]:
        """The dqe.yaml of a seed: the pool, its scorer, the subsets, the trainings and the tasks.

        Args:
            seed: which.
            names: of the concepts.
        """
        arms = [arm for arm in self.arms if not arm.is_added_to]
        kinds = {arm.captions for arm in arms}
        captioners, more = [_true_captions()] if TRUE in kinds else [], dict[str, Any]()
        if _SYNTHETIC & kinds:
            captioners.append(_retrieval(SYNTHETIC, CAPTIONER, seed))
            more["best"] = {"sources": [ORIGINAL, SYNTHETIC]}
        if MIXED in kinds:
            more["caption_mixes"] = [{"name": MIXED, "captioner": SYNTHETIC, "fraction": 0.3}]
        if DISTILLED in kinds:
            captioners.append(_retrieval(DISTILLED, SCORER, seed))
        scales = {SCALE: self._scale(self.size.samples_seen)} if arms else {}
        runs = [{"subsets": [arm.subset], "scale": SCALE, "seeds": [seed], "captions": arm.captions} for arm in arms]
        subsets = arms
        if self.law:
            subsets = list({arm.subset: arm for arm in (*arms, *self.law.arms)}.values())
            scales[CURVE] = self._constant(self.size.curve_samples_seen, POINTS)
            runs.append(_followed(self.law, seed))
            more["scaling"] = _scaling(self.law, self.size.budgets)
        tasks = ({TASK: SCALE} if arms else {}) | ({PAIRS: CURVE} if self.law else {})
        return {
            **_pool([self.web(seed)], captioners, seed),
            # A codebook of tokens of 96 pixels: pictures of 32 have no more to show.
            "compression": {
                "tower": {"kind": "efficientnet_lite0", "side": 96},
                "codebook": {"kind": "kmeans", "codes": 256, "seed": seed},
                "clustering": {"seed": seed},
            },
            "subsets": [{"name": arm.name, "expression": arm.expression} for arm in subsets if arm.expression],
            "concepts": _concepts(names, seed, above="."),
            "training": {"scales": scales, "runs": runs},
            "evaluation": {
                "tasks": [{"path": f"tasks/{task}", "scales": [scale]} for task, scale in tasks.items()],
                "batch_size": 256,
                "checkpoints": "all",
            },
            **more,
        }

    def clean_settings(self, law: Law, seed: int) -> dict[str, Any]:
        """The dqe.yaml of the clean pool: its parts and mixtures of them, followed through training."""
        # Steadier than the others: the law is to be fitted to each model's curve.
        scale = self._constant(self.size.clean_samples_seen, CLEAN_POINTS) | {
            "batch_size": 2 * self.size.batch_size,
            "learning_rate": 1e-3,
        }
        return {
            **_pool(self.clean_parts(seed), [], seed, above=".."),
            "subsets": [{"name": arm.name, "expression": arm.expression} for arm in law.arms if arm.expression],
            "training": {"scales": {CURVE: scale}, "runs": [_followed(law, seed, above="..")]},
            "evaluation": {"tasks": [{"path": f"tasks/{PAIRS}"}], "batch_size": 256, "checkpoints": "all"},
            "scaling": self._clean_scaling(law),
        }

    def law_settings(self, law: Law) -> dict[str, Any]:
        """The dqe.yaml of the folder in which the law is fitted to the mean of all seeds' curves of the clean pool."""
        return {
            "sources": [_written(part) for part in self.clean_parts(self.seeds[0])],
            "subsets": [],
            "scaling": self._clean_scaling(law) | {"measurements": CURVES},
        }

    def _clean_scaling(self, law: Law) -> dict[str, Any]:
        return _scaling(law, self.size.clean_budgets) | {"from_samples_seen": self.size.clean_budgets[0]}

    def second_settings(self, seed: int, rarest: Collection[str]) -> dict[str, Any]:
        """The dqe.yaml of the second pool, in which the rarest concepts of the first are looked for.

        Args:
            seed: which.
            rarest: the names of these concepts.
        """
        return {
            **_pool([self.second(seed)], [], seed, above=".."),
            "subsets": [],
            "concepts": _concepts(rarest, seed, above=".."),
        }

    def added_settings(self, seed: int, names: Collection[str]) -> dict[str, Any]:
        """The dqe.yaml of an arm with samples of the second pool: a table says what of both is trained on.

        Args:
            seed: which.
            names: of the concepts.
        """
        tables = [
            {"kind": "table", "name": name, "path": f"{name}.csv", "min_coverage": 0.0}
            for name in (BASE_AND_RARE, BASE_AND_ANY)
        ]
        return {
            "sources": [
                {"kind": "webdataset", "name": BASE, "path": f"../training_data/{self.base.data}", "uid_field": "uid"},
                _written(self.second(seed)),
            ],
            "captioners": tables,
            "filters": {},
            "subsets": [],
            "image_text": None,
            "concepts": _concepts(names, seed, above=".."),
            "training": {
                "scales": {SCALE: self._scale(self.size.samples_seen)},
                "runs": [
                    {"subsets": [arm.subset], "scale": SCALE, "seeds": [seed], "captions": arm.captions}
                    for arm in self.arms
                    if arm.is_added_to
                ],
            },
            "evaluation": {"tasks": [{"path": f"../tasks/{TASK}"}], "batch_size": 256},
        }

    def _constant(self, samples_seen: int, checkpoints: int) -> dict[str, Any]:
        """A scale whose learning rate falls only after the last checkpoint but one."""
        steps = samples_seen // checkpoints // self.size.batch_size
        return self._scale(samples_seen) | {
            "schedule": "constant_cooldown",
            "checkpoints": checkpoints,
            "warmup": min(10, steps),
        }

    def _scale(self, samples_seen: int) -> dict[str, Any]:
        return {
            "model": _MODEL,
            "samples_seen": samples_seen,
            "batch_size": self.size.batch_size,
            "learning_rate": 2e-3,
            "warmup": 40,
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


def run_key(arm: Arm, seed: int, scale: str = SCALE) -> str:
    """The partition of the asset ``training_run`` of an arm."""
    return f"{arm.data}-{scale}-{seed}"


def _true_captions() -> dict[str, Any]:
    return {"kind": "table", "name": TRUE, "path": TRUTH, "key": "image_name"}


def _contrastive(taught: str, seed: int, above: str = ".") -> dict[str, Any]:
    """A model that was trained in a folder of its own, for a data folder so far below the seed's."""
    run = f"{taught}-{taught}-{seed}"
    made = f"{above}/{taught}/training/{run}"
    return {"architecture": f"{made}/{run}.json", "weights": f"{made}/checkpoints/epoch_1.pt", "batch_size": 256}


def _retrieval(name: str, taught: str, seed: int) -> dict[str, Any]:
    """A captioner that takes the nearest caption of those that its model was trained with."""
    return {"kind": "retrieval", "name": name, **_contrastive(taught, seed), "captions": f"{taught}/{TRUTH}"}


def _concepts(names: Collection[str], seed: int, above: str) -> dict[str, Any]:
    """Concepts that the scorer looks for in images."""
    tagger = {"kind": "open_clip", **_contrastive(SCORER, seed, above)}
    return {"vocabulary": [], "names": list(names), "tagger": tagger}


def _followed(law: Law, seed: int, above: str = ".") -> dict[str, Any]:
    """The trainings that are followed for a law."""
    return {
        "subsets": [arm.subset for arm in law.arms],
        "scale": CURVE,
        "seeds": [seed],
        # The first of two checkpoints: the second is at the end of a falling learning rate.
        "start": f"{above}/{SCORER}/training/{WARM}-{WARM}-{seed}/checkpoints/epoch_1.pt",
    }


def _scaling(law: Law, samples_seen: tuple[int, int]) -> dict[str, Any]:
    return {
        "measurements": "trained",
        "metrics": [LOSS],
        "pools": [arm.name for arm in law.parts],
        "mixtures": {name: list(pools) for name, pools in law.mixtures.items()},
        "unit": 1000,
        "samples_seen": list(samples_seen),
    }


def _pool(sources: list[WorldSource], captioners: list[dict[str, Any]], seed: int, above: str = ".") -> dict[str, Any]:
    """A pool that the scorer scores."""
    return {
        "sources": [_written(source) for source in sources],
        "captioners": captioners,
        "scorer": {"kind": "open_clip", **_contrastive(SCORER, seed, above)},
        "image_text": None,
        "filters": {},
    }


def _even(name: str, seed: int, rows: int, **captions: Any) -> WorldSource:
    """A world in which all things are alike frequent, and no picture is a copy."""
    return WorldSource(
        name=name,
        rows_made=rows,
        seed=seed,
        concepts=CONCEPTS,
        zipf=0.0,
        near_copies=0.0,
        shard_size=_SHARD_SIZE,
        **captions,
    )


def _written(source: WorldSource) -> dict[str, Any]:
    return {"kind": source.kind, **source.model_dump(mode="json", exclude_unset=True)}
