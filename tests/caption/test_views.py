"""What captions took and how models compare, by SQL and against plain Python."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.caption.accounting import account, busy_seconds
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.quality import quality_report
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import RELATIONS, ROWS, SHARDS, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.make_store import Store

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def warehouse(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    built = Warehouse(path=tmp_path_factory.mktemp("warehouse") / "warehouse.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return built


def asked(warehouse: Warehouse, sql: str) -> list[dict[str, Any]]:
    return warehouse.query(sql).to_pylist()


def times(spans: list[tuple[float, float]]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    ends = [MOMENT + timedelta(seconds=start + length) for start, length in spans]
    return pa.chunked_array([pa.array(ends, pa.timestamp("us", tz="UTC"))]), pa.chunked_array(
        [pa.array([length for _, length in spans], pa.float64())]
    )


def test_busy_seconds_are_neither_the_sum_nor_the_pauses() -> None:
    assert busy_seconds(*times([(0, 4), (1, 1), (2, 4), (60, 3)])) == pytest.approx(9)
    nothing = (
        pa.chunked_array([pa.nulls(2, pa.timestamp("us", tz="UTC"))]),
        pa.chunked_array([pa.nulls(2, pa.float64())]),
    )
    assert busy_seconds(*nothing) is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=30))
def test_busy_seconds_count_each_second_once(spans: list[tuple[int, int]]) -> None:
    covered = {second for start, length in spans for second in range(start, start + length)}
    assert busy_seconds(*times([(float(start), float(length)) for start, length in spans])) == len(covered)


def test_accounting_by_captioner_and_shard_adds_up(warehouse: Warehouse, store: Store) -> None:
    rows = {(row["caption_source"], row["shard"]): row for row in asked(warehouse, "FROM caption_accounting")}
    assert len(rows) == 2 * SHARDS
    for asset in ("labels", "vlm"):
        for file in store.inputs.assets[f"synthetic_captions/{asset}"]:
            expected, row = account(pq.ParquetFile(file).read()), rows[asset, file.stem]
            assert (row["captions"], row["errors"]) == (expected.captions, expected.errors) == (36, 1)
            assert row["busy_seconds"] == pytest.approx(expected.busy_seconds)
            if asset == "labels":
                assert [row[name] for name in ("request_seconds", "busy_seconds", "cost", "attempts")] == [None] * 4
                continue
            assert row["prompt_tokens"] == expected.prompt_tokens == 37 * 300
            assert row["completion_tokens"] == expected.completion_tokens == 37 * 40
            assert row["request_seconds"] == 37 * 3
            assert 40 <= row["busy_seconds"] <= ROWS * 1.5 + 3, "two at once"
            assert row["captions_per_second"] == pytest.approx(36 / row["busy_seconds"])
            assert row["cost"] == pytest.approx(row["busy_seconds"] / 3600 * 2) == pytest.approx(expected.cost(2.0))


def test_models_are_compared_with_the_originals_and_with_each_other(warehouse: Warehouse) -> None:
    original, labels, vlm = asked(warehouse, "FROM captioner_comparison")
    assert [row["caption_source"] for row in (original, labels, vlm)] == ["original", "labels", "vlm"]
    busy = sum(row["busy_seconds"] or 0 for row in asked(warehouse, "FROM caption_accounting"))
    assert vlm["seconds_per_caption"] == pytest.approx(busy / vlm["captions"])
    assert vlm["cost_per_thousand"] == pytest.approx(1000 * busy / 3600 * 2 / vlm["captions"])
    assert (vlm["captions"], vlm["errors"], vlm["flagged"], vlm["flags"]) == (108, SHARDS, SHARDS, f"cut_off {SHARDS}")
    assert (labels["seconds_per_caption"], labels["cost_per_thousand"], labels["independent"]) == (None, None, False)
    assert (original["model"], original["errors"], original["flagged"]) == (None, None, None)
    pairs = {(row["source_a"], row["source_b"]): row for row in asked(warehouse, "FROM caption_preference")}
    pair = pairs["original", "vlm"]
    assert vlm["preferred_to_original"] == pytest.approx(pair["b_above_70"] / pair["n"])
    assert vlm["original_preferred"] == pytest.approx(pair["a_above_70"] / pair["n"])
    other = pairs["labels", "vlm"]
    assert vlm["preference"] == (
        f"original {pair['b_above_70']}:{pair['a_above_70']}, labels {other['b_above_70']}:{other['a_above_70']}"
    )
    assert labels["preference"].endswith(f"vlm {other['a_above_70']}:{other['b_above_70']}")


def test_flags_are_counted_with_an_example(warehouse: Warehouse) -> None:
    rows = asked(warehouse, "FROM caption_flags")
    assert Counter(row["caption_source"] for row in rows) == {"labels": 1, "vlm": 1}
    for row in rows:
        assert (row["flag"], row["captions"], row["share"]) == ("cut_off", SHARDS, pytest.approx(SHARDS / 108))
        assert row["meaning"].startswith("generation was stopped")
        assert "seen by" in row["example"]


def test_the_report_shows_the_models_side_by_side(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        section = next(one for one in quality_report(connection, RELATIONS) if one.title == "Captioners")
    assert section.table["source"].to_pylist() == ["original", "labels", "vlm"]


def test_a_store_without_synthetic_captions_has_empty_tables(tmp_path: Path) -> None:
    store = make_store(tmp_path, captioners=())
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    assert asked(warehouse, "FROM caption_generation") == []
    assert [row["caption_source"] for row in asked(warehouse, "FROM captioner_comparison")] == ["original"]
    assert account(SYNTHETIC_CAPTIONS.empty_table()).seconds_per_caption is None
