"""The law, and fits of it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares as scipy_least_squares

from dqe_assets.scaling.best_pools import best_pools
from dqe_assets.scaling.fitting import fit_pool, fit_pools
from dqe_assets.scaling.law import (
    PARAMETERS,
    PoolUtility,
    at_batch_size,
    effective_data,
    pairs_seen,
    predict_error,
    predict_mixture_error,
)

SIZE = 12_800_000
SEEN = np.array([0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 10]) * SIZE
POOL = PoolUtility(a=0.9, b=-0.18, tau=3.0, d=0.1)

POOLS = st.builds(
    PoolUtility,
    a=st.floats(0.3, 1.5),
    b=st.floats(-0.5, -0.02),
    tau=st.floats(0.3, 50),
    d=st.floats(0, 0.3),
)
PASSES = st.lists(st.floats(0.01, 30), min_size=1, max_size=8).map(np.array)


def by_hand(pool: PoolUtility, seen: float, size: float, unit: float = 100_000) -> float:
    """The law as the paper writes it, a factor at a time."""
    error, before, epoch = pool.a, unit, 1
    while True:
        at = min(seen, epoch * size)
        error *= (at / before) ** (pool.b * 0.5 ** ((epoch - 1) / pool.tau))
        if at == seen:
            return error + pool.d
        before, epoch = at, epoch + 1


@given(POOLS, PASSES)
def test_the_error_is_the_papers_product(pool: PoolUtility, passes: np.ndarray) -> None:
    expected = [by_hand(pool, seen, SIZE) for seen in passes * SIZE]
    np.testing.assert_allclose(predict_error(pool, passes * SIZE, SIZE), expected, rtol=1e-10)


def as_published(a: float, pools: list[tuple[float, float]], d: float, seen: float, size: float) -> float:
    """The law as the authors' code has it: a inside the power, and d multiplied by what later epochs gain."""
    union, error, before, epoch = size * len(pools), 0.0, 0.0, 1
    while before < seen:
        at = min(seen, epoch * union)
        utility = float(np.mean([b * 0.5 ** ((epoch - 1) / (tau * len(pools))) for b, tau in pools]))
        error = (a * at / 100_000) ** utility + d if epoch == 1 else error * (at / before) ** utility
        before, epoch = at, epoch + 1
    return error


PUBLISHED = st.lists(st.tuples(st.floats(-0.5, -0.02), st.floats(0.3, 20)), min_size=1, max_size=4)


@given(st.floats(0.001, 1.5), PUBLISHED, st.floats(0.01, 12))
def test_parameters_of_the_authors_code_mean_the_same_in_another_unit(
    a: float, pools: list[tuple[float, float]], passes: float
) -> None:
    seen = passes * SIZE
    ours = [PoolUtility(1, b, tau, 0) for b, tau in pools]
    expected = as_published(a, pools, 0, seen, SIZE)
    assert predict_mixture_error(ours, seen, SIZE, unit=100_000 / a) == pytest.approx(expected, rel=1e-9)
    b, tau = pools[0]
    alone = predict_error(PoolUtility(a**b, b, tau, 0), seen, SIZE)
    assert alone == pytest.approx(as_published(a, pools[:1], 0, seen, SIZE), rel=1e-9)
    # With something that remains, within one epoch.
    first = min(passes, 1) * SIZE
    alone = predict_error(PoolUtility(a**b, b, tau, 0.1), first, SIZE)
    assert alone == pytest.approx(as_published(a, pools[:1], 0.1, first, SIZE), rel=1e-9)


def test_the_documentation_converts_published_parameters() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    named: dict[str, float] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], named)
    assert named["alone"] == pytest.approx(0.773, abs=5e-4)
    assert as_published(0.025, [(-0.16, 6.727)], 0.1, 64e6, SIZE) == pytest.approx(0.754, abs=5e-4)
    assert named["error"] == pytest.approx(0.779, abs=5e-4)


@given(POOLS, st.floats(0.001, 1))
def test_within_one_epoch_it_is_the_plain_power_law(pool: PoolUtility, part: float) -> None:
    plain = pool.a * (part * SIZE / 100_000) ** pool.b + pool.d
    assert math.isclose(predict_error(pool, part * SIZE, SIZE), plain, rel_tol=1e-12)
    assert math.isclose(effective_data(pool, part * SIZE, SIZE), plain, rel_tol=1e-12)


@given(POOLS, PASSES)
def test_with_an_endless_half_life_nothing_decays(pool: PoolUtility, passes: np.ndarray) -> None:
    endless = PoolUtility(pool.a, pool.b, math.inf, pool.d)
    plain = pool.a * (passes * SIZE / 100_000) ** pool.b + pool.d
    np.testing.assert_allclose(predict_error(endless, passes * SIZE, SIZE), plain, rtol=1e-10)
    np.testing.assert_allclose(effective_data(endless, passes * SIZE, SIZE), plain, rtol=1e-10)


