from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from dqe_assets.filtering import plots as filter_plots
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report.build_warehouse import WarehouseInputs, build_warehouse
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    from dqe_assets.orchestration.settings import Settings

SHARDS = tuple(f"sample-{index:05d}" for index in range(4))
PNG = b"\x89PNG"


@pytest.fixture
def connection(opened: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with opened.warehouse.connect() as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    return connection.sql(sql).to_arrow_table().to_pylist()


def test_filters_count_and_measure_what_their_masks_keep(
    connection: duckdb.DuckDBPyConnection, opened: Settings
) -> None:
    samples = {row["uid"]: row for row in rows(connection, "FROM samples WHERE status = 'ok'")}
    masks = rows(connection, "FROM filter_masks")
    assert len(masks) == 256
    tables = [opened.opened_store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "truth"]) for shard in SHARDS]
    truth = {row["uid"]: row["truth"] for row in pa.concat_tables(tables).to_pylist()}
    good = {
        uid
        for uid in samples
        if truth[uid]["caption"] == "right" and truth[uid]["image"] not in {"tiny", "extreme_aspect"}
    }
    found = {row["filter"]: row for row in rows(connection, "FROM filters")}
    assert set(found) == {"basic", "best_30", "best", "unique"}
    for name, row in found.items():
        kept = {mask["uid"] for mask in masks if mask[name]}
        left_out = samples.keys() - kept
        assert (row["samples"], row["kept"]) == (234, len(kept))
        assert row["share"] == pytest.approx(len(kept) / 234)
        for column, uids in (("mean_original_similarity", kept), ("mean_original_similarity_left_out", left_out)):
            values = [samples[uid]["original_similarity"] for uid in uids]
            measured = [value for value in values if value is not None]
            assert row[column] == pytest.approx(sum(measured) / len(measured), rel=1e-5)
        assert row["duplicates"] == sum(samples[uid]["is_duplicate"] for uid in kept)
        assert row["precision"] == pytest.approx(len(kept & good) / len(kept))
        assert row["recall"] == pytest.approx(len(kept & good) / len(good))
    assert found["unique"]["duplicates"] == 0
    assert found["best"]["expression"] == "basic_filter() & caption_quality(fraction=0.3)"


def test_overlap_is_of_every_pair_both_ways_round(connection: duckdb.DuckDBPyConnection) -> None:
    masks = rows(connection, "FROM filter_masks")
    names = ("basic", "best_30", "best", "unique")
    found = {(row["filter_a"], row["filter_b"]): row for row in rows(connection, "FROM filter_overlap")}
    assert set(found) == {(a, b) for a in names for b in names}
    for (a, b), row in found.items():
        both, either = sum(mask[a] and mask[b] for mask in masks), sum(mask[a] or mask[b] for mask in masks)
        assert row["kept_by_both"] == both
        assert row["share_of_a"] == pytest.approx(both / sum(mask[a] for mask in masks))
        assert row["jaccard"] == pytest.approx(both / either)
    assert found["best", "basic"]["share_of_a"] == 1


def test_the_funnel_goes_down_step_by_step(connection: duckdb.DuckDBPyConnection) -> None:
    steps = rows(connection, "FROM filter_funnel WHERE filter = 'best' ORDER BY step")
    assert [row["condition"] for row in steps] == ["basic_filter()", "caption_quality(fraction=0.3)"]
    assert [row["kept"] for row in steps] == [142, 55]
    assert [row["removed"] for row in steps] == [92, 87]
    assert steps[1]["share"] == pytest.approx(55 / 234)


def test_what_was_planted_is_counted_once(connection: duckdb.DuckDBPyConnection) -> None:
    planted = rows(connection, "FROM filter_planted")
    for name in ("basic", "best"):
        assert sum(row["samples"] for row in planted if row["filter"] == name) == 234
    kinds = Counter(row["planted"].split(": ")[0] for row in planted if row["filter"] == "basic")
    assert kinds == {"caption": 6, "image": 10}


def test_data_of_ones_own_has_no_precision(tmp_path: Path) -> None:
    warehouse = Warehouse(path=tmp_path / "warehouse.duckdb")
    basic = {"filter": "basic", "expression": "basic_filter()", "steps": [{"condition": "x", "kept": 0}]}
    manifests = {"filter_masks": {"samples": 0, "filters": [basic], "both": [[0]]}}
    inputs = WarehouseInputs(RELATIONS, {}, MATERIALISATIONS.empty_table(), [], "none", manifests)
    warehouse.rebuild(lambda connection: build_warehouse(connection, inputs))
    with warehouse.connect() as connection:
        assert connection.sql("SELECT kept, share FROM filter_funnel").fetchall() == [(0, None)]
        assert connection.sql("SELECT share_of_a, jaccard FROM filter_overlap").fetchall() == [(None, None)]
        assert connection.sql("FROM filter_masks").columns == ["uid", "basic"]


def test_pictures_are_the_same_for_the_same_and_take_any_name() -> None:
    names = ("basic", "costs $5 and $6", "_hidden")
    both = [[5, 2, 0], [2, 4, 0], [0, 0, 0]]
    steps = [("a", [("x" * 300, 5), ("$y$", 0)]), ("b", [("z", 9)])]
    shares = [("a", "caption: empty", 0.5), ("b", "image: tiny", 1.0)]
    for draw in (
        lambda: filter_plots.overlap_matrix(names, both),
        lambda: filter_plots.funnels(steps, 9),
        lambda: filter_plots.planted_shares(shares),
        lambda: filter_plots.overlap_matrix((), [[]]),
        lambda: filter_plots.funnels([], 9),
        lambda: filter_plots.funnels(steps, 0),
        lambda: filter_plots.planted_shares([]),
    ):
        picture = draw()
        assert picture.startswith(PNG)
        assert picture == draw()
