"""What was made in a data folder, read from Python: without DQE_DATA, beside writers, and confined."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import dqe_assets as dqe
from dqe_assets.api.opened import Data, OpenError
from dqe_assets.api.rows import Rows
from dqe_assets.filtering.subset import format_uids, read_subset
from dqe_resources.cache import data_directory, data_folder
from dqe_resources.errors import UsageError
from dqe_resources.parallel import ordered_map
from dqe_resources.warehouse import QueryError, Warehouse, WarehouseError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DQE_DATA", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made(finished: Path) -> Data:
    """The finished data folder, opened."""
    return dqe.open(finished)


def test_samples_and_captions_are_what_the_warehouse_has(made: Data) -> None:
    everything = made.samples()
    assert isinstance(everything.arrow, pa.Table)
    assert everything.num_rows == len(everything) == 256
    assert {"uid", "original_similarity", "is_duplicate", "best_source"} <= {*everything.column_names}
    few = made.samples(where="original_similarity < 0.1 AND status = 'ok'", columns=["image_name", "width"])
    assert few.column_names == ["image_name", "width"]
    kept = everything.filter(
        pc.and_(pc.less(everything["original_similarity"], 0.1), pc.equal(everything["status"], "ok"))
    )
    assert few["image_name"].to_pylist() == kept["image_name"].to_pylist() != []
    assert made.samples(columns="uid").column_names == ["uid"]
    assert made.samples(where="true -- and no more").num_rows == 256
    captions = made.captions()
    assert captions.num_rows == 512
    assert {*captions["caption_source"].to_pylist()} == {"original", "labels"}
    assert made.captions(where="caption_source = 'labels'", columns=["caption"]).num_rows == 256


def test_search_finds_what_the_command_finds(made: Data) -> None:
    found = made.search("a cat", k=5)
    assert found.num_rows == 5
    assert all(name.startswith("chelsea") for name in found["image_name"].to_pylist())
    assert found["score"].to_pylist() == sorted(found["score"].to_pylist(), reverse=True)
    german = made.search("a cat", k=3, where=["language=de"])
    assert {*german["language"].to_pylist()} == {"de"}
    assert made.search("a cat", where="source=elsewhere").num_rows == 0


def test_a_subset_is_its_samples(made: Data, finished: Path) -> None:
    found = made.subset("best")
    uids = format_uids(read_subset(finished / "subsets" / "best.npy")).to_pylist()
    assert found["uid"].to_pylist() == uids
    assert {*found.column_names} == {*made.samples(where="false").column_names}
    assert found["status"].to_pylist() == ["ok"] * len(uids)
    assert made.subset("best", columns=["width"]).column_names == ["uid", "width"]


def test_a_sample_is_explained_by_its_uid_and_by_its_name(made: Data) -> None:
    (sample,) = made.samples(where="image_name = 'chelsea_03.jpg'", columns=["uid", "width"])
    found = made.explain(sample["uid"])
    assert found.arrow.equals(made.explain("chelsea_03.jpg").arrow)
    assert found.column_names == ["section", "description", "row", "field", "value"]
    said = {(row["field"], row["value"]) for row in found}
    assert {("uid", sample["uid"]), ("width", str(sample["width"])), ("asset", "raw_samples")} <= said
    assert {"Filters", "Subsets", "Where it is from"} <= {*found["section"].to_pylist()}


def test_rows_go_to_other_libraries_as_they_are(made: Data) -> None:
    duckdb, pandas, polars = (pytest.importorskip(name) for name in ("duckdb", "pandas", "polars"))
    datasets = pytest.importorskip("datasets", reason="the extra 'hf' is not installed")
    rows = made.samples(columns=["uid", "width", "caption"])
    assert isinstance(rows.to_pandas(), pandas.DataFrame)
    assert rows.to_polars().equals(polars.from_arrow(rows.arrow))
    assert isinstance(rows.to_dataset(), datasets.Dataset)
    assert rows.to_dataset()[0] == next(iter(rows))
    assert pa.table(rows).equals(rows.arrow)
    assert duckdb.sql("SELECT count(*) FROM rows").fetchall() == [(256,)]
    assert repr(rows) == "Rows of 256 rows: uid, width, caption"
    assert {"to_pandas", "num_rows"} <= {*dir(rows)}
    with pytest.raises(AttributeError):
        _ = rows.nothing


def test_a_library_that_is_not_there_is_named(made: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made.samples(columns=["uid"])
    for module, method, package in (
        ("pandas", rows.to_pandas, "pandas"),
        ("polars", rows.to_polars, "polars"),
        ("datasets", rows.to_dataset, r"\.\[hf\]"),
    ):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(UsageError, match=f"{module} is not installed: pip install '{package}'"):
            method()


def test_a_notebook_shows_captions_as_text() -> None:
    shown = Rows(pa.table({"<b>": ["<script>alert(1)</script>", None] * 10, "n": [1.23456, float("nan")] * 10}))
    page = shown._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<th>&lt;b&gt;</th>" in page
    assert "<td>1.235</td>" in page
    assert "20 rows" in page
    assert Rows(pa.table({"a": ["x" * 1000]}))._repr_html_().count("x") == 200


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("1=1) OR (2=2", "brackets do not match"),
        ("true; DROP TABLE samples", "not an SQL condition"),
        ("true) UNION SELECT * FROM samples --", "not an SQL condition"),
        ("nosuch = 1", "the columns of samples are: uid, source"),
        ("width", "expected a condition that is true or false, this gives int32"),
        ("", "expected a condition that is true or false"),
        ("uid IN (SELECT content FROM read_text('/etc/passwd'))", "only the warehouse can be read"),
        ("uid IN (FROM '/etc/passwd')", "does not exist"),
        ("EXISTS (WITH x AS (COPY samples TO 'x.csv') SELECT 1)", "not an SQL condition|COPY"),
    ],
)
def test_a_condition_reaches_nothing_but_the_warehouse(made: Data, where: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, QueryError), match=said):
        made.samples(where=where)
    assert list(tmp_path.iterdir()) == []


def test_a_condition_keeps_to_the_limits(made: Data) -> None:
    made.settings.__dict__["warehouse"] = made.settings.warehouse.model_copy(update={"statement_timeout": 0.2})
    with pytest.raises(QueryError, match="stopped after 0"):
        made.samples(where="(SELECT count(*) FROM range(1000000000000) r(n) WHERE hash(n) = 1) > 0")


def test_mistakes_say_what_there_is(made: Data) -> None:
    for call, said in (
        (lambda: made.samples(columns=["nosuch"]), "samples has no column nosuch; it has: uid, source"),
        (lambda: made.subset("nosuch"), "there is no subset nosuch; there are: best"),
        (lambda: made.subset("best", columns=["x"]), "samples has no column x"),
        (lambda: made.explain("nobody.jpg"), "no sample is named nobody.jpg; near it:"),
        (lambda: made.search("a cat", k=0), "k is 0: at least 1 sample"),
        (lambda: made.search("a cat", where=["colour=red"]), "'colour' cannot be searched; allowed: "),
    ):
        with pytest.raises(UsageError, match=said):
            call()


def test_what_is_missing_in_a_folder_is_said_with_what_to_do(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="nowhere: there is no such folder; give the data folder of a project, or"):
        dqe.open("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OpenError, match=r"empty: no dqe\.yaml in it; .*dqe init /path/to/images, then DQE_DATA="):
        dqe.open(str(tmp_path / "empty"))
    shutil.copy(finished / "dqe.yaml", tmp_path / "empty")
    with pytest.raises(OpenError, match=r"no warehouse at .*empty/warehouse.duckdb yet: run: DQE_DATA=.* dqe material"):
        dqe.open("empty")


def test_several_are_open_at_once_and_nothing_of_the_process_changes(
    made: Data, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(finished / "dqe.yaml", other)
    with data_folder(other):
        warehouse = Warehouse()
    warehouse.rebuild(lambda connection: connection.execute("CREATE TABLE samples AS SELECT 'x' AS uid, true AS ok"))
    before = dict(os.environ), data_directory()
    second = dqe.open("other")
    assert second.samples().to_pylist() == [{"uid": "x", "ok": True}]
    assert made.samples().num_rows == 256
    assert made.search("a cat", k=1).num_rows == 1
    assert second.folder == other
    found = {}
    threads = [
        threading.Thread(target=lambda one=one: found.update({one.folder: one.samples().num_rows}))
        for one in (made, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {finished: 256, other: 1}
    assert (dict(os.environ), data_directory()) == before
    assert second.samples().num_rows == 1
    with pytest.raises(WarehouseError, match=r"the warehouse was made by another version, .*run: dqe materialize"):
        second.explain("x")
    # A rebuild replaces the file: what is asked afterwards sees the new one.
    warehouse.rebuild(lambda connection: connection.execute("CREATE TABLE samples AS FROM range(7) t(uid)"))
    assert second.samples().num_rows == 7


def test_threads_that_work_for_a_folder_know_it(tmp_path: Path) -> None:
    with data_folder(tmp_path / "a"):
        assert set(ordered_map(lambda _: data_directory(), range(10))) == {tmp_path / "a"}
    assert set(ordered_map(lambda _: data_directory(), range(10))) == {tmp_path / "data"}
