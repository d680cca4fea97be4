"""Verdicts by the rule, and what a study consists of."""

from __future__ import annotations

import importlib
import io
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.evaluation.tables import CLASS_COUNTS, CONCEPT_ACCURACIES, EVALUATION, TRAINING_CURVES
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, MEASURED_MIXTURES, POOL_UTILITIES
from dqe_assets.study import plots, worker
from dqe_assets.study.findings import FINDINGS, Arm, Comparison, Finding
from dqe_assets.study.plan import CURVE, LOSS, RAREST, TASK, Size, Study, StudyError, chosen, run_key
from dqe_assets.study.results import Difference, MeasuredArm, Result, Spread, results_of
from dqe_assets.study.run import jobs_of
from dqe_resources.errors import UsageError
from dqe_resources.store import Stamp, Store
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.study.findings import Law

PAIR = (Arm("a", "one"), Arm("b", "the other", "random(share=0.5)"))


def result(*differences: tuple[dict[int, float], bool]) -> Result:
    """A finding with these differences of a and b, by seed, each a claim or a control."""
    compared = tuple(Difference("a - b", "Is it so?", Spread(by_seed), is_claim) for by_seed, is_claim in differences)
    comparisons = tuple(Comparison("a", "b", one.question, one.is_claim) for one in compared)
    finding = Finding(9, "name", "claim", "paper", "different", PAIR, comparisons)
    return Result(finding, {arm.name: MeasuredArm(arm, 10, Spread({0: 0.5})) for arm in PAIR}, compared)


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


def planted(folder: Path, seeds: tuple[int, ...], gain: float, findings: str = "2,5") -> Study:
    """A study that was made, in which each tenfold count is worth so much; accuracies differ from seed to seed.

    Samples that are added name the rarest things ten times as often; at random, not more often than before.
    """
    study = Study(folder, Size.of(15, 3), seeds, chosen(findings))
    counts = np.repeat(np.geomspace(1, 1_000, 25).round(), 4)
    rarest = counts.argsort(kind="stable")[:RAREST]
    for seed in seeds:
        rows: dict[Path, list[dict[str, object]]] = {}
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
            store = Store(str(study.folder_of(arm, seed) / "store"))
            write(store, "evaluation", run_key(arm, seed), EVALUATION, [{**more, **value}, {**more, **other}])
            mine = counts.copy()
            if arm.name == "more_rare":
                mine[rarest] *= 10
            rows.setdefault(study.folder_of(arm, seed), []).extend(
                {**about, "task": TASK, "class_name": f"{number:03}", "caption_samples": count, "images": 10}
                | {"accuracy": 0.05 + gain * math.log10(count)}
                for number, count in enumerate(mine)
            )
        for place, some in rows.items():
            write(Store(str(place / "store")), "concept_accuracies", None, CONCEPT_ACCURACIES, some)
        if study.addition:
            named = {"item": "original", "beside": "original"}
            classes = [{"class_name": f"{n:03}", "samples": int(count), **named} for n, count in enumerate(counts)]
            store = Store(str(study.seed_folder(seed) / "store"))
            write(store, f"class_counts/{study.base.data}", None, CLASS_COUNTS, classes)
    return study


def write(
    store: Store, asset: str, partition: str | None, schema: pa.Schema, rows: list[dict[str, object]], *failed: str
) -> None:
    """Store a table as its asset does, with the checks that it failed."""
    table = pa.Table.from_pylist(rows, schema)
    store.write_table(asset, partition, table, schema, Stamp("made up", "1", len(rows), failed_checks=failed))


def test_results_are_those_of_the_tables_of_each_seed(tmp_path: Path) -> None:
    filtering, frequency = results_of(planted(tmp_path, (3, 4), 0.2))
    assert {name: one.accuracy.by_seed for name, one in filtering.arms.items()} == {
        arm.name: {3: pytest.approx(0.1 * place + 0.03), 4: pytest.approx(0.1 * place + 0.04)}
        for place, arm in enumerate(filtering.finding.arms)
    }
    assert [one.samples for one in filtering.arms.values()] == [100, 101, 102, 103, 104, 105]
    assert [round(one.spread.mean, 6) for one in filtering.differences] == [-0.2, 0.3, 0.2, 0.1, -0.1, 0.5]
    assert (filtering.verdict, frequency.verdict) == ("the contrary", "reproduced")
    for one in frequency.by_frequency:
        assert [*one.slope.by_seed.values()] == [pytest.approx(0.2)] * 2
        assert one.unbinned_r.by_seed[4] == pytest.approx(1)
    assert frequency.document()["by_frequency"][0]["accuracy_for_a_tenfold_count"]["mean"] == pytest.approx(0.2)


