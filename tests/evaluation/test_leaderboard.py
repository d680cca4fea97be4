"""What evaluations come to: averages, paired differences, ranks and curves."""

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from scipy import stats

from dqe_assets.evaluation.assets import datacomp_results
from dqe_assets.evaluation.datacomp import TASKS, averages
from dqe_assets.evaluation.leaderboard import difference_interval, leaderboard, run_cost, training_curves
from dqe_assets.evaluation.tables import EVALUATION


def row(data: str, seed: int, task: str, value: float, **other: Any) -> dict[str, Any]:
    """A row of an evaluation."""
    return {
        "run": f"{data}-toy-{seed}",
        "subset": data,
        "captions": "original",
        "data": data,
        "data_size": 100,
        "scale": "toy",
        "seed": seed,
        "schedule": "cosine",
        "checkpoint": 5,
        "is_final": True,
        "at_peak": False,
        "samples_seen": 1_000,
        "task": task,
        "task_name": task,
        "metric": "acc1",
        "value": value,
        "is_main": True,
        "images": 10,
        "left_out": 0,
        "classes": None,
        **other,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), EVALUATION)


def test_the_list_is_that_of_datacomp() -> None:
    assert len(TASKS) == 38
    metrics = {task.name: task.metric for task in TASKS.values()}
    for name in ("Caltech-101", "FGVC Aircraft", "Oxford Flowers-102", "Oxford-IIIT Pet"):
        assert metrics[name] == "mean_per_class_recall"
    assert (metrics["Flickr"], metrics["MSCOCO"]) == ("mean_recall@1", "mean_recall@1")
    assert (metrics["iWildCam"], metrics["FMoW"], metrics["GeoDE"]) == ("F1-macro_all", "acc_worst_region", "acc_wg")
    sizes = [
        sum(group in task.groups for task in TASKS.values()) for group in ("ImageNet dist. shifts", "VTAB", "Retrieval")
    ]
    assert sizes == [6, 13, 3]


def test_averages_are_of_all_tasks_or_not_at_all() -> None:
    scores = {key: place / 100 for place, key in enumerate(TASKS)}
    found = averages(scores)
    assert found["Average"] == pytest.approx(math.fsum(scores.values()) / 38)
    assert found["ImageNet"] == scores["imagenet1k"]
    assert found["Retrieval"] == pytest.approx(math.fsum(list(scores.values())[30:33]) / 3)
    del scores["mnist"]
    assert averages(scores)["Average"] is None
    assert averages(scores)["VTAB"] == found["VTAB"]


def test_subsets_are_compared_by_runs_of_the_same_seed() -> None:
    # The seeds differ much, the subsets little: only pairs show it.
    everything = {0: 0.10, 1: 0.50, 2: 0.90}
    better = {0: 0.13, 1: 0.54, 2: 0.92}
    noisy = {0: 0.30, 1: 0.30, 2: 0.95}
    rows = [
        row(data, seed, "mine", value)
        for data, values in (("all", everything), ("better", better), ("noisy", noisy))
        for seed, value in values.items()
    ]
    found = {one["data"]: one for one in leaderboard(table(*rows)).to_pylist()}
    assert found["better"]["difference"] == pytest.approx(0.03)
    error = stats.tstd([0.03, 0.04, 0.02]) / math.sqrt(3) * stats.t.ppf(0.975, 2)
    assert found["better"]["difference_low"] == pytest.approx(0.03 - error)
    assert found["better"]["rank"] is not None
    assert found["noisy"]["rank"] is None
    assert found["all"]["difference"] is None
    assert found["all"]["rank"] is None
    assert [one["seeds"] for one in found.values()] == [3, 3, 3]


def test_a_single_seed_has_no_interval_and_no_rank() -> None:
    (best, _) = leaderboard(table(row("best", 0, "mine", 0.4), row("all", 0, "mine", 0.2))).to_pylist()
    assert (best["data"], best["difference"], best["difference_low"], best["rank"]) == ("best", 0.2, None, None)
    assert difference_interval([]) == (None, None, None)


