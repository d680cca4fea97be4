from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.score.preference import (
    THRESHOLDS,
    PreferenceComparison,
    compare_levels,
    preference_counts,
    preference_report,
)


def test_the_published_comparison(sbu: object) -> None:
    table = pq.read_table(f"{sbu}/clip_original_vs_cogvlm2.parquet")
    original, cogvlm2 = table["probability_first"].to_numpy(), table["probability_second"].to_numpy()
    expected = [(0.7, 231, 646), (0.8, 204, 607), (0.9, 162, 542)]
    assert preference_counts(original, cogvlm2) == expected
    report = preference_report({("original", "cogvlm2"): (original, cogvlm2)})
    assert [(one.threshold, one.above_a, one.above_b) for one in report] == expected
    assert [one.n for one in report] == [999] * 3
    first = report[0]
    assert first.ratio == pytest.approx(646 / 231)
    # The normal approximation of a share's interval.
    for share, low, high in ((first.share_a, first.share_a_low, first.share_a_high),):
        reach = 1.96 * np.sqrt(share * (1 - share) / 999)
        assert (low, high) == pytest.approx((share - reach, share + reach), abs=0.004)
    assert preference_report({("original", "cogvlm2"): (original, cogvlm2)}, seed=0) == report


def test_counts_are_strictly_above_in_the_type_of_the_values() -> None:
    for kind in (np.float64, np.float32):
        exactly = np.array([0.7, 0.8, 0.9, np.nan], kind)
        assert preference_counts(exactly, 1 - exactly) == [(0.7, 2, 0), (0.8, 1, 0), (0.9, 0, 0)]
    assert preference_counts([1, 0], [0, 1], [0.5]) == [(0.5, 1, 1)]
    assert preference_counts([], []) == [(threshold, 0, 0) for threshold in THRESHOLDS]


def naive(a: np.ndarray, b: np.ndarray, threshold: float, resamples: int) -> np.ndarray:
    """Counts above the threshold, and their ratio, of resampled samples: float [3, resamples]."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(a), (resamples, len(a)))
    above_a, above_b = (a[rows] > threshold).sum(axis=1), (b[rows] > threshold).sum(axis=1)
    return np.array([above_a / len(a), above_b / len(a), above_b / above_a])


def ends(one: PreferenceComparison) -> list[float]:
    return [
        *(one.share_a_low, one.share_a_high, one.share_b_low, one.share_b_high),
        *(one.ratio_low, one.ratio_high),
    ]


def test_intervals_are_those_of_a_bootstrap_over_the_samples() -> None:
    rng = np.random.default_rng(0)
    a = rng.beta(0.5, 0.6, 600)
    for one in preference_report({("original", "vlm"): (a, 1 - a)}, resamples=4000):
        drawn = naive(a, 1 - a, one.threshold, 4000)
        expected = np.quantile(drawn, (0.025, 0.975), axis=1, method="inverted_cdf").T.ravel()
        assert ends(one) == pytest.approx(expected, rel=0.05)


def test_captioners_are_compared_on_the_same_images() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(500)
    second = np.where(rng.random(500) < 0.9, first, rng.random(500))
    second[:50] = np.nan
    report = preference_report(
        {("original", "internvl2"): (1 - first, first), ("cogvlm2", "original"): (second, 1 - second)}
    )
    paired = [one for one in report if one.against == "original"]
    assert [(one.source_a, one.source_b, one.n) for one in paired] == [("internvl2", "cogvlm2", 450)] * 3
    one = paired[0]
    both = first[50:], second[50:]
    assert (one.above_a, one.above_b) == tuple(int((side > 0.7).sum()) for side in both)
    alone = naive(both[0], rng.permutation(both[1]), 0.7, 2000)[2]
    assert one.ratio_high - one.ratio_low < 0.6 * np.ptp(np.quantile(alone, (0.025, 0.975))), "what they share cancels"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.integers(1, 40),
    st.integers(0, 3),
)
def test_a_subset_is_drawn_by_its_seed(values: list[float], sample: int, seed: int) -> None:
    a = np.array(values)
    pair = {("original", "vlm"): (a, 1 - a)}
    drawn = preference_report(pair, sample=sample, seed=seed, resamples=20)
    assert repr(drawn) == repr(preference_report(pair, sample=sample, seed=seed, resamples=20))
    assert {one.n for one in drawn} == {min(sample, len(a))}
    if sample >= len(a):
        assert repr(drawn) == repr(preference_report(pair, seed=seed, resamples=20))
    for one in drawn:
        assert 0 <= one.share_a_low <= one.share_a_high <= 1


def test_where_nothing_is_compared_there_are_no_figures() -> None:
    (one, *_) = preference_report({("original", "vlm"): ([np.nan], [np.nan])})
    assert (one.n, one.above_a, one.above_b) == (0, 0, 0)
    assert np.isnan([one.share_a, one.ratio, *ends(one)]).all()
    table = np.zeros((2, 2), np.int64)
    table[0, 1] = 5
    (one,) = compare_levels("a", "b", None, table, [0.5])
    assert (one.ratio, one.share_b_low) == (np.inf, 1)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of the same samples, found \[1, 2\]"):
        preference_report({("a", "b"): ([0.1], [0.9]), ("a", "c"): ([0.1, 0.2], [0.9, 0.8])})
    with pytest.raises(ValueError, match="must ascend"):
        preference_report({("a", "b"): ([0.1], [0.9])}, [0.9, 0.7])