def test_what_is_added_lifts_the_rarest_by_what_the_fit_predicts(tmp_path: Path) -> None:
    (frequency,) = results_of(planted(tmp_path, (3, 4), 0.2, "5"))
    added = frequency.added
    assert added is not None
    assert added.after.mean == pytest.approx(10 * added.before.mean)
    assert [*added.lift.by_seed.values()] == [pytest.approx(0.2)] * 2
    assert [*added.predicted.by_seed.values()] == [pytest.approx(0.2, abs=0.01)] * 2
    assert added.lift_by_any.mean == pytest.approx(0)
    lift, instead, beyond = added.differences
    assert (lift.is_claim, instead.is_claim, beyond.is_claim) == (True, False, False)
    assert instead.spread.mean == pytest.approx(0.2)
    assert abs(beyond.spread.mean) < 0.01
    assert [one.name for one in frequency.claims] == ["slope in top_25", "rarest: more_rare - top_25"]
    assert frequency.document()["addition"]["predicted_lift"]["mean"] == pytest.approx(0.2, abs=0.01)


def followed(
    folder: Path, losses: dict[str, tuple[float, float]], predicted: dict[str, float | None], *failed: str
) -> Study:
    """A study of finding 4 that was made: the loss of each part at little and at much compute, for seeds 0 and 1.

    What is predicted, and what failed, is of the pool; of the clean one all is predicted as it is.
    """
    study = Study(folder, Size.of(15, 3), (0, 1), chosen("4"))
    assert study.law is not None
    assert study.clean is not None
    for seed in study.seeds:
        store = Store(str(study.seed_folder(seed) / "store"))
        write_law(store, study.law, study.size.budgets, losses, predicted, 0.01 * seed, *failed)
        store = Store(str(study.clean_folder(seed) / "store"))
        told = {name: CLEAN_LOSSES[name][1] for name in study.clean.mixtures}
        write_law(store, study.clean, study.size.clean_budgets, CLEAN_LOSSES, dict(told), 0)
    together = {name: CLEAN_LOSSES[name][1] - 0.01 for name in ("best_2", "best_3")} | {"all": None}
    write_law(Store(str(study.law_folder / "store")), study.clean, study.size.clean_budgets, CLEAN_LOSSES, together, 0)
    return study


def write_law(
    store: Store,
    law: Law,
    budgets: tuple[int, int],
    losses: dict[str, tuple[float, float]],
    predicted: dict[str, float | None],
    more: float,
    *failed: str,
) -> None:
    """Store what is measured and said of the curves of a data folder, of which the last part's does not fall."""
    of_loss = {"metric": LOSS, "source": "training_curves"}
    curves = [
        {**of_loss, "pool": name, "pool_size": 1_250, "samples_seen": seen, "error": loss + more, "seeds": 1}
        for name, both in losses.items()
        for seen, loss in zip(budgets, both, strict=True)
    ]
    other = {**curves[0], "metric": "objects acc1", "error": 0.5}
    write(store, "training_curves", None, TRAINING_CURVES, [*curves, other])
    little, much = budgets
    fitted = {"rank": 1, "pool_size": 1_250, "unit": 1_000, "points": 5, "epochs": 4.0, "falls": True}
    seen = {"least_samples_seen": little, "most_samples_seen": much}
    measured = {"measured_samples_seen": [1.0], "measured_error": [1.0]}
    pools = [{**of_loss, **fitted, **seen, **measured, "pool": pool.name} for pool in law.parts]
    pools[-1]["falls"] = False
    write(store, "pool_utilities", None, POOL_UTILITIES, pools, *failed)
    mixtures = [
        {**of_loss, "mixture": name, "pools": [], "samples_seen": much, "error": losses[name][1], "predicted": told}
        for name, told in predicted.items()
    ]
    write(store, "measured_mixtures", None, MEASURED_MIXTURES, mixtures)
    advice = {**of_loss, "pools": [], "kept_samples": 1, "epochs": 1.0, "mixtures_measured": 3}
    advice |= {"share_best": 1.0, "is_measured": True, "is_best": True}
    advice |= dict.fromkeys(("error", "error_low", "error_high"), 0.5)
    kept = [{**advice, "samples_seen": seen, "keep": keep} for seen, keep in ((little, 1), (much, 4))]
    no_best = {**kept[0], "keep": 2, "is_best": False}
    write(store, "filter_recommendation", None, FILTER_RECOMMENDATION, [*kept, no_best])


CLEAN_LOSSES = {
    "right_99": (0.80, 0.70),
    "right_96": (0.80, 0.71),
    "right_88": (0.82, 0.72),
    "right_68": (0.85, 0.75),
    "best_2": (0.79, 0.68),
    "best_3": (0.79, 0.66),
    "all": (0.80, 0.64),
}

