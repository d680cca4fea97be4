"""The statistics are SciPy's, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.core.statistics import mean_ranks, regression, student_t

numbers = st.integers(-(10**6), 10**6).map(lambda number: number / 7)


@given(st.lists(st.one_of(st.integers(0, 5).map(float), numbers)))
def test_equal_numbers_share_the_mean_of_their_ranks(values: list[float]) -> None:
    from scipy import stats

    assert mean_ranks(np.array(values, np.float64)).tolist() == stats.rankdata(values).tolist()


@pytest.mark.parametrize("freedom", [1, 2, 7, 500])
def test_the_reach_of_an_interval_is_that_of_students_t(freedom: int) -> None:
    from scipy import stats

    for probability in (0.5, 0.9, 0.975, 0.999):
        assert student_t(probability, freedom) == stats.t.ppf(probability, freedom)


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=30))
def test_a_line_has_its_errors_and_its_correlation(points: list[tuple[float, float]]) -> None:
    from scipy import stats

    x, y = np.array(points, np.float64).T
    if x.min() == x.max():
        return
    found, expected = regression(x, y), stats.linregress(x, y)
    wanted = (expected.slope, expected.intercept, expected.rvalue, expected.pvalue)
    np.testing.assert_array_equal(found, (*wanted, expected.stderr, expected.intercept_stderr))


def test_points_above_one_another_have_no_line() -> None:
    with pytest.raises(ValueError, match="the same x"):
        regression(np.ones(4), np.arange(4.0))
