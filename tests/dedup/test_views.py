"""What the warehouse says of captions that are repeated."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.explain import explanation
from dqe_assets.report.quality import quality_report
from dqe_resources.warehouse import Warehouse
from tests.caption_clusters import clusters_of_captions
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings

STOCK = "Royalty free stock photo of the old harbour at night"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Twenty samples, no two captions alike but for five: three in the same words, one nearly, two in others."""
    root = tmp_path_factory.mktemp("store")
    captions = {row: f"{chr(97 + row) * 9} {chr(98 + row) * 7}" for row in range(20)}
    captions |= {0: STOCK, 2: STOCK.lower(), 5: f"{STOCK}!", 8: f"{STOCK} 2", 3: "a cat", 4: "A cat"}
    store = make_store(root, shards=1, rows=20, captioners=(), captions=captions)
    raw = pa.concat_tables(pq.read_table(path) for path in store.inputs.assets["raw_samples"])
    path = root / "caption_duplicates.parquet"
    pq.write_table(clusters_of_captions(raw["uid"], {"original": raw["caption"]}, 0.8), path)
    inputs = replace(store.inputs, assets={**store.inputs.assets, "caption_duplicates": [path]})
    built = Warehouse(path=root / "warehouse.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, inputs))
    return built


def test_repeated_captions_come_with_their_number_and_examples(warehouse: Warehouse) -> None:
    rows = warehouse.query("SELECT * FROM repeated_captions").to_pylist()
    assert [(row["caption_source"], row["captions"], row["exact"]) for row in rows] == [
        ("original", 4, 3),
        ("original", 2, 2),
    ]
    assert rows[0]["text"].casefold().startswith(STOCK.casefold())
    assert rows[0]["examples"] == [f"photos/{number:04d}.jpg" for number in (0, 2, 5, 8)]
    assert rows[1]["text"].casefold() == "a cat"


def test_the_report_and_the_explanation_of_a_sample_tell_of_them(warehouse: Warehouse, opened: Settings) -> None:
    with warehouse.connect() as connection:
        section = next(one for one in quality_report(connection, RELATIONS) if one.title == "Repeated captions")
    assert section.table["captions"].to_pylist() == [4, 2]
    told = partial(explanation, warehouse, RELATIONS, store=opened.opened_store, subsets=(), signals={})
    sections = {one.title: one.table for one in told("photos/0003.jpg")}
    assert sections["Repeated captions"]["captions"].to_pylist() == [2, 2]
    assert "Repeated captions" not in {one.title for one in told("photos/0001.jpg")}