@given(POOLS, st.floats(0.01, 20), st.floats(1.0, 3.0))
def test_more_training_never_hurts_and_slower_decay_never_hurts(
    pool: PoolUtility, passes: float, factor: float
) -> None:
    error = predict_error(pool, passes * SIZE, SIZE)
    assert predict_error(pool, passes * factor * SIZE, SIZE) <= error + 1e-12
    slower = PoolUtility(pool.a, pool.b, pool.tau * factor, pool.d)
    assert predict_error(slower, passes * SIZE, SIZE) <= error + 1e-12


@given(POOLS, PASSES)
def test_a_mixture_of_one_pool_is_that_pool(pool: PoolUtility, passes: np.ndarray) -> None:
    alone = predict_error(pool, passes * SIZE, SIZE)
    np.testing.assert_array_equal(predict_mixture_error([pool], passes * SIZE, [SIZE]), alone)


@given(POOLS, PASSES, st.integers(1, 6))
def test_equal_pools_together_are_one_large_pool_whose_half_life_has_grown_as_much(
    pool: PoolUtility, passes: np.ndarray, count: int
) -> None:
    together = predict_mixture_error([pool] * count, passes * SIZE, SIZE)
    grown = PoolUtility(pool.a, pool.b, pool.tau * count, pool.d)
    np.testing.assert_allclose(together, predict_error(grown, passes * SIZE, SIZE * count), rtol=1e-10)
    # With the half-life that each has alone, the large pool would be worth less: repetition hurts less in a union.
    assert (together <= predict_error(pool, passes * SIZE, SIZE * count) + 1e-12).all()


@given(st.lists(st.tuples(st.floats(-0.4, -0.05), st.floats(1, 9)), min_size=2, max_size=4), PASSES, st.data())
def test_a_pool_cut_in_two_mixes_like_the_whole_pool(
    shapes: list[tuple[float, float]], passes: np.ndarray, data: st.DataObject
) -> None:
    pools = [PoolUtility(0.9, b, tau, 0.1) for b, tau in shapes]
    sizes = [data.draw(st.floats(1e6, 4e7)) for _ in pools]
    whole = predict_mixture_error(pools, passes * SIZE, sizes)
    part = data.draw(st.floats(0.1, 0.9))
    first = pools[0]
    halves = [PoolUtility(0.9, first.b, first.tau * share, 0.1) for share in (part, 1 - part)]
    cut = predict_mixture_error(
        [*halves, *pools[1:]], passes * SIZE, [sizes[0] * part, sizes[0] * (1 - part), *sizes[1:]]
    )
    np.testing.assert_allclose(cut, whole, rtol=1e-9)


def test_a_mixture_takes_the_mean_utility_of_each_epoch() -> None:
    pools = [PoolUtility(0.9, -0.2, 2.0, 0.1), PoolUtility(0.9, -0.1, 5.0, 0.1)]
    union = 2 * SIZE
    first = (-0.2 - 0.1) / 2
    second = (-0.2 * 0.5 ** (1 / 4) - 0.1 * 0.5 ** (1 / 10)) / 2
    expected = 0.9 * (union / 1e5) ** first * 1.5**second + 0.1
    assert math.isclose(predict_mixture_error(pools, 1.5 * union, SIZE), expected, rel_tol=1e-12)


def test_shapes_are_kept_and_any_unit_gives_the_same_curve() -> None:
    grid = SEEN.reshape(2, 5)
    assert predict_error(POOL, grid, SIZE).shape == (2, 5)
    assert predict_error(POOL, 1e6, SIZE).shape == ()
    in_millions = PoolUtility(POOL.a * 10**POOL.b, POOL.b, POOL.tau, POOL.d)
    np.testing.assert_allclose(predict_error(in_millions, grid, SIZE, unit=1e6), predict_error(POOL, grid, SIZE))


@pytest.mark.parametrize("passes", [3.0, 7.25, 40.0])
def test_effective_data_is_the_papers_closed_form_where_decay_is_slow(passes: float) -> None:
    tau = 200.0
    pool = PoolUtility(0.9, -0.18, tau, 0.1)
    limit = tau / math.log(2)
    counted = SIZE * (1 + limit * (1 - math.exp(-(passes - 1) / limit)))
    expected = 0.9 * (counted / 100_000) ** -0.18 + 0.1
    assert math.isclose(effective_data(pool, passes * SIZE, SIZE), expected, rel_tol=1e-3)


