"""What judgements say, against other libraries and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from dqe_assets.improve.agreement import agreement, cohen_kappa, mean_interval, means

RATINGS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(RATINGS)
def test_kappa_is_that_of_scikit_learn(ratings: list[tuple[int, int]]) -> None:
    first, second = zip(*ratings, strict=True)
    if len({*first, *second}) == 1:
        assert math.isnan(cohen_kappa(first, second))
    else:
        assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_by_hand() -> None:
    # Cohen's own form: 20 both yes, 15 both no, 5 and 10 apart: (0.7 - 0.5) / (1 - 0.5).
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert math.isnan(cohen_kappa([], []))
    with pytest.raises(ValueError, match="the raters rate 2 and 3 items"):
        cohen_kappa([1, 2], [1, 2, 3])


@given(st.lists(st.integers(4, 20).map(lambda quarters: quarters / 4), min_size=2, max_size=30))
def test_intervals_are_those_of_students_t(values: list[float]) -> None:
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    if len(set(values)) > 1:
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_a_mean_of_one_has_no_interval() -> None:
    assert mean_interval([3.0])[0] == 3
    assert np.isnan(mean_interval([3.0])[1:]).all()
    assert np.isnan(mean_interval([])).all()


def judged(*rows: tuple[str, str, float, float | None]) -> pa.Table:
    return pa.table(dict(zip(("uid", "caption_source", "overall", "similarity"), zip(*rows, strict=True), strict=True)))


def test_agreement_is_counted_by_hand() -> None:
    """Five images: both prefer the original twice, both vlm once, once apart, and a tie of the judge."""
    pairs = [
        ((5, 0.4), (2, 0.1)),
        ((4, 0.3), (3, 0.2)),
        ((1, 0.1), (5, 0.2)),
        ((5, 0.1), (4, 0.2)),
        ((3, 0.1), (3, 0.3)),
    ]
    rows = [
        (f"u{number}", source, float(mark), similarity)
        for number, pair in enumerate(pairs)
        for source, (mark, similarity) in zip(("original", "vlm"), pair, strict=True)
    ]
    rows += [("u9", "vlm", 2.0, 0.1), ("u8", "vlm", 2.0, None), ("u8", "original", 2.0, 0.2)]
    (found,) = agreement(judged(*reversed(rows))).to_pylist()
    assert (found["source_a"], found["source_b"]) == ("original", "vlm")
    assert (found["pairs"], found["ties"], found["judge_prefers_a"], found["scorer_prefers_a"]) == (5, 1, 3, 2)
    assert found["agreed"] == 0.75
    assert found["kappa"] == pytest.approx((0.75 - (0.75 * 0.5 + 0.25 * 0.5)) / 0.5)


def test_pairs_of_which_nothing_can_be_said_say_nothing() -> None:
    (tied,) = agreement(judged(("u", "original", 3.0, 0.1), ("u", "vlm", 3.0, 0.2))).to_pylist()
    assert (tied["pairs"], tied["ties"], tied["agreed"], tied["kappa"]) == (1, 1, None, None)
    assert agreement(judged(("u", "original", 3.0, 0.1))).num_rows == 0


def test_means_are_of_each_value_with_the_original_first() -> None:
    marks: dict[str, Any] = {name: [5, 1, 3, 2] for name in ("faithful", "complete", "fluent", "invents_nothing")}
    table = pa.table({"caption_source": ["vlm", "original", "vlm", "alt"], "overall": [5.0, 1.0, 3.0, 2.0], **marks})
    first, second, third = means(table, "caption_source").to_pylist()
    assert [row["caption_source"] for row in (first, second, third)] == ["original", "alt", "vlm"]
    assert (third["judged"], third["overall"], third["fluent"]) == (2, 4.0, 4.0)
    assert third["overall_low"] == pytest.approx(4 - stats.t.ppf(0.975, 1))
    assert (first["overall"], first["overall_low"]) == (1.0, None)
    assert means(table.slice(0, 0), "caption_source").num_rows == 0
