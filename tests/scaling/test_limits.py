"""Where the law does not hold: pools that teach nothing, mixtures that differ from what is predicted, and no proof."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.core.measurements import MeasurementsError
from dqe_assets.scaling import plots
from dqe_assets.scaling.curves import Choice, Measured, trained_measurements
from dqe_assets.scaling.fitting import own_fall
from dqe_assets.scaling.law import PoolUtility, predict_error, predict_mixture_error
from dqe_assets.scaling.recommendation import answer, fit_measurements, fitted_pools, mixture_table, recommend
from dqe_assets.scaling.tables import MEASURED_MIXTURES

if TYPE_CHECKING:
    from dqe_assets.scaling.recommendation import FittedPools

UNIT, SIZE = 1_000, 3_000
SEEN = np.array([4_000, 8_000, 12_000, 24_000, 36_000, 48_000])
POOLS = {
    "first": PoolUtility(1.05, -0.16, 9, 0.02),
    "second": PoolUtility(1.05, -0.13, 9, 0.02),
    "third": PoolUtility(1.05, -0.11, 9, 0.02),
}
USELESS = "wrong pairs"


def curves(seed: int = 0) -> list[Measured]:
    """Curves of pools that teach something, and of one that does not."""
    random = np.random.default_rng(seed)
    found = []
    for name, pool in POOLS.items():
        errors = predict_error(pool, SEEN, SIZE, UNIT) + 0.002 * random.standard_normal(len(SEEN))
        found.append(Measured("loss", name, SIZE, tuple(SEEN), tuple(errors)))
    flat = 0.985 + 0.002 * random.standard_normal(len(SEEN))
    return [*found, Measured("loss", USELESS, SIZE, tuple(SEEN), tuple(flat))]


def fitted(off: tuple[float, ...] = (), pools: tuple[str, ...] = ("first", "second")) -> FittedPools:
    """The fit, with mixtures that were measured so far off from the truth at 24,000 samples seen."""
    utilities = fit_measurements(curves(), "mine.csv", unit=UNIT)
    truth = float(predict_mixture_error([POOLS[name] for name in pools if name in POOLS], 24_000, SIZE, UNIT))
    mixtures = [
        Measured("loss", f"m{place}", len(pools) * SIZE, (24_000,), (truth + by,)) for place, by in enumerate(off)
    ]
    table = mixture_table(mixtures, {one.pool: pools for one in mixtures}, utilities, "mine.csv")
    assert table.schema.equals(MEASURED_MIXTURES)
    (found,) = fitted_pools(utilities, table)
    return found


def test_a_pool_whose_curve_does_not_fall_is_named_and_never_recommended() -> None:
    rows = {row["pool"]: row for row in fit_measurements(curves(), "mine.csv", unit=UNIT).to_pylist()}
    assert {name for name, row in rows.items() if not row["falls"]} == {USELESS}
    flat = rows[USELESS]
    assert (flat["rank"], flat["b"], flat["tau_low"], flat["residual"]) == (4, None, None, None)
    assert flat["fall_p"] > 0.025
    assert flat["warning"].startswith("wrong pairs: its own curve does not fall")
    for name, pool in POOLS.items():
        assert rows[name]["b_low"] <= pool.b <= rows[name]["b_high"]
        assert rows[name]["fall"] > 0.1
        assert rows[name]["fall_p"] < 0.025
    every = recommend(fitted(), [8_000, 48_000])
    assert {name for pools in every["pools"].to_pylist() for name in pools} == set(POOLS)
    assert any("Left out, since nothing says that they teach anything: wrong pairs" in line for line in said(fitted()))


def test_without_a_falling_curve_nothing_is_recommended() -> None:
    utilities = fit_measurements(curves()[-1:], "mine.csv", unit=UNIT)
    (found,) = fitted_pools(utilities)
    assert recommend(found, [8_000]).num_rows == 0
    first, second = answer(found, [8_000])
    assert first == "No pool's curve of loss falls, so nothing can be recommended."
    assert USELESS in second
    for data in (plots.fitted_curves(found), plots.utility_by_epoch(found), plots.mixtures_over_compute(found, [8])):
        with Image.open(io.BytesIO(data)) as image:
            assert image.width > 100


def test_a_flat_curve_is_taken_for_a_falling_one_as_seldom_as_it_says() -> None:
    random = np.random.default_rng(1)
    chances = [own_fall(SEEN, 0.98 + 0.01 * random.standard_normal(len(SEEN)))[1] for _ in range(1_000)]
    # 1,000 times 0.025, within four standard deviations.
    assert 5 <= sum(chance < 0.025 for chance in chances) <= 45
    assert np.mean([chance < 0.3 for chance in chances]) == pytest.approx(0.3, abs=0.06)


def test_what_falls_soon_and_then_stays_flat_falls() -> None:
    # Measured: a small CLIP on 40 pairs, which it has learnt after a third of its training.
    seen = [640, 960, 1280, 1600, 1920, 2240, 2560]
    fall, chance = own_fall(seen, [0.8515, 0.7327, 0.7243, 0.7256, 0.7255, 0.7324, 0.7267])
    assert fall == pytest.approx(0.12, abs=0.01)
    assert chance < 0.001
    line = [1 - 0.1 * np.log(one / 640) for one in seen]
    assert own_fall(seen, line)[0] == pytest.approx(0.1 * np.log(4))
    assert own_fall(seen, line[::-1]) == (0.0, 1.0)
    assert own_fall([1, 2], [0.9, 0.8]) == own_fall([5, 5, 5], [0.9, 0.8, 0.7]) == (None, None)


def said(found: FittedPools) -> list[str]:
    return answer(found, [24_000])


def test_without_a_measured_mixture_the_advice_says_so_and_names_one_training() -> None:
    found = fitted()
    best = next(row for row in recommend(found, [24_000]).to_pylist() if row["is_best"])
    assert best["mixtures_measured"] == 0
    assert best["keep"] > 1
    (line,) = [line for line in said(found) if "not validated" in line]
    assert f"{' and '.join(best['pools'])} together for 24k samples seen" in line
    assert f"Predicted: {best['error']:.3f}" in line


def test_measured_mixtures_widen_the_interval_by_how_far_off_the_law_is() -> None:
    bare, off = fitted(), fitted((0.03, 0.02))
    before, after = ({row["keep"]: row for row in recommend(one, [24_000]).to_pylist()} for one in (bare, off))
    error = np.sqrt(np.mean([mixture.off**2 for mixture in off.mixtures]))
    assert error == pytest.approx(np.hypot(0.03, 0.02) / np.sqrt(2), abs=0.003)
    assert off.model_error == pytest.approx(error)
    assert off.model_reach == pytest.approx(4.303 * error, rel=1e-3)
    single, mixed = after[1], after[2]
    assert (single["error_low"], single["error_high"]) == (before[1]["error_low"], before[1]["error_high"])
    assert mixed["error"] == before[2]["error"]
    reach = np.hypot(before[2]["error_high"] - mixed["error"], off.model_reach)
    assert mixed["error_high"] - mixed["error"] == pytest.approx(reach)
    assert mixed["mixtures_measured"] == 2
    text = " ".join(said(off))
    assert "Measured mixtures: 2. Off from what was predicted (error less prediction): m0 +0.0" in text
    assert "not validated" not in text
    assert "differs by less than the law is off" in text


def test_the_widened_interval_holds_new_mixtures_as_often_as_it_says() -> None:
    # The law is off of each mixture by a normal deviate; three are measured, and a fourth is predicted.
    random, found, at = np.random.default_rng(5), fitted((0.0, 0.0, 0.0)), np.array([24_000.0])
    held = []
    for _ in range(300):
        *measured, new = found.predicted(2, at)[0] + 0.02 * random.standard_normal(4)
        mixtures = tuple(
            replace(one, error=np.array([error])) for one, error in zip(found.mixtures, measured, strict=True)
        )
        low, high = replace(found, mixtures=mixtures).interval(2, at)
        held.append(low[0] <= new <= high[0])
    assert 0.92 <= np.mean(held) <= 0.99


def test_nothing_is_predicted_of_a_mixture_with_a_useless_pool() -> None:
    found = fitted((0.1,), ("first", USELESS))
    assert np.isnan(found.mixtures[0].predicted).all()
    assert found.checked == ()
    assert found.model_error is None
    assert plots.mixtures_over_compute(found, [24_000]).startswith(b"\x89PNG")


def test_a_mixture_that_is_not_the_union_of_its_pools_is_refused() -> None:
    utilities = fit_measurements(curves(), "mine.csv", unit=UNIT)
    overlapping = Measured("loss", "both", 1.5 * SIZE, (24_000,), (0.7,))
    with pytest.raises(MeasurementsError, match=r"both has 4,500 samples, and its pools first, second 6,000 together"):
        mixture_table([overlapping], {"both": ("first", "second")}, utilities, "mine.csv")


def trained(*rows: tuple[str, int, str, float], size: int = 100) -> pa.Table:
    names = ("pool", "samples_seen", "metric", "error")
    return pa.Table.from_pylist([{**dict(zip(names, row, strict=True)), "pool_size": size} for row in rows])


TRAINED = trained(
    *((pool, seen, "toy: a", error) for pool in ("left", "right") for seen, error in ((10, 0.9), (20, 0.8))),
    ("all", 20, "toy: a", 0.7),
    ("left", 40, "a", 0.6),
    ("right", 40, "a", 0.6),
)
UNION = Choice(mixtures={"all": ("left", "right")})


def test_trained_curves_are_those_of_every_metric_that_has_them() -> None:
    told: list[str] = []
    found = trained_measurements(TRAINED, None, UNION, told.append)
    assert [(one.metric, one.pool, one.samples_seen) for one in found] == [
        ("toy: a", "left", (10, 20)),
        ("toy: a", "right", (10, 20)),
        ("toy: a", "all", (20,)),
    ]
    (line,) = told
    assert line.startswith("a is left out: training_curves, row 6: the only point of left for a")
    later = Choice(pools=("left",), since=20)
    with pytest.raises(MeasurementsError, match="the only point of left for toy: a"):
        trained_measurements(TRAINED, ("toy: a",), later)


@pytest.mark.parametrize(
    ("metrics", "choice", "message"),
    [
        (None, Choice(), "'all' has the samples of the other pools too; name it under scaling.mixtures"),
        (("a",), UNION, "the only point of left for a; a curve needs at least two"),
        (("b",), UNION, "no metric b; there are: toy: a, a"),
        (None, Choice(pools=("left", "top")), "no pool 'top' of scaling.pools; there are: left"),
        (None, Choice(mixtures={"both": ("left", "right")}), "no mixture 'both' of scaling.mixtures"),
        (None, Choice(mixtures={"all": ("left", "top")}), "scaling.mixtures: all is of 'top', which is no pool"),
    ],
    ids=["all", "single", "metric", "pool", "mixture", "part"],
)
def test_what_cannot_be_used_of_trained_curves_is_said(
    metrics: tuple[str, ...] | None, choice: Choice, message: str
) -> None:
    with pytest.raises(MeasurementsError, match=message):
        trained_measurements(TRAINED, metrics, choice)


def test_no_training_yet_says_what_to_do() -> None:
    with pytest.raises(MeasurementsError, match="no measurements; materialise training runs and their evaluation"):
        trained_measurements(TRAINED.slice(0, 0))
