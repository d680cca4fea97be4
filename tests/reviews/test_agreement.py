"""Figures of agreement against what is known of them, and samples that are drawn as they are said to be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.report.review_agreement import ALL, AT_RANDOM, agreement, notes
from dqe_assets.report.review_sample import Drawn, in_turns, shares
from dqe_assets.reviews.agreement import auc_and_precision, precision_and_recall, proportion


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Agresti and Coull 1998 give it for 8 of 10, and for 0 of 10.
    found = proportion(np.array([True] * 8 + [False] * 2), np.ones(10))
    assert found == pytest.approx((0.8, 0.4901625, 0.9433178))
    none = proportion(np.zeros(10, bool), np.ones(10))
    assert none == pytest.approx((0.0, 0.0, 0.2775328))


def test_weights_that_are_alike_change_nothing_and_others_widen_the_interval() -> None:
    hits = np.array([True, False] * 10)
    even, heavy = proportion(hits, np.ones(20)), proportion(hits, np.full(20, 7.0))
    uneven = proportion(hits, np.repeat([1.0, 9.0], 10))
    assert even == pytest.approx(heavy)
    assert uneven.high - uneven.low > even.high - even.low
    assert np.isnan(proportion(np.zeros(0, bool), np.zeros(0))).all()


def test_precision_and_recall_of_a_filter() -> None:
    passes, kept = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 0], bool)
    precision, recall = precision_and_recall(passes, kept, np.array([1.0, 1.0, 2.0, 1.0, 1.0]))
    assert precision.value == pytest.approx(0.5)
    assert recall.value == pytest.approx(2 / 3)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0.1, 10)), min_size=2, max_size=30).filter(
        lambda rows: len({kept for _, kept, _ in rows}) == 2
    )
)
def test_area_and_average_precision_are_what_they_are_by_counting(rows: list[tuple[int, bool, float]]) -> None:
    values, kept, weights = (np.array(column) for column in zip(*rows, strict=True))
    area, precision = auc_and_precision(values.astype(float), kept, weights)
    pairs = (values[kept][:, None] > values[~kept]) + 0.5 * (values[kept][:, None] == values[~kept])
    weighed = weights[kept][:, None] * weights[~kept]
    assert area.value == pytest.approx((pairs * weighed).sum() / weighed.sum())
    steps = [
        weights[kept & (values == value)].sum()
        * weights[kept & (values >= value)].sum()
        / weights[values >= value].sum()
        for value in np.unique(values)
    ]
    assert precision.value == pytest.approx(sum(steps) / weights[kept].sum())
    assert area.low - 1e-9 <= area.high
    assert 0 <= area.low <= area.high <= 1 + 1e-9


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng, covered, times = np.random.default_rng(3), 0, 60
    truth = 0.7602  # Of two normal distributions one standard deviation apart: Phi(1 / sqrt(2)).
    for _ in range(times):
        kept = rng.random(120) < 0.5
        found, _ = auc_and_precision(rng.normal(size=120) + kept, kept, np.ones(120))
        covered += found.low <= truth <= found.high
    assert covered >= 0.85 * times


def test_what_was_decided_one_way_only_says_nothing() -> None:
    area, precision = auc_and_precision(np.arange(3.0), np.ones(3, bool), np.ones(3))
    assert np.isnan([*area, *precision]).all()


def decided(**columns: list[object]) -> pa.Table:
    size = len(columns["is_kept"])
    base = {"uid": [str(n) for n in range(size)], "shard": ["s"] * size}
    types = {"drawn_by": pa.string(), "weight": pa.float64()}
    missing = {name: pa.nulls(size, kind) for name, kind in types.items() if name not in columns}
    return pa.table({**base, **missing, **columns})


def test_the_random_ones_are_counted_apart_and_weighed() -> None:
    table = decided(
        is_kept=[True, False, True, False],
        drawn_by=["random", "random", "disagreement", None],
        weight=[30.0, 10.0, None, None],
        similarity=[0.9, 0.1, 0.2, None],
    )
    filters, scores = agreement(table, {"best": np.array([True, True, False, False])}, ["similarity"])
    every, drawn = filters.to_pylist()
    assert (every["samples"], every["kept_passed"], every["dropped_passed"], every["kept_stopped"]) == (ALL, 1, 1, 1)
    assert every["precision"] == pytest.approx(0.5)
    assert (drawn["samples"], drawn["recall"]) == (AT_RANDOM, 1.0)
    assert drawn["precision"] == pytest.approx(0.75)
    assert [(row["samples"], row["unknown"], row["auc"]) for row in scores.to_pylist()] == [
        (ALL, 1, 1.0),
        (AT_RANDOM, 0, 1.0),
    ]
    said = " ".join(notes(table, 2))
    assert "2 more have no image" in said
    assert "2 of them were drawn at random" in said
    assert "people would keep 75%" in said
    assert "1 were chosen because measures disagree" in said
    assert "none of them was drawn at random" in " ".join(notes(decided(is_kept=[True]), 0))


def test_strata_take_turns_and_no_sample_comes_twice() -> None:
    strata = [[Drawn(uid, "") for uid in text] for text in ("abcd", "ax", "")]
    assert [one.uid for one in in_turns(strata, 4)] == ["a", "x", "b", "c"]
    assert [one.uid for one in in_turns(strata, 9)] == ["a", "x", "b", "c", "d"]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(1, 120))
def test_shares_are_in_proportion_and_never_more_than_there_are(sizes: list[int], count: int) -> None:
    found = shares(sizes, count)
    assert sum(found) == min(count, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(found, sizes, strict=True))
    if count >= len(sizes):
        assert all(share > 0 for share, size in zip(found, sizes, strict=True) if size)