LOSSES = {
    "eighth_1": (0.80, 0.70),
    "eighth_2": (0.84, 0.72),
    "eighth_3": (0.88, 0.76),
    "eighth_4": (0.92, 0.80),
    "top_25": (0.82, 0.64),
    "top_38": (0.84, 0.62),
    "top_50": (0.86, 0.60),
    "rest": (1.00, 1.00),
    "all": (0.95, 0.85),
}


def test_the_best_share_moves_and_the_law_is_compared_with_the_mean_of_the_parts(tmp_path: Path) -> None:
    (found,) = results_of(followed(tmp_path, LOSSES, {"top_25": 0.66, "top_38": 0.62, "top_50": 0.59, "all": None}))
    law = found.law
    assert law is not None
    assert [round(one.spread.mean, 6) for one in found.differences[:2]] == [0.06, 0.10]
    assert [one.is_claim for one in found.differences] == [True, True, False, False, True]
    assert law.error_of_law.by_seed == {0: pytest.approx(0.01), 1: pytest.approx((0.01 + 0.01 + 0.02) / 3)}
    assert law.error_of_mean.mean == pytest.approx((0.07 + 0.32 / 3 + 0.145) / 3), "of top_25, top_38 and top_50"
    assert law.silent_in == []
    assert law.falling["rest"] == ()
    assert law.falling["eighth_4"] == (0, 1)
    assert [round(one.spread.mean, 6) for one in law.advised] == [0.15, 0.25, 0, 0]
    assert found.clean is not None
    assert found.clean.predicts.spread.by_seed == pytest.approx({0: 0.155 / 3, 1: 0.155 / 3}), "of 2, 3 and 4 parts"
    assert found.differences[-1] == found.clean.predicts
    assert found.verdict == "reproduced"
    assert found.document()["together"] == [
        {
            "name": "best_2",
            "what": "the two best parts",
            "error_of_law": pytest.approx(0.01),
            "error_of_mean": pytest.approx(0.025),
        },
        {
            "name": "best_3",
            "what": "the three best parts",
            "error_of_law": pytest.approx(0.01),
            "error_of_mean": pytest.approx(0.05),
        },
        {"name": "all", "what": "the whole pool, as found", "error_of_law": None, "error_of_mean": pytest.approx(0.08)},
    ]
    assert found.document()["clean"]["curves"][0]["what"] == "99 % of captions right"
    document = found.document()["law"]
    assert document["recommended_pools"] == {
        str(law.budgets[0]): {"0": 1, "1": 1},
        str(law.budgets[1]): {"0": 4, "1": 4},
    }
    assert document["curves"][4]["predicted"][str(law.budgets[1])]["mean"] == pytest.approx(0.66)


@pytest.mark.parametrize(("told", "failed"), [(None, ()), (0.64, ("fits_well",))])
def test_a_law_that_says_nothing_or_does_not_fit_is_no_better_than_the_mean(tmp_path: Path, told, failed) -> None:
    study = followed(tmp_path, LOSSES, dict.fromkeys(("top_25", "top_38", "top_50", "all"), told), *failed)
    (found,) = results_of(study)
    assert found.differences[3].spread.by_seed == {0: 0, 1: 0}
    assert found.verdict == "reproduced", "what is claimed of the law is claimed of the clean pool"
    assert found.law is not None
    assert found.law.silent_in == found.document()["law"]["silent_in_seeds"] == [0, 1]
    assert found.law.falling["eighth_1"] == (() if failed else (0, 1))
    assert found.law.advised[0].spread.mean == pytest.approx(0 if failed else 0.15), "nothing is recommended: all"


def test_a_study_too_small_to_fit_says_so(tmp_path: Path) -> None:
    study = planted(tmp_path, (0,), 0.2)
    few = [
        {"run": run_key(arm, 0), "data": arm.data, "data_size": 1, "scale": "study", "seed": 0, "task": TASK}
        | {"class_name": "dog", "caption_samples": 1.0, "images": 1, "accuracy": 1.0}
        for arm in study.arms
    ]
    write(Store(str(study.seed_folder(0) / "store")), "concept_accuracies", None, CONCEPT_ACCURACIES, few)
    with pytest.raises(StudyError, match=r"in top_25: all counts are the same.*make more with --minutes"):
        results_of(study)


