"""What signals add to the warehouse, the report, the gallery and the explanations, whichever stages make them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.core.figures import LIGHT
from dqe_assets.core.schema import UID, Column, table_schema
from dqe_assets.core.signals import signals_of
from dqe_assets.core.stage import stage
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.report.assets import relations_of
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.explain import glance
from dqe_assets.report.gallery import GalleryInputs, render_gallery
from dqe_assets.report.quality import quality_report
from dqe_assets.report.signal_views import _spreads
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import make_store

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.core.relations import Relations
    from dqe_assets.core.work import Work
    from tests.report.make_store import Store

SAFETY = table_schema(
    [
        UID,
        Column("nsfw", pa.float64(), "how unsafe", "0 to 1"),
        Column("lang", pa.string(), "language <b>"),
        Column("licensed", pa.bool_(), "whether there is a licence"),
    ]
)
SCORES = table_schema([UID, Column("score", pa.float32(), "a score")])


@stage(
    name="signals/safety",
    kinds={"csv"},
    code_version="1",
    schema=SAFETY,
    signals={"nsfw": "nsfw", "Lang": "lang", "licensed": "licensed"},
)
def safety(work: Work) -> pa.Table:
    """Made by the test."""
    raise NotImplementedError


@stage(name="marks/beauty", kinds={"csv"}, code_version="1", schema=SCORES, signals={"beauty": "score"})
def beauty(work: Work) -> pa.Table:
    """Made by the test."""
    raise NotImplementedError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store"), shards=1)


@pytest.fixture
def warehouse(store: Store, tmp_path: Path) -> Warehouse:
    uids = sorted(store.images)
    tables = {
        "signals/safety": pa.table(
            {
                "uid": uids,
                "nsfw": [None, *(row / 10 for row in range(1, len(uids)))],
                "lang": ["<i>en</i>"] * len(uids),
                "licensed": [row % 2 == 0 for row in range(len(uids))],
            },
            SAFETY,
        ),
        "marks/beauty": pa.table({"uid": uids[:1], "score": [5.0]}, SCORES),
    }
    assets = dict(store.inputs.assets)
    for name, table in tables.items():
        path = tmp_path / name.replace("/", "_") / "photos-00000.parquet"
        path.parent.mkdir()
        pq.write_table(table, path)
        assets[name] = [path]
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    inputs = replace(store.inputs, relations=relations(), assets=assets)
    warehouse.rebuild(lambda connection: build_warehouse(connection, inputs))
    return warehouse


def relations() -> tuple[Relations, ...]:
    return relations_of([*graph.stages(load_settings({})), safety, beauty])


def test_samples_have_a_column_for_each_with_its_meaning(warehouse: Warehouse, store: Store) -> None:
    first, second = sorted(store.images)[:2]
    with warehouse.connect() as connection:
        query = 'SELECT nsfw, "Lang", licensed, beauty FROM samples WHERE uid = ?'
        assert connection.execute(query, [first]).fetchall() == [(None, "<i>en</i>", True, 5.0)]
        assert connection.execute(query, [second]).fetchall() == [(0.1, "<i>en</i>", False, None)]
        failed = connection.execute("SELECT DISTINCT nsfw, beauty FROM samples WHERE status <> 'ok'").fetchall()
        assert failed == [(None, None)]
        meanings = dict(
            connection.execute(
                "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'samples'"
            ).fetchall()
        )
        assert meanings["nsfw"] == "how unsafe [0 to 1]"
        rows = connection.sql("SELECT * EXCLUDE (share, mean) FROM signals ORDER BY signal").fetchall()
    count = len(store.images)
    assert rows == [
        ("Lang", "signals/safety", "VARCHAR", count, 1, None, None, None),
        ("beauty", "marks/beauty", "FLOAT", 1, 1, 5.0, 5.0, 5.0),
        ("licensed", "signals/safety", "BOOLEAN", count, 2, None, None, None),
        ("nsfw", "signals/safety", "DOUBLE", count - 1, count - 1, 0.1, pytest.approx(count / 20), (count - 1) / 10),
    ]


def test_the_report_and_a_glance_tell_of_them(warehouse: Warehouse, store: Store) -> None:
    with warehouse.connect() as connection:
        (section,) = [one for one in quality_report(connection, relations()) if one.title == "Signals"]
        query = "SELECT image_name FROM samples WHERE uid = ?"
        ((name,),) = connection.execute(query, [min(store.images)]).fetchall()
    assert section.table["signal"].to_pylist() == ["nsfw", "Lang", "licensed", "beauty"]
    record = next(iter(glance(warehouse, relations(), name))).table.to_pylist()[0]
    assert record["beauty"] == 5.0


def test_the_gallery_shows_them_from_least_to_most_and_on_each_sample(warehouse: Warehouse, store: Store) -> None:
    with warehouse.connect() as connection:
        inputs = GalleryInputs(connection, lambda uids: {u: store.images[u] for u in uids})
        page = "".join(render_gallery(inputs, relations()).values())
    groups = page[page.index('<section id="signals">') :]
    groups = groups[: groups.index("</section>")]
    assert re.findall(r"<h3>(.*)</h3>", groups) == [
        "beauty: 1 values, half of them below 5",
        f"nsfw: {len(store.images) - 1} values, half of them below {len(store.images) / 20:.3g}",
    ]
    values = [float(tag) for tag in re.findall(r'<span class="tag">([\d.]+)</span>', groups)]
    assert values[0] == 5.0
    assert values[1:] == sorted(values[1:])
    assert len(values[1:]) == 8
    assert values[1] == 0.1
    assert "<dt>Lang</dt><dd><bdi>&lt;i&gt;en&lt;/i&gt;</bdi></dd>" in page
    assert "<dt>licensed</dt><dd><bdi>yes</bdi></dd>" in page
    assert "how the signals are spread" in page


def test_a_signal_that_every_sample_has_is_drawn_too() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE samples AS SELECT n::VARCHAR AS uid, 'ok' AS status, n::FLOAT AS n FROM range(9) r(n)"
        )
        connection.execute("""CREATE TABLE signals AS SELECT 'n' AS signal, 9 AS "values", 4.0 AS median""")
        ((title, draw),) = _spreads(connection, 5)
    assert title == "how the signals are spread"
    assert draw(LIGHT).startswith(b"\x89PNG")


def test_two_stages_cannot_have_one_name_for_a_signal() -> None:
    with pytest.raises(ValueError, match="marks/beauty and marks/beauty have one name, beauty"):
        signals_of([beauty, beauty])
