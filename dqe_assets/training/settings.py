"""The training runs that data/dqe.yaml lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.training import SAMPLES_PER_SHARD
from dqe_assets.training.scales import SCALES, Scale
from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import FileName, Strict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path
    from typing import Self

ALL = "all"
"""The subset of every sample that has an image."""

BEST = "best"
"""The captions of ``best_captions``."""

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
CaptionWeights = dict[str, Annotated[float, Field(gt=0)]]


class TrainingRuns(Strict):
    """Runs that differ only in subset and seed.

    Attributes:
        subsets: Names of subsets; ``all`` is every sample that has an image.
        scale: ``debug``, ``small``, ``medium``, ``large`` or ``xlarge`` of DataComp, or one of ``training.scales``.
        seeds: Each gives a run of its own: of its weights at the beginning, and of the order of the samples.
        captions: What a sample trains with: ``original``, ``best``, the name of a captioner or of one of
            ``caption_mixes``; or several of them with weights, of which one is drawn each time that a sample is seen.
            A sample without such a caption is left out.
        label: What the runs are called in place of the subset, with captions other than ``original``; by default the
            subset and the captions.
        start: Path of a checkpoint whose weights training starts from, from the data folder, such as
            ``training/warm-toy-0/checkpoints/epoch_5.pt``; by default random weights. A run that is started from comes
            earlier in the list.
    """

    subsets: Annotated[list[FileName], Field(min_length=1)]
    scale: FileName
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default_factory=lambda: [0])
    captions: FileName | Annotated[CaptionWeights, Field(min_length=1)] = ORIGINAL
    label: FileName | None = None
    start: str | None = None

    @model_validator(mode="after")
    def _one_name_for_one_subset(self) -> Self:
        if self.label is not None and len(self.subsets) > 1:
            raise PydanticCustomError(
                "label", "label: one name for {n} subsets; list them apart", {"n": len(self.subsets)}
            )
        return self


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        key: of its partition: what is trained on, scale and seed, such as ``best-small-0``.
        subset: name of the subset; ``all`` for every sample that has an image.
        captions: the weight of each kind of captions: ``original``, ``best``, the name of a captioner or of a mix.
        scale_name: name of the scale.
        scale: the scale.
        seed: of weights and order.
        start: checkpoint whose weights it starts from; None for random ones.
    """

    key: str
    subset: str
    captions: tuple[tuple[str, float], ...]
    scale_name: str
    scale: Scale
    seed: int
    start: Path | None

    @property
    def data(self) -> str:
        """Name of what it is trained on: one subset with one choice of captions, whichever runs share it."""
        return data_name(self.subset, self.captions)


def data_name(subset: str, captions: Iterable[tuple[str, float]]) -> str:
    """The name of a subset with a choice of captions: ``best``, ``best_with_labels``, ``all_with_labels_original``.

    Weights are no part of it: they decide what is drawn of the same data.
    """
    names = sorted(name for name, _ in captions)
    return subset if names == [ORIGINAL] else f"{subset}_with_{'_'.join(names)}"