def test_docs_have_a_place_for_each_finding_and_take_its_figures(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    make_study = importlib.import_module("make_study")
    results = [
        *results_of(planted(tmp_path / "planted", (0, 1), 0.2)),
        *results_of(followed(tmp_path / "followed", LOSSES, {"top_25": 0.66})),
    ]
    study = {"seeds": [0, 1], "rows": 10_000, "samples_seen": 40_960, "chance": 1 / 149}
    study["findings"] = [one.document() for one in results]
    page = (ROOT / "docs" / "study.md").read_text()
    found = make_study.written(page, json.loads(json.dumps(study)), {"study_4_compute.png": b""})
    assert all(f"<!-- study: {finding.number} -->" in page for finding in FINDINGS)
    assert "Seeds 0 and 1: as many worlds. A pool has 10,000 pictures, and every model sees 40,960 samples." in found
    assert "### Which data for which compute: reproduced" in found
    assert "| 99 % of captions right | 1,250 | 0.800 (0.800 to 0.800) |" in found
    assert "| the best eighth | 1,250 | 0.805 (0.741 to 0.869) | 0.705 (0.641 to 0.769) |  |" in found
    assert "![Loss over samples seen, and what was predicted of mixtures](images/study_4_compute.png)" in found
    assert "| Do more pictures of the rarest things lift these? | rarest: more_rare - top_25 | +0.200 (" in found
    assert found.split("<!-- end -->")[1].endswith(page.split("<!-- end -->")[1][-9:]), "what is not of it stays"
    assert make_study.written(found, json.loads(json.dumps(study)), {"study_4_compute.png": b""}) == found


def test_pictures_of_curves_are_drawn_with_and_without_predictions(tmp_path: Path) -> None:
    for name, predicted in (("some", {"top_25": 0.66}), ("none", {"top_25": None})):
        (found,) = results_of(followed(tmp_path / name, LOSSES, predicted))
        assert found.law is not None
        assert found.clean is not None
        for measured in (found.law, found.clean):
            with Image.open(io.BytesIO(plots.over_compute(measured))) as picture:
                assert picture.width > picture.height > 100


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
        assert finding.by_frequency or finding.law or any(one.is_claim for one in finding.comparisons)
        if added := finding.addition:
            assert {added.base, added.rare, added.any} <= names
            assert added.base in finding.by_frequency
        for law in filter(None, (finding.law, finding.clean)):
            assert {pool for pools in law.mixtures.values() for pool in pools} <= {arm.name for arm in law.arms}


def test_more_minutes_make_more_and_more_seeds_less_of_each() -> None:
    assert Size.of(15, 3) == Size.of(25, 5)
    assert Size.of(30, 3).rows == 2 * Size.of(15, 3).rows == 8_000
    assert Size.of(0.1, 3).rows == 200


def test_jobs_make_every_asset_once_and_each_training_in_one_process(tmp_path: Path) -> None:
    study = Study(tmp_path, Size.of(1, 1), (4,), FINDINGS)
    settings = study.settings(4, ["dog", "cat"])
    # Its files are not written.
    settings |= {"captioners": [{"kind": "labels", "name": "synthetic"}], "scorer": {"kind": "label_space"}}
    del settings["concepts"]["tagger"]
    runs = settings["training"]["runs"]
    settings["training"]["runs"] = [one for one in runs if one.get("captions") not in {"true", "distilled"}]
    stages = graph.stages(Settings.model_validate(settings))
    made = [
        name for phase in (worker.PREPARE, worker.TRAIN, worker.EVALUATE) for name in worker.assets_of(stages, phase)
    ]
    assert len({*made}) == len(made)
    assert {"raw_samples", "code_clusters", "subsets/tldr_25", "training_run", "evaluation", "leaderboard"} <= {*made}
    assert not {"warehouse", "caption_collection", "collection_map", "measured_mixtures"} & {*made}
    assert {*worker.assets_of(stages, worker.EVALUATE, worker.SCALING)} - {*made} == {
        *worker.SCALING,
        "pool_utilities",
        "training_curves",
    }

    assert study.clean is not None
    clean = Settings.model_validate(
        study.clean_settings(study.clean, 4) | {"scorer": {"kind": "label_space"}, "evaluation": {}}
    )
    assert [one.caption_kinds["right"] for one in study.clean_parts(4)] == [0.99, 0.96, 0.88, 0.68]
    follow = worker.assets_of(graph.stages(clean), worker.FOLLOW, worker.SCALING)
    assert {"subsets/best_2", "training_run", "pool_utilities", *worker.SCALING} <= {*follow}
    assert not {"leaderboard", "warehouse"} & {*follow}
    together = Settings.model_validate(study.law_settings(study.clean) | {"scaling": {}})
    assert worker.assets_of(graph.stages(together), worker.FIT) == []
    assert worker.assets_of(graph.stages(together), worker.FIT, worker.SCALING) == ["pool_utilities", *worker.SCALING]

    jobs = jobs_of(study, 2)
    runs = [run for job in jobs for run in job.runs]
    assert study.law is not None
    followed_runs = [run_key(arm, 4, CURVE) for arm in study.law.arms]
    assert sorted(runs) == sorted([*followed_runs, *(run_key(a, 4) for a in study.arms if not a.is_added_to)])
    known: set[str] = set()
    for job in jobs:
        assert known.issuperset(job.after)
        known.add(job.name)
