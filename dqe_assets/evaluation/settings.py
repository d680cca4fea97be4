"""Which tasks trained models, and other models, are evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.evaluation.datacomp import TASKS
from dqe_assets.evaluation.tasks import Task
from dqe_assets.evaluation.zero_shot import Grouping
from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import Strict
from dqe_resources.models.open_clip_models import OpenClipSettings

if TYPE_CHECKING:
    from typing import Self

_MAIN = {"classification": "acc1", "retrieval": "mean_recall@1", "association": "jaccard_score_10-12"}

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9/_.-]*$", max_length=100)]


class EvaluatedTask(Strict):
    """A task of your own, in the form that DataComp's have.

    Attributes:
        path: Folder, from the data folder, or URL of the task.
        name: What tables call it; by default the folder's name.
        metric: Its main metric, of those that its kind has; by default acc1, mean_recall@1 or jaccard_score_10-12.
        group_by: The value of each image's .npy that images are grouped by, counted from 0, for ``acc_wg`` and
            ``acc_top5_wg``.
        ignored_groups: Groups that do not count.
        scales: Names of the scales whose runs are evaluated on it; by default all. Models that were not trained here
            always are.
    """

    path: str
    name: Name | None = None
    metric: str | None = None
    group_by: Annotated[int, Field(ge=0)] | None = None
    ignored_groups: tuple[int, ...] = ()
    scales: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """What tables call it."""
        return self.name or self.path.rstrip("/").rpartition("/")[2]


class EvaluatedModel(OpenClipSettings):
    """A model of open_clip that was not trained here, to stand in the same tables.

    Attributes:
        name: What tables call it.
    """

    name: Name


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task to evaluate on.

    Attributes:
        key: what tables call it, and DataComp's result files.
        name: for people.
        task: where it is.
        metric: its main metric; None for that of its kind.
        grouping: of its images, if it has one.
        scales: names of the scales whose runs are evaluated on it; None for all.
    """

    key: str
    name: str
    task: Task
    metric: str | None
    grouping: Grouping | None
    scales: tuple[str, ...] | None = None

    @property
    def main_metric(self) -> str:
        """Its main metric; raises TaskError if it is no task."""
        return self.metric or _MAIN[self.task.kind]


class Evaluation(Strict):
    """What models are evaluated on, without training on it: zero-shot, as in DataComp.

    Attributes:
        tasks: Tasks of your own.
        datacomp: Folder, from the data folder, or URL into which DataComp's ``download_evalsets.py`` has put its test
            sets (``wds_imagenet1k_test`` ...). Those that are not there are left out, and named.
        models: Models of open_clip that were not trained here.
        checkpoints: Whether the last checkpoint of each training run is evaluated, or every one.
        batch_size: Images, or texts, at a time.
    """

    tasks: list[EvaluatedTask] = Field(default_factory=list)
    datacomp: str | None = None
    models: list[EvaluatedModel] = Field(default_factory=list)
    checkpoints: Literal["final", "all"] = "final"
    batch_size: Annotated[int, Field(ge=1)] = 64

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (
            ("tasks", [one.key for one in self.tasks] + (list(TASKS) if self.datacomp else [])),
            ("models", [one.name for one in self.models]),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise PydanticCustomError(
                    "repeated",
                    "evaluation.{what}: the name '{name}' is used twice; give one of them another",
                    {"what": what, "name": repeated[0]},
                )
        return self

    def signature(self) -> None:
        """Nothing: the tasks' own state is what counts, and how many at a time changes only the rounding."""

    @property
    def task_keys(self) -> list[str]:
        """What the tasks are called, whether they are there or not."""
        return [*(one.key for one in self.tasks), *(one.key for one in self._datacomp)]

    def task(self, key: str) -> Task:
        """The task that is called so; raises KeyError if there is none."""
        return {
            **{one.key: one.task for one in self._datacomp},
            **{one.key: Task(_located(one.path)) for one in self.tasks},
        }[key]

    @property
    def planned(self) -> list[PlannedTask]:
        """The tasks that are there, those of the list first.

        Raises:
            TaskError: a task of the list is not there. One of DataComp's may be missing: see ``missing``.
        """
        own = [
            PlannedTask(
                one.key,
                one.key,
                Task(_located(one.path)),
                one.metric,
                None if one.group_by is None else Grouping(one.group_by, one.ignored_groups),
                one.scales,
            )
            for one in self.tasks
        ]
        for one in own:
            _ = one.task.kind
        return [*own, *(one for one in self._datacomp if one.task.is_there)]

    def planned_of(self, scale: str) -> list[PlannedTask]:
        """Those of ``planned`` that a run of this scale is evaluated on."""
        return [one for one in self.planned if one.scales is None or scale in one.scales]

    @property
    def classes(self) -> list[str]:
        """The names of the classes of all tasks, each once, in order.

        Raises:
            TaskError: a task is not there, or its list of classes cannot be read.
        """
        kinds = [one.task for one in self.planned if one.task.kind == "classification"]
        return list(dict.fromkeys(name for task in kinds for name in task.class_names))

    @property
    def missing(self) -> list[str]:
        """Names of DataComp's tasks that are not in its folder; none if that is not set."""
        return [one.name for one in self._datacomp if not one.task.is_there]

    @property
    def _datacomp(self) -> list[PlannedTask]:
        if self.datacomp is None:
            return []
        root = _located(self.datacomp).rstrip("/")
        return [
            PlannedTask(
                task.key,
                task.name,
                Task(f"{root}/{task.folder}"),
                task.metric,
                None if task.by is None else Grouping(task.by, task.ignored),
            )
            for task in TASKS.values()
        ]


def _located(path: str) -> str:
    return path if "://" in path else str(in_data_directory(path))
