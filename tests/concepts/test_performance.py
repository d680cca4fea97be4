"""The log-linear law: the paper's figures on the paper's data, and the way there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.performance import accuracy_table, log_linear_fit, predict_accuracy, samples_needed

if TYPE_CHECKING:
    from pathlib import Path

TASKS = [
    "imagenet", "cifar10", "cifar100", "caltech101", "caltech256", "sun397", "birdsnap", "country211", "cub", "dtd",
    "eurosat", "fgvcaircraft", "flowers102", "food101", "imagenet-sketch", "oxfordpets", "stanfordcars", "ucf101",
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(sbu: Path) -> pa.Table:
    """Counts and accuracies of the paper, side by side."""
    folder = sbu.parent / "concept_frequency"
    counts = pq.read_table(folder / "search_counts.parquet")
    accuracy = pq.read_table(folder / "zero_shot_accuracy.parquet")
    counts = counts.filter(pc.is_in(counts["downstream"], value_set=pa.array(TASKS, pa.large_string())))
    plane = pc.and_(pc.equal(counts["downstream"], "cifar10"), pc.equal(counts["concept"], "airplane"))
    named = pc.if_else(plane, pa.scalar("plane", pa.large_string()), counts["concept"])
    counts = counts.set_column(counts.schema.get_field_index("concept"), "concept", named)
    accuracy = accuracy.filter(pc.equal(accuracy["prompts"], "ensemble"))
    return counts.join(accuracy, ["downstream", "pretraining", "concept"], join_type="inner")


@pytest.mark.parametrize(
    ("search", "pretraining", "backbone", "concepts", "r"),
    [
        ("rampp0.7", "cc3m", "RN50", 4469, 0.977),
        ("rampp0.7", "cc3m", "ViT-B-16", 4469, 0.975),
        ("rampp0.7", "cc12m", "RN50", 4469, 0.975),
        ("rampp0.7", "cc12m", "ViT-B-16", 4469, 0.976),
        ("lemmatized", "cc3m", "RN50", 3469, 0.935),
        ("lemmatized", "cc3m", "ViT-B-16", 3469, 0.927),
        ("lemmatized", "cc12m", "RN50", 3469, 0.957),
        ("lemmatized", "cc12m", "ViT-B-16", 3469, 0.955),
    ],
)
def test_the_correlations_of_the_paper(
    measured: pa.Table, search: str, pretraining: str, backbone: str, concepts: int, r: float
) -> None:
    wanted = pc.and_(
        pc.equal(measured["search"], search),
        pc.and_(pc.equal(measured["pretraining"], pretraining), pc.equal(measured["backbone"], backbone)),
    )
    rows = measured.filter(wanted)
    fit = log_linear_fit(rows["count"].to_numpy(), rows["accuracy"].to_numpy())
    assert fit.concepts == concepts
    assert fit.r == pytest.approx(r, abs=0.001)
    assert fit.p_value < 1e-3
    assert not fit.empty
    assert fit.binned.slope_low < fit.binned.slope < fit.binned.slope_high
    assert 0 < fit.unbinned.r < fit.r


def test_bins_are_right_closed_and_the_least_count_is_a_bin_of_its_own() -> None:
    counts = np.array([0, 1, 2, 4, 4, 5, 8, 16])
    fit = log_linear_fit(counts, np.arange(8), bins=5)
    assert fit.edges == pytest.approx(np.log([1, 2, 4, 8, 16]))
    assert fit.concepts_per_bin.tolist() == [2, 1, 2, 2, 1]
    assert fit.means.tolist() == [0.5, 2, 3.5, 5.5, 7]
    line = np.polyfit(np.log([2, 4, 8]), [2, 3.5, 5.5], 1)
    assert (fit.binned.slope, fit.binned.intercept) == pytest.approx(tuple(line))
    whole = np.polyfit(np.log(np.maximum(counts, 1)), np.arange(8), 1)
    assert (fit.unbinned.slope, fit.unbinned.intercept) == pytest.approx(tuple(whole))


def test_empty_bins_are_left_out_and_said() -> None:
    counts = np.exp([0.0, 1, 2, 5, 6, 7, 8])
    fit = log_linear_fit(counts, [0, 1, 2, 5, 6, 7, 8], bins=9)
    assert fit.empty == (3, 4)
    assert np.isnan(fit.means[[3, 4]]).all()
    assert fit.binned.points == 5
    assert fit.r == pytest.approx(1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    counts = np.exp(random.uniform(0, 10, 400))
    covered = 0
    for _ in range(200):
        line = log_linear_fit(counts, 0.1 + 0.05 * np.log(counts) + random.normal(0, 0.2, 400), level=0.8).unbinned
        covered += (line.slope_low < 0.05 < line.slope_high) + (line.intercept_low < 0.1 < line.intercept_high)
    assert 0.74 < covered / 400 < 0.86


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20), st.floats(0.05, 0.95))
def test_with_the_samples_needed_the_target_is_reached_and_with_one_less_it_is_not(
    counts: list[int], target: float
) -> None:
    grown = np.geomspace(1, 1e6, 200)
    fit = log_linear_fit(grown, 0.03 + 0.05 * np.log(grown))
    needed = samples_needed(fit, counts, target)
    assert (needed >= 0).all()
    assert (predict_accuracy(fit, counts + needed) >= target - 1e-9).all()
    short = needed > 1
    before = (np.asarray(counts) + needed - 1)[short]
    assert (predict_accuracy(fit, before) < target + 1e-9).all()


def test_each_further_point_costs_so_many_times_more() -> None:
    grown = np.geomspace(1, 1e6, 200)
    fit = log_linear_fit(grown, 0.05 * np.log(grown))
    bill = [samples_needed(fit, [0], target)[0] for target in (0.2, 0.3, 0.4)]
    assert bill[1] / bill[0] == pytest.approx(np.exp(2), rel=0.02)
    assert bill[2] / bill[1] == pytest.approx(np.exp(2), rel=0.02)


def test_where_frequency_does_not_help_no_number_is_enough() -> None:
    counts = np.geomspace(1, 1e6, 50)
    fit = log_linear_fit(counts, 1 - 0.01 * np.log(counts))
    assert samples_needed(fit, [10, 10**6], 0.95).tolist() == [0, np.inf]
    steep = log_linear_fit(counts, 1e-4 * np.log(counts))
    assert samples_needed(steep, [10], 1.0).tolist() == [np.inf]


def test_the_table_of_a_plan() -> None:
    counts = np.geomspace(1, 1e6, 50)
    fit = log_linear_fit(counts, 0.05 * np.log(counts))
    table = accuracy_table(fit, ["cat", "fly agaric"], [100_000, 0], 0.5)
    assert table["concept"].to_pylist() == ["cat", "fly agaric"]
    assert table["count"].to_pylist() == [100_000, 0]
    assert table["predicted_accuracy"].to_pylist() == pytest.approx([0.05 * np.log(1e5), 0.0], abs=0.01)
    assert table["samples_needed"].to_pylist() == pytest.approx([0, np.exp(10)], rel=0.1)


def test_a_law_without_noise_is_found_again() -> None:
    counts = np.geomspace(1, 1e6, 5000)
    fit = log_linear_fit(counts, 0.1 + 0.05 * np.log(counts))
    assert predict_accuracy(fit, [1, 1000, 10**6]) == pytest.approx(0.1 + 0.05 * np.log([1, 1000, 10**6]), abs=2e-3)
    assert samples_needed(fit, [0], 0.5)[0] == pytest.approx(np.exp(8), rel=0.02)
    assert (fit.unbinned.slope, fit.unbinned.intercept) == pytest.approx((0.05, 0.1))


@pytest.mark.parametrize(
    ("counts", "accuracy", "message"),
    [
        ([1, 2], [0.1], "2 counts and 1 accuracies"),
        ([-1, 2], [0.1, 0.2], "a count is below 0"),
        ([1, np.nan], [0.1, 0.2], "a count is below 0 or not finite"),
        ([1, 2], [0.1, np.nan], "an accuracy is not finite"),
        ([0, 1, 1], [0.1, 0.2, 0.3], "all counts are the same"),
        ([], [], "all counts are the same"),
        ([1, 10, 100], [0.1, 0.2, 0.3], "1 of the 10 bins between the first and the last have concepts"),
    ],
)
def test_what_cannot_be_fitted_is_refused(counts: list[float], accuracy: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_linear_fit(counts, accuracy)
