"""What the evaluations of training runs come to: a leaderboard of subsets, and training curves."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.statistics import student_t
from dqe_assets.evaluation.datacomp import TASKS, averages
from dqe_assets.evaluation.tables import LEADERBOARD, TRAINING_CURVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BASELINE = "all"
"""The subset that others are compared with."""

LEVEL = 0.95

LOSS = "contrastive_loss"
"""A metric that is an error by itself."""


@dataclass(frozen=True)
class _Run:
    """What is known of the last checkpoint of a run."""

    scale: str
    data: str
    seed: int
    data_size: int
    samples_seen: int
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run took.

    Attributes:
        gpu_hours: hours of GPUs.
        cpu_hours: hours on a CPU.
        price: of these; None if nobody says what an hour costs.
    """

    gpu_hours: float
    cpu_hours: float
    price: float | None


def run_cost(
    checkpoints: Iterable[Mapping[str, Any]], gpu_hour_price: float | None, cpu_hour_price: float | None
) -> RunCost:
    """What a run took.

    Args:
        checkpoints: gpus and seconds of its rows of ``TRAINING_RUN``.
        gpu_hour_price: what an hour of a GPU costs; None if nobody says.
        cpu_hour_price: what an hour on a CPU costs.
    """
    hours = [(row["gpus"], (row["seconds"] or 0) / 3600) for row in checkpoints]
    on_gpus = math.fsum(gpus * length for gpus, length in hours)
    on_cpu = math.fsum(length for gpus, length in hours if not gpus)
    bill = [(on_gpus, gpu_hour_price), (on_cpu, cpu_hour_price)]
    unknown = any(length and price is None for length, price in bill)
    return RunCost(on_gpus, on_cpu, None if unknown else math.fsum(length * (price or 0) for length, price in bill))


def leaderboard(evaluation: pa.Table, costs: Mapping[str, RunCost] | None = None) -> pa.Table:
    """Subsets compared at each scale, by each task and each average: a table ``LEADERBOARD``.

    Every subset is compared with ``all`` of the same scale by the differences of runs with the same seed, so that what
    a seed does to both does not count. An average of DataComp's is there only where each of its tasks was evaluated for
    every run of the scale. ``mean of N tasks`` is over the tasks that all runs of a scale have, if they are several.

    Args:
        evaluation: rows of ``EVALUATION``; checkpoints before the last and models from elsewhere are left alone.
        costs: what each run took, by its key.
    """
    runs = _runs(evaluation)
    rows: list[dict[str, Any]] = []
    for scale in dict.fromkeys(run.scale for run in runs.values()):
        of_scale = {key: run for key, run in runs.items() if run.scale == scale}
        for score in _scores(of_scale.values()):
            rows += _ranked(scale, score, of_scale, costs or {})
    return pa.Table.from_pylist(rows, LEADERBOARD)


def score_of(metric: str, value: float) -> float:
    """How good a value of a metric is: the more, the better. Of a loss it is 1 - loss."""
    return 1 - value if metric == LOSS else value


def arm_of(row: Mapping[str, Any]) -> str:
    """What runs are compared as, whatever their scale and seed: the subset with its captions, or their label.

    Args:
        row: run, scale and seed of a training run.
    """
    return str(row["run"]).removesuffix(f"-{row['scale']}-{row['seed']}")


def _runs(evaluation: pa.Table) -> dict[str, _Run]:
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    about: dict[str, dict[str, Any]] = {}
    for row in evaluation.drop_columns("classes").to_pylist():
        if row["is_final"] and row["is_main"] and row["scale"] is not None:
            scores[row["run"]][row["task"]] = score_of(row["metric"], row["value"])
            about[row["run"]] = row
    return {
        key: _Run(
            row["scale"], arm_of(row), row["seed"], row["data_size"], row["samples_seen"], _with_averages(scores[key])
        )
        for key, row in about.items()
    }


def _with_averages(scores: Mapping[str, float]) -> dict[str, float]:
    made = {name: value for name, value in averages(scores).items() if value is not None}
    return {**made, **scores}


def _scores(runs: Iterable[_Run]) -> list[str]:
    """The scores that every run has, averages first; and the mean over the tasks that they share."""
    all_runs = list(runs)
    shared = [name for name in all_runs[0].scores if all(name in run.scores for run in all_runs)]
    tasks = [name for name in shared if name in TASKS or name not in averages({})]
    if 1 < len(tasks) < len(TASKS):
        shared.insert(0, f"mean of {len(tasks)} tasks")
    return shared


