"""How good the trained models are: their evaluation, a leaderboard of subsets, and curves for the scaling laws."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.counting import ConceptIndex
from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import MODEL_POOL, TRAINING_RUNS, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.evaluation import class_counts as counting
from dqe_assets.evaluation import leaderboard as made_of
from dqe_assets.evaluation import metadata
from dqe_assets.evaluation.tables import (
    CLASS_COUNTS,
    CONCEPT_ACCURACIES,
    EVALUATION,
    LEADERBOARD,
    TRAINING_CURVES,
)
from dqe_assets.evaluation.tasks import TaskError
from dqe_assets.evaluation.views import RELATIONS
from dqe_assets.evaluation.zero_shot import evaluate
from dqe_assets.filtering.store_pool import STORE
from dqe_assets.training.data import open_data
from dqe_assets.training.data_assets import DATA_PREFIX
from dqe_assets.training.loader import read_texts
from dqe_resources.cache import in_data_directory
from dqe_resources.models.open_clip_models import OpenClipSettings
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dqe_assets.concepts.settings import ConceptLists
    from dqe_assets.evaluation.settings import Evaluation, PlannedTask
    from dqe_assets.evaluation.zero_shot import Result
    from dqe_assets.training.data_assets import DataPlan
    from dqe_assets.training.settings import Training

RESULTS_FILE = "eval_results.jsonl"
"""The results of a run in the form of DataComp's leaderboard, next to its checkpoints."""

_VERSION = "1"
_OF_THE_RUN = ("run", "subset", "captions", "data", "data_size", "scale", "seed", "schedule", "checkpoint", "is_final")


def _state(_: Work, evaluation: Evaluation) -> Any:
    """What decides the results: the tasks, and which checkpoints are evaluated."""
    return [
        evaluation.checkpoints,
        [
            [one.key, one.name, one.metric, repr(one.grouping), one.task.state, *([one.scales] if one.scales else [])]
            for one in evaluation.planned
        ],
    ]


def _models_state(work: Work, evaluation: Evaluation) -> Any:
    return [_state(work, evaluation), [[one.name, one.model_signature()] for one in evaluation.models]]


def _all_images_read(_: Work, table: pa.Table) -> CheckResult:
    left_out = sum(row["left_out"] for row in table.select(["left_out", "is_main"]).to_pylist() if row["is_main"])
    return CheckResult(
        left_out == 0, f"{left_out} samples of tasks have no image that can be read", {"left_out": left_out}
    )


def _all_tasks_there(_: Work, __: pa.Table, evaluation: Evaluation) -> CheckResult:
    missing = evaluation.missing
    return CheckResult(
        not missing,
        f"DataComp's tasks that are not there, so that no average over all is shown: {', '.join(missing) or 'none'}",
        {"missing": len(missing)},
    )


_CHECKS = [
    unique("run", "checkpoint", "task", "metric"),
    finite("value"),
    Check("images_read", "Every sample of a task has an image that can be read.", _all_images_read, blocking=False),
    Check("tasks_there", "Every task of DataComp's list is there.", _all_tasks_there, blocking=False),
]


@stage(
    kinds={"parquet", "torch", "open_clip"},
    code_version=_VERSION,
    schema=EVALUATION,
    relations=RELATIONS,
    inputs=["training_run"],
    partition_set=TRAINING_RUNS,
    checks=_CHECKS,
    metadata=metadata.evaluation,
    signature=_state,
    pool=MODEL_POOL,
)
def evaluation(work: Work, evaluation: Evaluation) -> pa.Table:
    """What each checkpoint of a training run does on every task, without training on it.

    A killed evaluation goes on with the tasks that are not done. The results of the last checkpoint are also written
    as DataComp's leaderboard takes them, next to the checkpoints.
    """
    checkpoints = work.read("training_run").drop_columns("log").to_pylist()
    highest = max(row["learning_rate"] for row in checkpoints)
    chosen = [row for row in checkpoints if row["is_final"] or evaluation.checkpoints == "all"]
    models = [
        (
            {
                **{name: row[name] for name in (*_OF_THE_RUN, "samples_seen")},
                "at_peak": row["learning_rate"] >= highest * (1 - 1e-6),
            },
            OpenClipSettings(architecture=row["architecture"], weights=row["path"], batch_size=evaluation.batch_size),
        )
        for row in chosen
    ]
    table = _evaluated(work, models, evaluation.planned_of(checkpoints[0]["scale"]), evaluation.batch_size)
    folder = in_data_directory(chosen[-1]["path"]).parents[1]
    results = datacomp_results(table.filter(table["is_final"]))
    replace_file(folder / RESULTS_FILE, lambda target: target.write(results.encode()))
    return with_facts(table, {"missing": evaluation.missing})


