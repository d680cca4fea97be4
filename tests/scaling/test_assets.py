"""From a table of measurements to the answer: the assets, the pictures, the warehouse and the command."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.core.figures import DARK, LIGHT
from dqe_assets.core.measurements import EXAMPLE_SOURCE, MeasurementsError
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.report.build_warehouse import WarehouseInputs, build_warehouse
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_assets.scaling import plots as scaling_plots
from dqe_assets.scaling.curves import EXAMPLE_FILE, read_measurements
from dqe_assets.scaling.example import POOLS
from dqe_assets.scaling.law import PARAMETERS
from dqe_assets.scaling.recommendation import amount, answer, fit_measurements, fitted_pools, parse_budgets, recommend
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, POOL_UTILITIES
from tests.report.make_store import RELATIONS
from tests.stages import stage_named

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from dqe_assets.scaling.recommendation import FittedPools

BUDGETS = [32_000_000, 128_000_000, 640_000_000]


@pytest.fixture(scope="module")
def utilities() -> pa.Table:
    return fit_measurements(read_measurements(EXAMPLE_FILE), EXAMPLE_SOURCE)


@pytest.fixture(scope="module")
def example(utilities: pa.Table) -> FittedPools:
    return next(fitted_pools(utilities))


def test_the_fit_of_the_example_finds_what_it_was_made_from(utilities: pa.Table) -> None:
    assert utilities["pool"].to_pylist() == list(POOLS)
    for row in utilities.to_pylist():
        for name in PARAMETERS:
            assert row[f"{name}_low"] <= getattr(POOLS[row["pool"]], name) <= row[f"{name}_high"], (row["pool"], name)
        assert row["warning"] is None


def test_the_answer_of_the_example_depends_on_compute(example: FittedPools) -> None:
    rows = [row for row in recommend(example, BUDGETS).to_pylist() if row["is_best"]]
    assert [row["keep"] for row in rows] == [1, 2, 3]
    assert rows[0]["pools"] == ["top 0-10%"]
    assert [row["is_measured"] for row in rows] == [True, True, False]
    for row in rows:
        assert row["error_low"] < row["error"] < row["error_high"]
        assert row["share_best"] > 0.5


def test_the_alternatives_are_all_there_and_their_shares_sum_to_one(example: FittedPools) -> None:
    table = recommend(example, BUDGETS)
    assert table.schema.equals(FILTER_RECOMMENDATION)
    assert table.num_rows == len(BUDGETS) * len(POOLS)
    shares = np.array(table["share_best"].to_pylist()).reshape(len(BUDGETS), -1)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_the_words_say_the_filter_the_interval_and_what_lies_outside_the_data(example: FittedPools) -> None:
    first, second, third, change = answer(example, BUDGETS)
    assert first.startswith("For 32M samples seen, train on the best of 4 pools: top 0-10% (12.8M samples, 2.5 passes)")
    assert "95% interval 0." in first
    assert "outside the data" not in first + second
    assert "the best 3 of 4 pools" in third
    assert "outside the data: 5 times the longest measured training (128M)" in third
    assert "from 1 to 2 pools" in change
    assert "shortest measured training saw 1.6M" in answer(example, [1_000_000])[0]


def test_a_close_call_is_called_one(example: FittedPools) -> None:
    crossing = round(example.best([32e6, 128e6]).crossings[0].samples_seen)
    assert "this is not sure: keeping" in answer(example, [crossing])[0]


def test_budgets_are_read_as_people_write_them() -> None:
    assert parse_budgets("32M, 128M,640M") == BUDGETS
    for wrong in ("", "many", "0", "-3M"):
        with pytest.raises(ValueError, match="number"):
            parse_budgets(wrong)
    assert [amount(value) for value in (950, 12_800_000, 999_999_999, 1_280_000_000)] == ["950", "12.8M", "1B", "1.28B"]


def test_too_few_points_say_which_metric() -> None:
    few = [curve for curve in read_measurements(EXAMPLE_FILE) if curve.pool == "top 0-10%"]
    short = [type(few[0])(few[0].metric, few[0].pool, 1.28e7, few[0].samples_seen[:3], few[0].error[:3])]
    with pytest.raises(MeasurementsError, match=r"mine\.csv, imagenet1k: 3 points are too few"):
        fit_measurements(short, "mine.csv")


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_pictures_are_small_and_the_same_every_time(example: FittedPools, theme: object) -> None:
    for draw in (
        lambda: scaling_plots.fitted_curves(example, theme),
        lambda: scaling_plots.utility_by_epoch(example, theme),
        lambda: scaling_plots.mixtures_over_compute(example, BUDGETS, theme),
    ):
        data = draw()
        assert data == draw()
        assert len(data) < 60_000
        with Image.open(io.BytesIO(data)) as image:
            assert image.width >= 500


def test_any_name_can_be_drawn(example: FittedPools) -> None:
    odd = replace(example, names=("_a", r"$\frac{", "<b>|", "x" * 60), metric="$_")
    for data in (
        scaling_plots.fitted_curves(odd),
        scaling_plots.utility_by_epoch(odd),
        scaling_plots.mixtures_over_compute(odd, [1_000_000]),
    ):
        assert data.startswith(b"\x89PNG")


def test_the_warehouse_holds_both_tables_and_the_best_filters(
    utilities: pa.Table, example: FittedPools, tmp_path: Path
) -> None:
    files = {"pool_utilities": utilities, "filter_recommendation": recommend(example, BUDGETS)}
    for name, table in files.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with duckdb.connect() as connection:
        paths = {name: [tmp_path / f"{name}.parquet"] for name in files}
        build_warehouse(connection, WarehouseInputs(RELATIONS, paths, MATERIALISATIONS.empty_table(), (), "none"))
        assert connection.execute("SELECT pool FROM pool_utilities ORDER BY rank").fetchall() == [(p,) for p in POOLS]
        best = connection.execute("SELECT samples_seen, keep, pools[1] FROM best_filters").fetchall()
        assert best == [(budget, keep, "top 0-10%") for budget, keep in zip(BUDGETS, (1, 2, 3), strict=True)]
        comments = connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name IN ('pool_utilities', 'filter_recommendation', "
            "'best_filters') AND comment IS NULL"
        ).fetchall()
        assert comments == []
        meaning = "SELECT comment FROM duckdb_columns() WHERE table_name = 'best_filters' AND column_name = 'error'"
        assert connection.execute(meaning).fetchall() == [("predicted error",)]


def test_the_assets_are_made_stay_current_and_follow_settings_and_measurements(data: Path) -> None:
    names = ["pool_utilities", "measured_mixtures", "filter_recommendation"]
    with instance() as current:
        settings = load_settings({})
        outcome = runner.materialize(settings, current, assets=names)
        assert not outcome.failures
        stored = settings.opened_store.read("pool_utilities", None, POOL_UTILITIES)
        assert runner.materialize(settings, current, assets=names).current == len(names)
        runner.sync(settings, current)
        assert runner.materialize(settings, current, assets=names).current == len(names)

        (data / "mine.csv").write_text(EXAMPLE_FILE.read_text().replace("top 0-10%", "the best tenth"))
        write_settings(data, {"measurements": "mine.csv", "samples_seen": ["16M"], "irreducible": 0.08})
        settings = load_settings({})
        assert runner.state(settings, stage_named(settings, "pool_utilities"), None, ()) == "stale"
        assert not runner.materialize(settings, current, assets=names).failures
        mine = settings.opened_store.read("pool_utilities", None, POOL_UTILITIES)
        assert mine["pool"][0].as_py() == "the best tenth"
        assert set(mine["source"].to_pylist()) == {"mine.csv"}
        assert set(mine["d"].to_pylist()) == {0.08} != set(stored["d"].to_pylist())
        table = settings.opened_store.read("filter_recommendation", None, FILTER_RECOMMENDATION)
        assert set(table["samples_seen"].to_pylist()) == {16_000_000}

        (data / "mine.csv").write_text(EXAMPLE_FILE.read_text().replace("0.6", "1.6"))
        failed = runner.materialize(settings, current, assets=names).failures
        assert "mine.csv, line 4: error of imagenet1k is 1.6" in failed[0]


def test_curves_that_the_law_does_not_describe_fail_the_check(data: Path) -> None:
    lines = ["pool,pool_size,samples_seen,metric,error"]
    lines += [f"top,1000000,{(n + 1) * 500_000},imagenet1k,{0.9 if n < 5 else 0.3}" for n in range(10)]
    (data / "step.csv").write_text("\n".join(lines))
    write_settings(data, {"measurements": "step.csv"})
    with instance() as current:
        failures = runner.materialize(load_settings({}), current, assets=["pool_utilities"]).failures
    assert any("check fits_well: the worst fit is off by" in failure for failure in failures)


def test_the_command_answers_in_words(data: Path) -> None:
    run = CliRunner()
    missing = run.invoke(app, ["recommend", "--samples-seen", "32M"])
    assert missing.exit_code == 1
    assert "run: dqe materialize pool_utilities" in " ".join(missing.output.split())
    assert run.invoke(app, ["materialize", "pool_utilities", "measured_mixtures"]).exit_code == 0
    said = run.invoke(app, ["recommend", "--samples-seen", "32M,640M"])
    assert said.exit_code == 0
    text = " ".join(said.output.split())
    assert "For 32M samples seen, train on the best of 4 pools: top 0-10%" in text
    assert "For 640M samples seen, train on the best 3 of 4 pools" in text
    assert "These numbers are made up" in text
    assert "128M samples seen" in " ".join(run.invoke(app, ["recommend"]).output.split())
    assert run.invoke(app, ["recommend", "--samples-seen", "32X"]).exit_code == 2
    write_settings(data, {"irreducible": 0.1})
    assert "changed since" in " ".join(run.invoke(app, ["recommend"]).output.split())


def write_settings(data: Path, scaling: dict[str, object]) -> None:
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [{"kind": "sample"}], "scaling": scaling}))