def _value(run: _Run, score: str, tasks: Sequence[str]) -> float:
    return run.scores[score] if score in run.scores else math.fsum(run.scores[task] for task in tasks) / len(tasks)


def _ranked(scale: str, score: str, runs: Mapping[str, _Run], costs: Mapping[str, RunCost]) -> list[dict[str, Any]]:
    tasks = [name for name in _scores(runs.values()) if name not in averages({}) and not name.startswith("mean of ")]
    by_data: dict[str, dict[int, tuple[str, float]]] = defaultdict(dict)
    for key, run in runs.items():
        by_data[run.data][run.seed] = (key, _value(run, score, tasks))
    baseline = {seed: value for seed, (_, value) in by_data.get(BASELINE, {}).items()}
    rows: list[dict[str, Any]] = []
    for data, by_seed in by_data.items():
        values = np.array([value for _, value in by_seed.values()])
        first = runs[next(iter(by_seed.values()))[0]]
        pairs = [value - baseline[seed] for seed, (_, value) in by_seed.items() if seed in baseline]
        difference = difference_interval(pairs) if data != BASELINE else (None, None, None)
        paid = [costs[key] for key, _ in by_seed.values() if key in costs]
        prices = [one.price for one in paid if one.price is not None]
        rows.append(
            {
                "scale": scale,
                "score": score,
                "data": data,
                "data_size": first.data_size,
                "samples_seen": first.samples_seen,
                "seeds": len(values),
                "value": float(values.mean()),
                "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
                "difference": difference[0],
                "difference_low": difference[1],
                "difference_high": difference[2],
                "cost": float(np.mean(prices)) if paid and len(prices) == len(paid) else None,
                "gpu_hours": float(np.mean([one.gpu_hours for one in paid])) if paid else None,
                "cpu_hours": float(np.mean([one.cpu_hours for one in paid])) if paid else None,
            }
        )
    rows.sort(key=lambda row: (-row["value"], row["data"]))
    for place, row in enumerate(rows, 1):
        told_apart = row["difference_low"] is not None and not row["difference_low"] <= 0 <= row["difference_high"]
        row["rank"] = place if told_apart else None
    return rows


def difference_interval(differences: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The mean of paired differences, and the ends of its 95 % interval by Student's t.

    Returns:
        None for the ends with fewer than two differences, and for all three without any.
    """
    if not differences:
        return None, None, None
    mean = math.fsum(differences) / len(differences)
    if len(differences) < 2:
        return mean, None, None
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    reach = student_t((1 + LEVEL) / 2, len(differences) - 1) * error
    return mean, mean - reach, mean + reach


def training_curves(evaluation: pa.Table) -> pa.Table:
    """The error of each pool over the samples seen, averaged over seeds: a table ``TRAINING_CURVES``.

    A checkpoint in the middle of a cosine is no end of a training, and is left out: its learning rate is that of a
    longer one. There are the checkpoints of ``constant_cooldown`` runs at the highest learning rate, with their scale
    in the metric's name, and the last checkpoints of all runs, which compare where several scales have one model.

    Args:
        evaluation: rows of ``EVALUATION``, of all metrics; models from elsewhere are left alone.
    """
    found: dict[tuple[str, int, int, str], dict[int, float]] = defaultdict(dict)
    for row in evaluation.drop_columns("classes").to_pylist():
        if row["scale"] is None or not (row["is_main"] or row["metric"] == LOSS):
            continue
        named = f"{row['task']} {row['metric']}"
        error = 1 - score_of(row["metric"], row["value"])
        names = [f"{row['scale']}: {named}"] if row["schedule"] == "constant_cooldown" and row["at_peak"] else []
        names += [named] if row["is_final"] else []
        for name in names:
            found[arm_of(row), row["data_size"], row["samples_seen"], name][row["seed"]] = error
    rows = [
        {
            "pool": pool,
            "pool_size": size,
            "samples_seen": seen,
            "metric": metric,
            "error": math.fsum(errors.values()) / len(errors),
            "seeds": len(errors),
            "spread": float(np.std(list(errors.values()), ddof=1)) if len(errors) > 1 else None,
        }
        for (pool, size, seen, metric), errors in found.items()
    ]
    rows.sort(key=lambda row: (row["metric"], row["pool"], row["samples_seen"]))
    return pa.Table.from_pylist(rows, TRAINING_CURVES)
