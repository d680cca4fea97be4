from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_resources.sources.datacomp import DatacompSource
from dqe_resources.sources.protocol import SourceError

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, first: int, rows: int, **columns: Any) -> None:
    table = {
        "uid": [f"{number:032x}" for number in range(first, first + rows)],
        "url": [f"http://a.example/{number}.jpg" for number in range(first, first + rows)],
        "text": [f"caption {number}" for number in range(first, first + rows)],
        "original_width": [640] * rows,
        "original_height": pa.array([480] * rows, pa.int32()),
        "clip_b32_similarity_score": pa.array([0.25] * rows, pa.float16()),
        "clip_l14_similarity_score": [float("nan")] * rows,
        "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]]] * rows,
        **columns,
    }
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=3)


def test_uids_are_kept_and_nothing_else_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", 0, 10)
    write(tmp_path / "in" / "b.parquet", 10, 5)
    source = DatacompSource(name="datacomp", path=tmp_path / "in", shard_size=4)
    rows = [row for shard in source.shards() for row in source.rows(shard.index)]
    assert [row.uid for row in rows] == [f"{number:032x}" for number in range(15)]
    assert [row.key for row in rows] == [row.uid for row in rows]
    assert (rows[12].url, rows[12].caption, rows[12].image) == ("http://a.example/12.jpg", "caption 12", None)
    assert json.loads(rows[0].metadata or "") == {
        "original_width": 640,
        "original_height": 480,
        "clip_b32_similarity_score": 0.25,
        "clip_l14_similarity_score": None,
        "face_bboxes": [[0.1, 0.2, 0.3, 0.4]],
    }


def test_only_the_shards_of_a_changed_file_change(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", 0, 8)
    write(tmp_path / "in" / "b.parquet", 8, 8)
    source = DatacompSource(name="datacomp", path=tmp_path / "in", shard_size=4)
    before = [shard.digest for shard in source.shards()]
    write(tmp_path / "in" / "b.parquet", 8, 9)
    after = [shard.digest for shard in source.shards()]
    assert [one == other for one, other in zip(before, after, strict=False)] == [True, True, False, False]
    assert len(after) == 5


def test_uids_in_upper_case_are_made_lower(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 0, 1, uid=["0123456789ABCDEF0123456789ABCDEF"])
    (row,) = DatacompSource(name="datacomp", path=tmp_path / "a.parquet").rows(0)
    assert row.uid == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("uid", ["", "12", "g" * 32, "0" * 31 + "\n", None])
def test_a_row_without_a_uid_is_a_fault_and_the_rest_goes_on(tmp_path: Path, uid: str | None) -> None:
    write(tmp_path / "a.parquet", 0, 3, uid=["0" * 32, uid, "1" * 32])
    first, wrong, last = DatacompSource(name="datacomp", path=tmp_path / "a.parquet").rows(0)
    assert [(row.uid, row.fault) for row in (first, last)] == [("0" * 32, None), ("1" * 32, None)]
    assert (wrong.uid, wrong.url) == (None, "http://a.example/1.jpg")
    assert f"a.parquet, row 2: 'uid' is {uid!r}, expected 32 hex digits" in (wrong.fault or "")


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    columns = [pa.array(["0" * 32]), pa.array(["http://a"]), pa.array(["x"]), pa.array([1]), pa.array([2])]
    table = pa.Table.from_arrays(columns, ["uid", "url", "text", "width", "width"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: 2 columns 'width'; there are: uid, url, text, width, width"):
        list(DatacompSource(name="datacomp", path=tmp_path / "a.parquet").shards())


def test_missing_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["0" * 32], "url": ["http://a"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: no column 'text'; there are: uid, url"):
        list(DatacompSource(name="datacomp", path=tmp_path / "a.parquet").shards())


def test_a_row_without_a_url_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 0, 2, url=["http://a", None])
    _, row = DatacompSource(name="datacomp", path=tmp_path / "a.parquet").rows(0)
    assert "a.parquet, row 2: column 'url' is empty" in (row.fault or "")


def test_a_caption_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 0, 2, text=pa.array([b"ok", b"caf\xe9"]).view(pa.string()))
    good, wrong = DatacompSource(name="datacomp", path=tmp_path / "a.parquet").rows(0)
    assert (good.caption, good.fault) == ("ok", None)
    assert "a.parquet, row 2: column 'text' is not in UTF-8" in (wrong.fault or "")
    assert wrong.uid == f"{1:032x}"