def test_contrastive_pairs_and_batch_size() -> None:
    assert pairs_seen(12_800_000, 4096) == 12_800_000 / 4096 * 4096**2
    larger = at_batch_size(POOL, 4096, 8192)
    assert larger.tau == POOL.tau / 2
    # Within an epoch, twice the batch is worth as much as twice the samples.
    doubled = predict_error(larger, 0.25 * SIZE, SIZE)
    assert math.isclose(doubled, predict_error(POOL, 0.5 * SIZE, SIZE), rel_tol=1e-12)
    assert at_batch_size(POOL, 4096, 4096) == POOL


@settings(max_examples=40)
@given(
    st.builds(
        PoolUtility, a=st.floats(0.3, 1.2), b=st.floats(-0.4, -0.08), tau=st.floats(1, 12), d=st.floats(0.01, 0.2)
    ).filter(lambda pool: predict_error(pool, SEEN[0], SIZE) <= 1)
)
def test_a_fit_of_a_noise_free_curve_finds_each_parameter_within_one_percent(pool: PoolUtility) -> None:
    found = fit_pool(SEEN, predict_error(pool, SEEN, SIZE), SIZE, resamples=0).pool
    for name in PARAMETERS:
        assert getattr(found, name) == pytest.approx(getattr(pool, name), rel=0.01), name


def test_a_joint_fit_of_noise_free_curves_finds_every_pool() -> None:
    pools = [PoolUtility(0.9, b, tau, 0.1) for b, tau in ((-0.2, 2.0), (-0.17, 4.0), (-0.12, 8.0), (-0.08, 1.5))]
    sizes = np.array([1.0, 0.5, 2.0, 1.5]) * SIZE
    seen = [SEEN * size / SIZE for size in sizes]
    fit = fit_pools(seen, [predict_error(p, n, s) for p, n, s in zip(pools, seen, sizes, strict=True)], sizes)
    assert fit.residual < 1e-9
    assert len({(found.pool.a, found.pool.d) for found in fit.pools}) == 1
    for pool, found in zip(pools, fit.pools, strict=True):
        for name in PARAMETERS:
            assert getattr(found.pool, name) == pytest.approx(getattr(pool, name), rel=0.01)


def noisy(noise: float = 0.01, seed: int = 0) -> np.ndarray:
    return predict_error(POOL, SEEN, SIZE) * (1 + noise * np.random.default_rng(seed).standard_normal(len(SEEN)))


@pytest.mark.parametrize("seed", range(5))
def test_no_other_solver_finds_a_lower_sum_of_squares(seed: int) -> None:
    error = noisy(seed=seed)
    ours = fit_pool(SEEN, error, SIZE, resamples=0).residual ** 2 * len(error)

    def residuals(x: np.ndarray) -> np.ndarray:
        return predict_error(PoolUtility(x[0], -x[1], x[2], x[3]), SEEN, SIZE) - error

    for start in ([0.9, 0.18, 3.0, 0.1], [1.2, 0.1, 6.0, 0.0], [0.6, 0.3, 1.5, 0.3]):
        theirs = scipy_least_squares(
            residuals, start, bounds=([1e-4, 1e-4, 0.05, 0], [1e3, 3, 1000, error.min()]), xtol=1e-14, ftol=1e-14
        )
        assert ours <= 2 * theirs.cost * (1 + 1e-9)


def test_the_law_of_effective_data_can_be_fitted_to_compare() -> None:
    curve = effective_data(POOL, SEEN, SIZE)
    right = fit_pool(SEEN, curve, SIZE, law="data", resamples=0)
    assert right.pool.tau == pytest.approx(POOL.tau, rel=0.01)
    assert right.residual < 1e-9 < fit_pool(SEEN, curve, SIZE, resamples=0).residual


def test_intervals_hold_the_truth_and_are_the_same_every_time() -> None:
    first, again = (fit_pool(SEEN, noisy(), SIZE, d=0.1, seed=3) for _ in range(2))
    assert first.intervals == again.intervals
    assert (first.draws == again.draws).all()
    for name in PARAMETERS:
        low, high = first.intervals[name]
        assert low <= getattr(POOL, name) <= high
    assert first.intervals["d"] == (0.1, 0.1)
    wider = fit_pool(SEEN, noisy(0.03), SIZE, d=0.1).intervals["b"]
    narrow = fit_pool(SEEN, noisy(0.001), SIZE, d=0.1).intervals["b"]
    assert wider[1] - wider[0] > 3 * (narrow[1] - narrow[0])


