"""What the view is made of: thumbnails, the facts of each sample, what is chosen, and the folder that is exported."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.view.assets import samples_path
from dqe_assets.view.chosen import ViewError, choose
from dqe_assets.view.files import rows_of
from dqe_assets.view.samples import read_samples
from dqe_assets.view.state import initial_state
from dqe_assets.view.thumbnails import SIDE, thumbnails
from dqe_resources.errors import UsageError
from dqe_resources.warehouse import Warehouse, WarehouseError
from tests.conftest import dqe
from tests.image_files import encoded, noise
from tests.report.make_store import make_store

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def test_thumbnails_have_256_pixels_at_most_and_no_image_is_null() -> None:
    raw = pa.record_batch(
        {
            "uid": ["a", "b", "c", "d"],
            "image": [
                {"bytes": encoded(noise(700, 300), "JPEG")},
                {"bytes": encoded(noise(20, 40), "JPEG")},
                None,
                {"bytes": SVG},
            ],
        }
    )
    (made,) = thumbnails([raw])
    sizes = [one and Image.open(io.BytesIO(one)).size for one in made["thumbnail"].to_pylist()]
    assert sizes == [(SIDE, 110), (20, 40), None, None]
    assert made["fault"].is_valid().to_pylist() == [False, False, False, True]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A small warehouse with two captioners, of three shards."""
    folder = tmp_path_factory.mktemp("small")
    store = make_store(folder / "store")
    warehouse = Warehouse(path=folder / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return warehouse


def test_each_shard_is_a_table_with_all_that_is_known(small: Warehouse, tmp_path: Path) -> None:
    with small.connect() as connection:
        tables = list(read_samples(connection, tmp_path))
        samples = connection.sql('SELECT * FROM samples ORDER BY shard, "row"').to_arrow_table()
        vlm = dict(connection.execute("SELECT uid, caption FROM captions WHERE caption_source = 'vlm'").fetchall())
    assert [table.num_rows for table in tables] == [40, 40, 40]
    found = pa.concat_tables(tables)
    assert found.select(samples.column_names).equals(samples)
    assert found["caption_vlm"].to_pylist() == [vlm[uid] for uid in found["uid"].to_pylist()]
    # Nothing was made of these: they have no column.
    assert not {"topic", "map_x", "filters", "split", "concepts"} & {*found.column_names}


def test_a_source_named_as_a_column_and_one_with_quotes_are_columns(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", shards=1, rows=6)
    warehouse = Warehouse(path=tmp_path / "w.duckdb")

    def build(connection) -> None:  # type: ignore[no-untyped-def]
        build_warehouse(connection, store.inputs)
        connection.execute("""UPDATE captions SET caption_source = 'it''s "x"' WHERE caption_source = 'vlm'""")

    warehouse.rebuild(build)
    with warehouse.connect() as connection:
        (table,) = read_samples(connection, tmp_path)
    assert table['caption_it\'s "x"'].null_count < 6


def test_a_warehouse_of_another_version_is_to_be_made_again(tmp_path: Path) -> None:
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    warehouse.rebuild(lambda connection: connection.execute("CREATE TABLE samples (uid VARCHAR)"))
    with warehouse.connect() as connection, pytest.raises(WarehouseError, match="run: dqe materialize warehouse"):
        list(read_samples(connection, tmp_path))


def test_what_is_chosen_fulfils_the_condition_and_is_a_fair_draw(small: Warehouse) -> None:
    with small.connect() as connection:
        ok = [
            row[0] for row in connection.execute("SELECT uid FROM samples WHERE status = 'ok' ORDER BY uid").fetchall()
        ]
    everything, some = choose(small), choose(small, "status = 'ok'", limit=10)
    assert (everything.uids, everything.total, everything.shown) == (None, 120, 120)
    assert (some.uids.to_pylist(), some.total, some.shown) == (ok[:10], len(ok), 10)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("widht > 3", "--where: .*the columns of samples are: uid"),
        ("1", "true or false"),
        ("true) OR (true", "brackets do not match|not one SQL condition"),
        ("uid IN (SELECT content FROM read_text('/etc/passwd'))", "--where"),
    ],
)
def test_a_condition_that_is_wrong_or_reaches_for_files_is_refused(small: Warehouse, where: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose(small, where)


def test_a_sample_that_is_to_go_is_found_in_the_file_of_the_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    assert rows_of({"a" * 32}) == []
    samples_path().parent.mkdir()
    pq.write_table(
        pa.table({"uid": ["a" * 32, "b" * 32, "c" * 32], "row": [0, 1, 2]}), samples_path(), row_group_size=2
    )
    assert [row["row"] for row in rows_of({"a" * 32, "c" * 32, "d" * 32})] == [0, 2]
    assert rows_of({"d" * 32}) == []


def test_nothing_chosen_is_said(small: Warehouse) -> None:
    with pytest.raises(ViewError, match="of 120 samples none fulfils the condition false"):
        choose(small, "false")


def test_the_state_shows_what_there_is_and_hides_the_rest(small: Warehouse, tmp_path: Path) -> None:
    with small.connect() as connection:
        schema = next(read_samples(connection, tmp_path)).schema
    state = initial_state(schema, ["flags"], {})
    (layout,) = state["layouts"].values()
    assert set(layout["chartIds"]) == set(state["charts"])
    assert {"pictures", "conditions", "chart-original_similarity", "chart-similarity_vlm"} <= set(state["charts"])
    assert not {"map", "chart-flags", "chart-host"} & set(state["charts"])
    shown = {name for name, style in state["columnStyles"].items() if style["display"] != "hidden"}
    assert {"thumbnail", "caption", "caption_vlm", "original_similarity"} <= shown
    assert not {"bytes", "source_metadata", "uid"} & shown
    fields = [
        layer["encoding"]["x"]["field"] for chart in state["charts"].values() for layer in chart.get("layers", ())
    ]
    assert set(fields) <= set(schema.names)


def test_the_exported_folder_holds_every_sample_with_its_picture(
    finished: Path, opened: Settings, tmp_path: Path
) -> None:
    pytest.importorskip("embedding_atlas", reason="the extra 'view' is not installed")
    done = dqe(finished, "view", "--export", str(tmp_path / "folder"), "--where", "original_similarity > 0.1")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "folder" / "data" / "dataset.parquet")
    with opened.warehouse.connect() as connection:
        wanted = connection.execute("SELECT uid FROM samples WHERE original_similarity > 0.1").fetchall()
    assert sorted(table["uid"].to_pylist()) == sorted(uid for (uid,) in wanted)
    for picture in table["thumbnail"].to_pylist():
        assert max(Image.open(io.BytesIO(picture)).size) <= SIDE
    expected = {"caption", "caption_labels", "similarity_labels", "filters", "concepts", "topic", "map_x", "neighbours"}
    assert expected <= set(table.column_names)
    known = set(table["uid"].to_pylist())
    assert any(set(row["ids"]) & known for row in table["neighbours"].to_pylist() if row)
    props = json.loads((tmp_path / "folder" / "data" / "metadata.json").read_text())["props"]
    assert props["data"] == {
        "id": "uid",
        "projection": {"x": "map_x", "y": "map_y"},
        "text": "caption",
        "image": "thumbnail",
        "neighbors": "neighbours",
    }
    assert "script-src 'self'" in (tmp_path / "folder" / "index.html").read_text()


def test_a_folder_that_holds_something_else_is_left_alone(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("embedding_atlas", reason="the extra 'view' is not installed")
    (tmp_path / "mine.txt").write_text("mine")
    done = dqe(finished, "view", "--export", str(tmp_path))
    assert (done.returncode, [path.name for path in tmp_path.iterdir()]) == (2, ["mine.txt"])
    assert "there is something else in it" in done.stderr


def test_what_is_missing_is_said(data: Path, finished: Path) -> None:
    pytest.importorskip("embedding_atlas", reason="the extra 'view' is not installed")
    done = dqe(data, "view")
    assert (done.returncode, "not there; run: dqe materialize" in done.stderr) == (1, True)
    done = dqe(finished, "view", "--subset", "nobody")
    assert done.returncode == 2
    assert "there is no such subset in dqe.yaml; there are: best" in done.stderr
