"""Verdicts by the rule, and what a study consists of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.evaluation.tables import CONCEPT_ACCURACIES, EVALUATION
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings
from dqe_assets.study import worker
from dqe_assets.study.findings import FINDINGS, Arm, Comparison, Finding
from dqe_assets.study.plan import TASK, Size, Study, StudyError, chosen, run_key
from dqe_assets.study.results import MeasuredArm, Result, Spread, results_of
from dqe_assets.study.run import jobs_of
from dqe_resources.errors import UsageError
from dqe_resources.store import Stamp, Store

if TYPE_CHECKING:
    from pathlib import Path

PAIR = (Arm("a", "one"), Arm("b", "the other", "random(share=0.5)"))


def result(*differences: tuple[dict[int, float], bool]) -> Result:
    """A finding with these differences of a and b, by seed, each a claim or a control."""
    comparisons = tuple(Comparison("a", "b", "Is it so?", is_claim) for _, is_claim in differences)
    finding = Finding(9, "name", "claim", "paper", "different", PAIR, comparisons)
    spreads = [Spread(by_seed) for by_seed, _ in differences]
    arms = {arm.name: MeasuredArm(arm, 10, Spread({0: 0.5})) for arm in PAIR}
    return Result(finding, arms, tuple(zip(comparisons, spreads, strict=True)), ())


ABOVE, BELOW, UNCLEAR = {0: 0.10, 1: 0.12, 2: 0.11}, {0: -0.10, 1: -0.12, 2: -0.11}, {0: 0.10, 1: -0.10, 2: 0.02}


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([(ABOVE, True), (ABOVE, True)], "reproduced"),
        ([(ABOVE, True), (UNCLEAR, False), (BELOW, False)], "reproduced"),
        ([(ABOVE, True), (UNCLEAR, True)], "not reproduced here"),
        ([(ABOVE, True), (BELOW, True)], "the contrary"),
        ([({0: 0.3}, True)], "one seed proves nothing"),
    ],
)
def test_a_verdict_is_that_of_the_claims_and_not_of_the_controls(differences, verdict) -> None:
    assert result(*differences).verdict == verdict


def test_an_interval_is_students_over_the_seeds() -> None:
    mean, low, high = Spread({0: 0.1, 1: 0.2, 2: 0.3}).minus(Spread({2: 0.1, 1: 0.1, 0: 0.1})).interval
    # The t of 2 degrees of freedom is 4.303: 0.1 +- 4.303 * 0.1 / sqrt(3).
    assert (mean, low, high) == (pytest.approx(0.1), pytest.approx(-0.1484, abs=1e-4), pytest.approx(0.3484, abs=1e-4))


def test_what_is_said_names_each_claim_with_its_interval() -> None:
    said = result((ABOVE, True), (UNCLEAR, True), (BELOW, False)).reason
    assert said == "a - b: +0.110 (+0.085 to +0.135), above 0; a - b: +0.007 (-0.243 to +0.257), cannot be told from 0"


def planted(folder: Path, seeds: tuple[int, ...], gain: float) -> Study:
    """A study that was made, in which each tenfold count is worth so much; accuracies differ from seed to seed."""
    study = Study(folder, Size.of(15, 3), seeds, chosen("2,5"))
    counts = np.repeat(np.geomspace(1, 1_000, 25).round(), 4)
    for seed in seeds:
        store = Store(str(study.seed_folder(seed) / "store"))
        rows = []
        for place, arm in enumerate(study.arms):
            about = {
                "run": run_key(arm, seed),
                "data": arm.data,
                "data_size": 100 + place,
                "scale": "study",
                "seed": seed,
            }
            accuracy = 0.1 * place + 0.01 * seed
            value = {"task": TASK, "task_name": TASK, "metric": "acc1", "value": accuracy, "is_main": True}
            other = {**value, "metric": "acc5", "value": 1.0, "is_main": False}
            more = {**about, "is_final": True, "images": 9, "left_out": 0}
            write(store, "evaluation", run_key(arm, seed), EVALUATION, [{**more, **value}, {**more, **other}])
            rows += [
                {**about, "task": TASK, "class_name": f"{number}", "caption_samples": count, "images": 10}
                | {"accuracy": 0.05 + gain * math.log10(count)}
                for number, count in enumerate(counts)
            ]
        write(store, "concept_accuracies", None, CONCEPT_ACCURACIES, rows)
    return study


def write(store: Store, asset: str, partition: str | None, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
    """Store a table as its asset does."""
    table = pa.Table.from_pylist(rows, schema)
    store.write_table(asset, partition, table, schema, Stamp("made up", "1", len(rows)))


def test_results_are_those_of_the_tables_of_each_seed(tmp_path: Path) -> None:
    filtering, frequency = results_of(planted(tmp_path, (3, 4), 0.2))
    assert {name: one.accuracy.by_seed for name, one in filtering.arms.items()} == {
        arm.name: {3: pytest.approx(0.1 * place + 0.03), 4: pytest.approx(0.1 * place + 0.04)}
        for place, arm in enumerate(filtering.finding.arms)
    }
    assert [one.samples for one in filtering.arms.values()] == [100, 101, 102, 103]
    assert [round(spread.interval[0], 6) for _, spread in filtering.differences] == [-0.1, 0.2, 0.1, 0.3]
    assert (filtering.verdict, frequency.verdict) == ("the contrary", "reproduced")
    for one in frequency.by_frequency:
        assert [*one.slope.by_seed.values()] == [pytest.approx(0.2)] * 2
        assert one.unbinned_r.by_seed[4] == pytest.approx(1)
    assert frequency.document()["by_frequency"][0]["accuracy_for_a_tenfold_count"]["mean"] == pytest.approx(0.2)


def test_a_study_too_small_to_fit_says_so(tmp_path: Path) -> None:
    study = planted(tmp_path, (0,), 0.2)
    few = [
        {"run": run_key(arm, 0), "data": arm.data, "data_size": 1, "scale": "study", "seed": 0, "task": TASK}
        | {"class_name": "dog", "caption_samples": 1.0, "images": 1, "accuracy": 1.0}
        for arm in study.arms
    ]
    write(Store(str(study.seed_folder(0) / "store")), "concept_accuracies", None, CONCEPT_ACCURACIES, few)
    with pytest.raises(StudyError, match=r"in top_30: all counts are the same.*make more with --minutes"):
        results_of(study)


def test_findings_are_chosen_by_number_and_stay_in_order() -> None:
    assert [one.number for one in chosen("3, 2")] == [2, 3]
    assert chosen(None) == FINDINGS
    with pytest.raises(UsageError, match=r"no finding '7'; there are: 1 \(Better captions\), 2"):
        chosen("2,7")


def test_every_comparison_is_of_arms_of_its_finding() -> None:
    for finding in FINDINGS:
        names = {arm.name for arm in finding.arms}
        assert len(names) == len(finding.arms)
        assert {*finding.by_frequency} <= names
        for one in finding.comparisons:
            assert {one.better, one.than} <= names
        assert finding.by_frequency or any(one.is_claim for one in finding.comparisons)


def test_more_minutes_make_more_and_more_seeds_less_of_each() -> None:
    assert Size.of(15, 3) == Size.of(25, 5)
    assert Size.of(15, 3).rows == 2 * Size.of(7.5, 3).rows == 10_000
    assert Size.of(0.1, 3).rows == 200


def test_jobs_make_every_asset_once_and_each_training_in_one_process(tmp_path: Path) -> None:
    study = Study(tmp_path, Size.of(1, 1), (4,), FINDINGS)
    settings = study.settings(4, ["dog", "cat"])
    # Its files are not written.
    settings |= {"captioners": [], "scorer": {"kind": "label_space"}}
    settings["training"]["runs"] = [one for one in settings["training"]["runs"] if one["captions"] == "original"]
    stages = graph.stages(Settings.model_validate(settings))
    made = [
        name for phase in (worker.PREPARE, worker.TRAIN, worker.EVALUATE) for name in worker.assets_of(stages, phase)
    ]
    assert len({*made}) == len(made)
    assert {"raw_samples", "code_clusters", "subsets/tldr_25", "training_run", "evaluation", "leaderboard"} <= {*made}
    assert not {"warehouse", "caption_collection", "collection_map"} & {*made}

    jobs = jobs_of(study, 2)
    runs = [run for job in jobs for run in job.runs]
    assert sorted(runs) == sorted(f"{arm.data}-study-4" for arm in study.arms)
    known: set[str] = set()
    for job in jobs:
        assert known.issuperset(job.after)
        known.add(job.name)