@stage(
    kinds={"parquet", "torch", "open_clip"},
    code_version=_VERSION,
    schema=EVALUATION,
    partitioned=False,
    checks=_CHECKS,
    metadata=metadata.evaluation,
    signature=_models_state,
    pool=MODEL_POOL,
)
def model_evaluation(work: Work, evaluation: Evaluation) -> pa.Table:
    """What models of open_clip that were not trained here do on every task."""
    models = [({"run": one.name, "is_final": True}, one) for one in evaluation.models]
    return with_facts(
        _evaluated(work, models, evaluation.planned, evaluation.batch_size), {"missing": evaluation.missing}
    )


def _evaluated(
    work: Work,
    models: Sequence[tuple[Mapping[str, Any], OpenClipSettings]],
    tasks: Sequence[PlannedTask],
    batch_size: int,
) -> pa.Table:
    known = work.checkpoint.rows(EVALUATION)
    done = {
        (row["run"], row["checkpoint"], row["task"]) for row in known.select(["run", "checkpoint", "task"]).to_pylist()
    }
    tables = [known]
    meter = work.meter(len(models) * len(tasks))
    for place, (about, model) in enumerate(models):
        for number, planned in enumerate(tasks):
            if (about["run"], about.get("checkpoint"), planned.key) not in done:
                result = evaluate(model.load(), planned.task, batch_size=batch_size, grouping=planned.grouping)
                tables.append(_rows(about, planned, result))
                work.checkpoint.append(tables[-1])
                for key, reason in result.left_out:
                    work.log(f"{planned.name}: sample {key} is left out: {reason}")
            meter.update(place * len(tasks) + number + 1, f"{about['run']}, {planned.name}")
    table = pa.concat_tables(tables)
    return table.take(pc.sort_indices(table, [(name, "ascending") for name in ("run", "checkpoint", "task", "metric")]))


def _rows(about: Mapping[str, Any], planned: PlannedTask, result: Result) -> pa.Table:
    main = planned.main_metric
    if main not in result.metrics:
        raise TaskError(
            f"{planned.key}: there is no metric {main}; this task has: {', '.join(result.metrics)}. Fix its metric "
            "under evaluation.tasks in dqe.yaml"
        )
    classes = [{"class_name": name, "images": n, "correct": k} for name, n, k in result.classes]
    rows = [
        {
            **about,
            "task": planned.key,
            "task_name": planned.name,
            "metric": metric,
            "value": value,
            "is_main": metric == main,
            "images": result.images,
            "left_out": len(result.left_out),
            "classes": classes if metric == main and classes else None,
        }
        for metric, value in result.metrics.items()
    ]
    return pa.Table.from_pylist(rows, EVALUATION)