def test_a_mean_is_over_the_tasks_that_all_runs_have() -> None:
    found = leaderboard(
        table(
            *(row("all", 0, task, value) for task, value in (("a", 0.1), ("b", 0.3), ("c", 1.0))),
            *(row("best", 0, task, value) for task, value in (("a", 0.2), ("b", 0.6))),
        )
    ).to_pylist()
    means = {one["data"]: one["value"] for one in found if one["score"] == "mean of 2 tasks"}
    assert means == pytest.approx({"best": 0.4, "all": 0.2})
    assert {one["score"] for one in found} == {"mean of 2 tasks", "a", "b"}


def test_what_is_not_the_end_of_a_run_is_not_compared() -> None:
    rows = [row("all", 0, "a", 0.5), row("all", 1, "a", 0.9, is_final=False), row("x", 0, "a", 0.9, scale=None)]
    assert [one["value"] for one in leaderboard(table(*rows)).to_pylist()] == [0.5]
    assert leaderboard(table()).num_rows == 0


def test_a_lower_loss_is_a_better_score() -> None:
    rows = [row("all", 0, "a", 0.8, metric="contrastive_loss"), row("best", 0, "a", 0.7, metric="contrastive_loss")]
    best, every = leaderboard(table(*rows)).to_pylist()
    assert (best["data"], round(best["value"], 6), round(best["difference"], 6)) == ("best", 0.3, 0.1)
    assert every["data"] == "all"
    assert json.loads(datacomp_results(table(rows[1])))["metrics"]["main_metric"] == pytest.approx(0.3)


def test_runs_with_a_label_are_compared_under_it() -> None:
    rows = [row("all", 0, "a", 0.5), row("all", 0, "a", 0.6, run="warm-toy-0")]
    assert [one["data"] for one in leaderboard(table(*rows)).to_pylist()] == ["warm", "all"]
    assert {one["pool"] for one in training_curves(table(*rows)).to_pylist()} == {"warm", "all"}


def test_costs_are_means_over_runs() -> None:
    fast, slow = [{"gpus": 4, "seconds": 900.0}, {"gpus": 4, "seconds": 1800.0}], [{"gpus": 0, "seconds": 7200.0}]
    costs = {"all-toy-0": run_cost(fast, 1.5, 0.25), "all-toy-1": run_cost(slow, 1.5, 0.25)}
    (found,) = leaderboard(table(row("all", 0, "a", 0.5), row("all", 1, "a", 0.6)), costs).to_pylist()
    assert (found["gpu_hours"], found["cpu_hours"], found["cost"]) == (1.5, 1.0, 2.5)
    unpriced = {**costs, "all-toy-1": run_cost(slow, 1.5, None)}
    assert run_cost(fast, 1.5, None).price == 4.5, "no hour of a CPU was used"
    (found,) = leaderboard(table(row("all", 0, "a", 0.5), row("all", 1, "a", 0.6)), unpriced).to_pylist()
    assert (found["cpu_hours"], found["cost"]) == (1.0, None)


def test_curves_are_of_ends_of_training_and_of_constant_learning_rates() -> None:
    cosine = [row("all", seed, "a", 0.4 + seed / 10, samples_seen=1_000) for seed in (0, 1)]
    middle = [row("all", 0, "a", 0.3, samples_seen=500, is_final=False)]
    constant = [
        row("all", 0, "a", 0.2, samples_seen=300, is_final=False, schedule="constant_cooldown", at_peak=True),
        row("all", 0, "a", 0.7, samples_seen=900, is_final=True, schedule="constant_cooldown", at_peak=False),
    ]
    loss = [row("all", 0, "a", 0.8, metric="contrastive_loss", is_main=False)]
    found = training_curves(table(*cosine, *middle, *constant, *loss)).to_pylist()
    points = {(one["metric"], one["samples_seen"]): (round(one["error"], 6), one["seeds"]) for one in found}
    assert points == {
        ("a acc1", 1_000): (0.55, 2),
        ("a acc1", 900): (0.3, 1),
        ("toy: a acc1", 300): (0.8, 1),
        ("a contrastive_loss", 1_000): (0.8, 1),
    }