class Training(Strict):
    """What is trained: subsets at a fixed scale, as in DataComp.

    Attributes:
        runs: What to train. Each subset, scale and seed is a partition of the asset ``training_run``.
        scales: Scales of your own, by name, beside DataComp's.
        tars: Folders or URLs of WebDataset tars with the samples of subsets that are not of the store, as img2dataset
            writes them.
        samples_per_shard: Samples in each WebDataset shard that is written to train on.
        workers: Loader processes of each GPU.
        trainer: ``this_process`` trains on one core, for toy scales; ``open_clip_train`` on GPUs. By default, a scale
            that a core does in a few hours is trained in this process, and any other on GPUs.
        gpus: GPUs to train on; by default all of this machine.
        log_every: Steps between two lines of the log.
        gpu_hour_price: What an hour of a GPU costs; by default nobody says.
        cpu_hour_price: What an hour of training on a CPU costs; by default nobody says.
    """

    runs: list[TrainingRuns] = Field(default_factory=list)
    scales: dict[FileName, Scale] = Field(default_factory=dict)
    tars: list[str] = Field(default_factory=list)
    samples_per_shard: Annotated[int, Field(ge=1)] = SAMPLES_PER_SHARD
    workers: Annotated[int, Field(ge=1)] = 4
    trainer: Literal["auto", "this_process", "open_clip_train"] = "auto"
    gpus: Annotated[int, Field(ge=1)] | None = None
    log_every: Annotated[int, Field(ge=1)] = 100
    gpu_hour_price: Annotated[float, Field(ge=0)] | None = None
    cpu_hour_price: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _scales_exist(self) -> Self:
        hiding = sorted(SCALES.keys() & self.scales.keys())
        if hiding:
            raise PydanticCustomError(
                "scale", "training.scales: '{name}' is a scale of DataComp; rename yours", {"name": hiding[0]}
            )
        known = {**SCALES, **self.scales}
        for one in self.runs:
            if one.scale not in known:
                raise PydanticCustomError(
                    "scale",
                    "training.runs: there is no scale '{name}'; allowed: {allowed}",
                    {"name": one.scale, "allowed": ", ".join(known)},
                )
        repeated = sorted(key for key, count in Counter(self.keys).items() if count > 1)
        if repeated:
            raise PydanticCustomError(
                "repeated", "training.runs: two runs are '{key}'; give one of them a label", {"key": repeated[0]}
            )
        made_of: dict[str, tuple[str, frozenset[str]]] = {}
        for run in self.planned:
            contents = (run.subset, frozenset(name for name, _ in run.captions))
            if made_of.setdefault(run.data, contents) != contents:
                raise PydanticCustomError(
                    "data",
                    "training.runs: '{name}' would be two subsets or captions; rename one of them",
                    {"name": run.data},
                )
        return self

    def signature(self) -> None:
        """Nothing: each run is part of the fingerprint of its own partition, and how fast it is trained is not."""

    @property
    def planned(self) -> list[Run]:
        """Every run, in the order of the list."""
        return [
            Run(
                key=f"{one.label or data_name(subset, captions)}-{one.scale}-{seed}",
                subset=subset,
                captions=captions,
                scale_name=one.scale,
                scale=(self.scales.get(one.scale) or SCALES[one.scale]),
                seed=seed,
                start=in_data_directory(one.start) if one.start else None,
            )
            for one in self.runs
            for captions in [_weights(one.captions)]
            for subset in one.subsets
            for seed in one.seeds
        ]

    @property
    def keys(self) -> list[str]:
        """The runs' keys, in the order of the list."""
        return [run.key for run in self.planned]

    def hour_price(self, gpus: int) -> float | None:
        """What an hour of training costs on so many GPUs, 0 for a CPU; None if nobody says."""
        if gpus:
            return None if self.gpu_hour_price is None else self.gpu_hour_price * gpus
        return self.cpu_hour_price

    def run(self, key: str) -> Run:
        """The run of this key.

        Raises:
            LookupError: there is none.
        """
        for run in self.planned:
            if run.key == key:
                return run
        raise LookupError(f"no training run {key}; there are: {', '.join(self.keys)}")


def _weights(captions: str | CaptionWeights) -> tuple[tuple[str, float], ...]:
    return ((captions, 1.0),) if isinstance(captions, str) else tuple(sorted(captions.items()))


def check_training(training: Training, subsets: Collection[str], captions: Collection[str]) -> None:
    """Refuse runs of subsets or captions that do not exist.

    Args:
        training: the settings.
        subsets: names of the subsets of the settings.
        captions: what a sample can train with.

    Raises:
        PydanticCustomError: says which, and what is allowed.
    """
    for run in training.planned:
        unknown = [name for name in (run.subset,) if name != ALL and name not in subsets]
        unread = [name for name, _ in run.captions if name not in captions]
        for what, names, allowed in (("subset", unknown, [ALL, *subsets]), ("captions", unread, list(captions))):
            if names:
                raise PydanticCustomError(
                    "training",
                    "training.runs: there is no {what} '{name}'; allowed: {allowed}",
                    {"what": what, "name": names[0], "allowed": ", ".join(allowed)},
                )