def datacomp_results(table: pa.Table) -> str:
    """The results of one checkpoint as DataComp's ``eval_results.jsonl``: a JSON object for each task.

    Args:
        table: its rows of ``EVALUATION``.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in table.drop_columns("classes").to_pylist():
        one = found.setdefault(row["task"], {"key": row["task"], "dataset": row["task_name"], "metrics": {}})
        one["metrics"][row["metric"]] = row["value"]
        if row["is_main"]:
            one["metrics"]["main_metric"] = made_of.score_of(row["metric"], row["value"])
    return "".join(f"{json.dumps(one)}\n" for one in found.values())


@stage(
    kinds={"parquet"},
    code_version="2",
    schema=LEADERBOARD,
    run_inputs=["training_run", "evaluation"],
    partitioned=False,
    resources={name: f"training.{name}" for name in ("gpu_hour_price", "cpu_hour_price")},
    checks=[unique("scale", "score", "data"), finite("value")],
    metadata=metadata.leaderboard,
)
def leaderboard(work: Work, gpu_hour_price: float | None, cpu_hour_price: float | None) -> pa.Table:
    """Subsets compared at each scale: the mean over seeds, and the difference to all samples with its interval."""
    costs = {
        rows[0]["run"]: made_of.run_cost(rows, gpu_hour_price, cpu_hour_price)
        for rows in (table.to_pylist() for table in work.scan_runs("training_run", ["run", "gpus", "seconds"]))
    }
    return made_of.leaderboard(_all_runs(work), costs)


@stage(
    kinds={"parquet"},
    code_version="1",
    schema=TRAINING_CURVES,
    run_inputs=["evaluation"],
    partitioned=False,
    checks=[unique("pool", "pool_size", "samples_seen", "metric"), finite("error")],
    metadata=metadata.training_curves,
)
def training_curves(work: Work) -> pa.Table:
    """The error of each subset over the samples seen, averaged over seeds: what the scaling laws are fitted to."""
    return made_of.training_curves(_all_runs(work))


COUNTS_PREFIX = "class_counts/"


def class_counts_of(plan: DataPlan) -> Stage:
    """The asset ``class_counts/<data>``."""
    of_store = all(name == STORE for name in plan.pools)

    @stage(
        name=f"{COUNTS_PREFIX}{plan.name}",
        kinds={"parquet"},
        code_version="1",
        schema=CLASS_COUNTS,
        inputs=["concept_hits"] if of_store else [],
        unpartitioned_inputs=[f"{DATA_PREFIX}{plan.name}"],
        partitioned=False,
        resources={"lists": "concepts.lists"},
        checks=[unique("class_name", "item", "beside"), finite("samples", 0)],
        metadata=metadata.class_counts,
        signature=lambda _, evaluation: evaluation.classes,
    )
    def make(work: Work, evaluation: Evaluation, lists: ConceptLists) -> pa.Table:
        """How many samples of what runs train on show each class of the tasks: in captions, and in images."""
        classes, shards = evaluation.classes, open_data(plan.name).shards
        index = ConceptIndex(classes, lists.method, lists.absent_words)
        tables = [counting.caption_counts(read_texts(shards), plan.kinds, index)]
        if of_store:
            keys = (key for key, _ in read_texts(shards))
            tables.append(counting.image_counts(keys, work.scan("concept_hits", ["uid", "item", "concepts"]), classes))
        return pa.concat_tables(tables)

    return make


def concept_accuracies_of(data: Iterable[str]) -> Stage:
    """The asset ``concept_accuracies``.

    Args:
        data: names of what the runs are trained on.
    """
    names = list(dict.fromkeys(data))

    @stage(
        kinds={"parquet"},
        code_version="1",
        schema=CONCEPT_ACCURACIES,
        run_inputs=["evaluation"],
        unpartitioned_inputs=[f"{COUNTS_PREFIX}{name}" for name in names],
        partitioned=False,
        resources={"lists": "concepts.lists"},
        checks=[unique("run", "task", "class_name"), finite("accuracy", 0, 1), finite("caption_samples", 0)],
        metadata=metadata.concept_accuracies,
    )
    def concept_accuracies(work: Work, training: Training, lists: ConceptLists) -> pa.Table:
        """For each run and class, how many samples of its own subset show the class, and its accuracy on it."""
        counts = {name: work.read_unpartitioned(f"{COUNTS_PREFIX}{name}") for name in names}
        weights = {run.key: dict(run.captions) for run in training.planned}
        return counting.concept_accuracies(_all_runs(work), counts, weights, lists.counting().concepts.names)

    return concept_accuracies


def _all_runs(work: Work) -> pa.Table:
    return pa.concat_tables([EVALUATION.empty_table(), *work.scan_runs("evaluation")])
