"""What a stage contributes, in the warehouse, the report, the gallery and the explanations, wherever it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.core.figures import placeholder
from dqe_assets.core.relations import (
    Explanation,
    GalleryGroups,
    GalleryPlots,
    GallerySection,
    Group,
    Member,
    Read,
    Relations,
    ReportSection,
    Table,
    Temporary,
    View,
    columns,
    sql_file,
)
from dqe_assets.core.schema import UID, Column, table_schema
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.explain import glance
from dqe_assets.report.gallery import GalleryInputs, render_gallery
from dqe_assets.report.quality import quality_report
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from tests.report.make_store import Store

MOODS = table_schema(
    [UID, Column("mood", pa.string(), "how the picture feels"), Column("shade", pa.int8(), "not read")]
)


def shared_moods(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Group]:
    """The samples of each mood, of which the first is kept."""
    query = "SELECT mood, list(uid ORDER BY uid) FROM moods GROUP BY mood ORDER BY mood LIMIT ?"
    for mood, uids in connection.execute(query, [limit]).fetchall():
        samples = (Member(uid, uid == uids[0], "kept" if uid == uids[0] else "left out") for uid in uids)
        yield Group(f"all {mood}", (*samples, Member(f"face/{mood}", False, "face", f"{mood}.png", "how it <feels>")))


STAGE = Relations(
    reads=(Read("moods", MOODS, "uid mood"),),
    computed=(lambda connection: {"weights": pa.table({"mood": ["merry"], "weight": [2.0]})},),
    temporary=(Temporary("weighed", "SELECT uid, mood, weight FROM stored_moods LEFT JOIN weights USING (mood)"),),
    views=(
        View(
            "mood_counts",
            "How many samples feel how",
            "SELECT mood, count(*) AS n, any_value(source) AS source FROM moods GROUP BY mood ORDER BY mood",
            {"n": "samples"},
        ),
    ),
    tables=(
        Table(
            "moods",
            "How each sample feels",
            columns(MOODS, uid="VARCHAR", mood="VARCHAR")
            | {"weight": ("DOUBLE", "how much that counts"), "source": ("VARCHAR", "source of the sample")},
            "SELECT uid, mood, weight, source FROM weighed JOIN samples USING (uid) ORDER BY uid",
        ),
    ),
    report_sections=(ReportSection("Moods", "How samples feel.", "FROM mood_counts", only_with="moods"),),
    gallery_sections=(GallerySection("merry", "Merry", "They are.", "SELECT uid FROM moods WHERE mood = 'merry'"),),
    gallery_groups=(GalleryGroups("shared", "One mood each", "As they feel.", shared_moods),),
    gallery_plots=(GalleryPlots(lambda connection, limit: [("Moods, drawn", lambda theme: placeholder("m", theme))]),),
    explanations=(Explanation("Mood", ("moods",), "SELECT mood FROM moods WHERE uid = ?", glance=True),),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store"), shards=1)


def built(store: Store, path: Path, *stages: Relations, moods: list[str] | None = None) -> Warehouse:
    """A warehouse of the store to which these stages contribute too: before all others, which they read."""
    inputs = replace(store.inputs, relations=(*stages, *RELATIONS))
    if moods:
        rows = [{"uid": uid, "mood": mood} for uid, mood in zip(sorted(store.images), moods, strict=False)]
        file = path.with_suffix(".parquet")
        pq.write_table(pa.Table.from_pylist(rows, MOODS), file)
        inputs = replace(inputs, assets={**inputs.assets, "moods": [file]})
    warehouse = Warehouse(path=path)
    warehouse.rebuild(lambda connection: build_warehouse(connection, inputs))
    return warehouse


@pytest.fixture
def connection(store: Store, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with built(store, tmp_path / "w.duckdb", STAGE, moods=["merry", "merry", "sad"]).connect() as opened:
        yield opened


def test_its_tables_come_after_what_they_read_and_say_what_they_mean(connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.sql("FROM mood_counts").fetchall() == [("merry", 2, "photos"), ("sad", 1, "photos")]
    assert connection.sql("SELECT weight FROM moods ORDER BY mood").fetchall() == [(2.0,), (2.0,), (None,)]
    meanings = connection.sql(
        "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'mood_counts'"
    ).fetchall()
    assert dict(meanings) == {"mood": "how the picture feels", "n": "samples", "source": "source of the sample"}
    names = connection.sql("SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views()")
    assert not {"weighed", "weights", "stored_moods"} & {name for (name,) in names.fetchall()}


def test_the_report_shows_it_before_the_shards(connection: duckdb.DuckDBPyConnection) -> None:
    sections = quality_report(connection, (STAGE, *RELATIONS))
    assert [section.title for section in sections][-3:] == ["Suspects", "Moods", "Shards"]
    assert sections[-2].table["mood"].to_pylist() == ["merry", "sad"]


def test_the_gallery_shows_it(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    photo = next(iter(store.images.values()))
    faces = {"face/merry": photo, "face/sad": photo}
    inputs = GalleryInputs(connection, lambda names: {name: (store.images | faces)[name] for name in names})
    page = "".join(render_gallery(inputs, (STAGE, *RELATIONS)).values())
    assert "Moods, drawn" in page
    anchors = re.findall(r'<section id="(\w+)"', page)
    assert anchors[anchors.index("best") :][:3] == ["best", "merry", "all"]
    groups = page[page.index('<section id="shared">') :]
    groups = groups[: groups.index("</section>")]
    assert re.findall(r"<h3>(.*)</h3>", groups) == ["all merry", "all sad"]
    assert re.findall(r'<span class="tag">(.*?)</span>', groups) == ["kept", "left out", "face", "kept", "face"]
    assert "<bdi>how it &lt;feels&gt;</bdi>" in groups
    assert re.findall(r"<bdi>(\w+.png)</bdi>", groups) == ["merry.png", "sad.png"]
    uids = [uid for (uid,) in connection.sql("SELECT uid FROM moods ORDER BY mood, uid").fetchall()]
    assert groups.count("data:image/") == sum(uid in store.images for uid in uids) + len(faces)


def test_a_glance_tells_it(store: Store, tmp_path: Path) -> None:
    warehouse = built(store, tmp_path / "w.duckdb", STAGE, moods=["merry"])
    (name,) = warehouse.query("SELECT image_name FROM samples JOIN moods USING (uid)")["image_name"].to_pylist()
    (told,) = [one for one in glance(warehouse, (STAGE, *RELATIONS), name) if one.title == "Mood"]
    assert (told.description, told.table.to_pylist()) == ("From moods.", [{"mood": "merry"}])


def test_where_nothing_is_stored_the_tables_are_empty_and_the_section_is_left_out(store: Store, tmp_path: Path) -> None:
    with built(store, tmp_path / "w.duckdb", STAGE).connect() as connection:
        assert connection.sql("FROM moods").fetchall() == []
        assert "Moods" not in [section.title for section in quality_report(connection, (STAGE, *RELATIONS))]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Relations(views=(View("samples", "again", "SELECT 1 AS one"),)), "2 relations are called samples"),
        (
            Relations(
                temporary=(Temporary("hens", "FROM eggs"),),
                tables=(Table("eggs", "come from hens", {"n": ("INTEGER", "how many")}, "FROM hens"),),
            ),
            "queries read each other in a circle: .*(hens <- eggs|eggs <- hens)",
        ),
        (Relations(temporary=(Temporary("torn", "SELECT FROM WHERE"),)), "torn: .*syntax error"),
        (Relations(temporary=(Temporary("gone", "DROP TABLE samples"),)), "gone: .*SELECT"),
        (
            Relations(views=(View("unsaid", "what it is", "SELECT 1 AS one FROM samples"),)),
            "view unsaid: say in its columns what one means; what it reads gives 0 meanings",
        ),
        (
            Relations(views=(View("unsure", "of two", "SELECT s.caption FROM samples s JOIN captions USING (uid)"),)),
            "view unsure: say in its columns what caption means; what it reads gives 2 meanings",
        ),
    ],
)
def test_what_cannot_be_built_says_why(store: Store, tmp_path: Path, stage: Relations, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(store, tmp_path / "w.duckdb", stage)


def test_a_query_in_a_file_is_read_when_it_is_needed_and_filled(tmp_path: Path) -> None:
    query = sql_file(str(tmp_path / "views.py"), "some", group="shard")
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "some.sql").write_text("SELECT $group FROM samples")
    assert query() == "SELECT shard FROM samples"
    with pytest.raises(KeyError, match="group"):
        sql_file(str(tmp_path / "views.py"), "some")()


def test_every_file_of_sql_is_a_query_of_a_stage() -> None:
    package = Path(__file__).parents[2] / "dqe_assets"
    files = sorted(package.glob("*/sql/*.sql"))
    assert len(files) > 10
    for file in files:
        modules = [module.read_text(encoding="utf-8") for module in file.parents[1].glob("*.py")]
        assert any(re.search(rf'sql_file\(\s*__file__,\s*"{file.stem}"', text) for text in modules), file