def test_without_a_repeated_epoch_the_half_life_is_said_to_be_unknown() -> None:
    seen = np.linspace(0.05, 1, 10) * SIZE
    fit = fit_pool(seen, predict_error(POOL, seen, SIZE), SIZE, d=0.1)
    assert fit.pool.tau == math.inf
    assert fit.pool.b == pytest.approx(POOL.b, rel=1e-3)
    assert fit.intervals["tau"][0] < 0.2
    assert fit.intervals["tau"][1] == math.inf
    assert any("no epoch was repeated" in warning for warning in fit.warnings)


def test_what_noise_hides_is_said() -> None:
    warnings = " ".join(fit_pool(SEEN, noisy(0.03), SIZE).warnings)
    assert "the data hardly say d" in warnings
    plain = PoolUtility(0.9, -0.18, math.inf, 0.1)
    flat = predict_error(plain, SEEN, SIZE) * (1 + 0.002 * np.random.default_rng(0).standard_normal(len(SEEN)))
    assert "agree with no decay at all" in " ".join(fit_pool(SEEN, flat, SIZE, d=0.1).warnings)
    assert not fit_pool(SEEN, noisy(0.001), SIZE, d=0.1).warnings


def test_the_best_number_of_pools_grows_with_compute_and_crossings_are_where_errors_meet() -> None:
    pools = [PoolUtility(0.9, b, tau, 0.08) for b, tau in ((-0.145, 3.0), (-0.19, 1.8), (-0.165, 2.4))]
    budgets = [32e6, 128e6, 640e6]
    best = best_pools(pools, budgets, SIZE)
    assert best.order.tolist() == [1, 2, 0]
    assert best.keep.tolist() == [1, 2, 3]
    assert best.error.shape == (3, 3)
    np.testing.assert_allclose(best.error[0], predict_error(pools[1], budgets, SIZE))
    assert [(c.before, c.after) for c in best.crossings] == [(1, 2), (2, 3)]
    for crossing in best.crossings:
        errors = best_pools(pools, [crossing.samples_seen], SIZE).error[:, 0]
        assert errors[crossing.before - 1] == pytest.approx(errors[crossing.after - 1], rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"error": [0.5, 0.4, 0.0, 0.3]}, r"pool 1, row 2: error is 0, it must lie in \(0, 1\]"),
        ({"error": [0.5, 1.2, 0.4, 0.3]}, r"pool 1, row 1: error is 1\.2"),
        ({"error": [math.nan, 0.5, 0.4, 0.3]}, "pool 1, row 0: error is nan"),
        ({"samples_seen": [1e6, 3e6, 2e6, 4e6]}, r"row 2: samples_seen decreases from 3e\+06 to 2e\+06"),
        ({"samples_seen": [0, 1e6, 2e6, 3e6]}, "row 0: samples_seen is 0, it must be a number above 0"),
        ({"samples_seen": [1e6], "error": [0.5]}, "pool 1: 1 point, a curve needs at least two"),
        ({"samples_seen": [1e6, 2e6]}, "lists of one length"),
        ({"pool_size": -1}, "pool_size is -1"),
        ({"d": 0.35}, "d is 0.35, it must be below the lowest error, 0.3"),
        ({"a": 0}, "a is 0"),
        ({"law": "chinchilla"}, "law is 'chinchilla'; allowed: utility, data"),
        ({}, "4 points are too few for 4 unknowns"),
    ],
)
def test_bad_input_is_refused_by_row(arguments: dict[str, object], message: str) -> None:
    usual = {"samples_seen": [1e6, 2e6, 3e6, 4e6], "error": [0.6, 0.5, 0.4, 0.3], "pool_size": 1e6}
    with pytest.raises(ValueError, match=message):
        fit_pool(**(usual | arguments))


def test_parameters_outside_the_law_are_refused() -> None:
    for wrong in ((0, -0.1, 1, 0), (1, 0.1, 1, 0), (1, -0.1, 0, 0), (1, -0.1, math.nan, 0), (1, -0.1, 1, -0.1)):
        with pytest.raises(ValueError, match="it must be"):
            PoolUtility(*wrong)
    with pytest.raises(ValueError, match="share d, these have"):
        predict_mixture_error([POOL, PoolUtility(0.9, -0.1, 1, 0.2)], 1e6, SIZE)
    with pytest.raises(ValueError, match="at least one pool"):
        predict_mixture_error([], 1e6, SIZE)
    with pytest.raises(ValueError, match="samples_seen is 0"):
        predict_error(POOL, [1e6, 0], SIZE)
    with pytest.raises(ValueError, match="more than"):
        predict_error(POOL, 1e12, 10)


def test_the_law_needs_neither_dagster_nor_a_heavy_library() -> None:
    heavy = {"dagster", "scipy", "matplotlib", "pyarrow"}
    code = (
        f"import sys; from dqe_assets.scaling import best_pools, fitting, law; print(*({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
