"""Reading DataComp's metadata, and naming what is wrong with it."""

from __future__ import annotations

import hashlib
import re

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.pool import SCORES, DataCompPool, PoolError, TablePool
from tests.filtering.make_pool import table, write_part


def read(pool, columns, batch_rows=5):
    return pa.concat_tables(
        pa.Table.from_batches([batch]) for part in pool.parts for batch in part.batches(columns, batch_rows)
    )


@pytest.fixture
def folder(tmp_path):
    """Two files of 20 and 3 rows, in row groups of 7, with embeddings."""
    for name, rows in (("00000001", 3), ("00000000", 20)):
        embeddings = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float16)
        write_part(tmp_path / "pool", name, table(rows, seed=rows), {"l14_img": embeddings, "b32_img": embeddings * 2})
    return tmp_path / "pool"


def test_rows_come_in_order_with_their_embeddings(folder):
    found = read(DataCompPool(str(folder)), ["l14_img", "text", "uid"])
    assert found.column_names == ["l14_img", "text", "uid"]
    expected = pa.concat_tables([table(20, seed=20), table(3, seed=3)])
    assert found.select(["text", "uid"]).equals(expected.select(["text", "uid"]))
    arrays = [np.load(folder / f"0000000{number}.npz")["l14_img"] for number in (0, 1)]
    np.testing.assert_array_equal(np.array(found["l14_img"].to_pylist()), np.concatenate(arrays))
    assert [part.rows for part in DataCompPool(str(folder)).parts] == [20, 3]


def test_embeddings_alone(folder):
    assert read(DataCompPool(str(folder)), ["b32_img"]).num_rows == 23


def test_another_file_system_and_compressed_arrays(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder) + "/", "/filtering-pool/", recursive=True)
    compressed = memory.open("/filtering-pool/00000001.npz", "wb")
    with compressed:
        np.savez_compressed(compressed, l14_img=np.load(folder / "00000001.npz")["l14_img"])
    columns = ["uid", "l14_img", "original_width"]
    assert read(DataCompPool("memory://filtering-pool"), columns).equals(read(DataCompPool(str(folder)), columns))


def test_files_say_what_was_read(folder):
    part = DataCompPool(str(folder)).parts[1]
    digests = {
        name: f"sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"
        for name in ("00000001.parquet", "00000001.npz")
    }
    assert {file.path: file.digest for file in part.files(["uid", "l14_img"])} == digests
    assert [file.path for file in part.files(["uid"])] == ["00000001.parquet"]


class TestBadMetadata:
    """Each fault is named with the file, and the row where it is a row's."""

    def refused(self, folder, columns, *said):
        with pytest.raises(PoolError) as caught:
            read(DataCompPool(str(folder)), columns)
        for words in said:
            assert words in str(caught.value)

    def test_a_missing_column(self, tmp_path):
        write_part(tmp_path, "a", table(3).drop_columns("clip_b32_similarity_score"))
        self.refused(
            tmp_path, ["uid", SCORES["b32"]], "a.parquet: column clip_b32_similarity_score is missing", "there are: uid"
        )

    @pytest.mark.parametrize("uid", [None, "0" * 31, "z" * 32])
    def test_a_uid_that_is_none(self, tmp_path, monkeypatch, uid):
        monkeypatch.setattr("dqe_assets.filtering.pool.BATCH_ROWS", 6)
        rows = table(20)
        found = rows["uid"].to_pylist()
        found[17] = uid
        write_part(tmp_path, "a", table(5))
        write_part(tmp_path, "b", table(20, uid=pa.array(found, pa.string())))
        with pytest.raises(PoolError, match=rf"b\.parquet, row 17 .*uid is {uid!r}"):
            make_subset(parse("no_filter"), [DataCompPool(str(tmp_path))])

    @pytest.mark.parametrize(("rows", "lonely"), [(19, 19), (21, 20)])
    def test_an_array_of_another_length(self, folder, tmp_path, rows, lonely):
        np.savez(folder / "00000000.npz", l14_img=np.zeros((rows, 4), np.float16))
        self.refused(folder, ["uid", "l14_img"], "00000000.npz: l14_img has", f"{rows} rows", "20", f"row {lonely}")

    @pytest.mark.parametrize(
        ("array", "found"),
        [
            (np.zeros(20), "float64 [20]"),
            (np.zeros((20, 4), int), "int64 [20, 4]"),
            (np.asfortranarray(np.zeros((20, 4))), "by columns"),
        ],
    )
    def test_an_array_that_is_no_embedding(self, folder, array, found):
        np.savez(folder / "00000000.npz", l14_img=array)
        self.refused(folder, ["uid", "l14_img"], "00000000.npz: l14_img", found)

    def test_no_such_array(self, folder):
        np.savez(folder / "00000000.npz", b32_img=np.zeros((20, 4)))
        self.refused(folder, ["uid", "l14_img"], "00000000.npz: l14_img is missing", "there are: b32_img")

    def test_no_arrays(self, folder):
        (folder / "00000000.npz").unlink()
        self.refused(folder, ["uid", "l14_img"], "00000000.npz", "same folder as 00000000.parquet")

    @pytest.mark.parametrize("keep", [0, 100, 300])
    def test_torn_arrays(self, folder, keep):
        path = folder / "00000000.npz"
        path.write_bytes(path.read_bytes()[:keep])
        self.refused(folder, ["uid", "l14_img"], "00000000.npz", "torn")

    def test_arrays_with_a_flipped_bit(self, folder):
        path = folder / "00000000.npz"
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
        self.refused(folder, ["uid", "l14_img"], "00000000.npz: l14_img", "Bad CRC-32")

    def test_a_torn_parquet(self, tmp_path):
        write_part(tmp_path, "a", table(9))
        path = tmp_path / "a.parquet"
        path.write_bytes(path.read_bytes()[:-9])
        self.refused(tmp_path, ["uid"], "a.parquet: torn or not Parquet")

    def test_a_damaged_parquet(self, tmp_path):
        write_part(tmp_path, "a", table(2000), group=2000)
        path = tmp_path / "a.parquet"
        data = bytearray(path.read_bytes())
        data[4:400] = bytes(396)
        path.write_bytes(data)
        self.refused(tmp_path, ["uid"], "a.parquet: damaged")

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"original_width": ["wide"] * 3}, "column original_width is string; expected numbers"),
            ({"text": [[1], [2], [3]]}, "column text is list<element: int64>; expected text"),
            (
                {"text": pa.array([b"fine", b"fine", b"\xff"]).view(pa.string())},
                "column text, row 2 (counting from 0): not UTF-8",
            ),
        ],
    )
    def test_a_column_of_another_type(self, tmp_path, columns, said):
        write_part(tmp_path, "a", table(3, **columns))
        self.refused(tmp_path, ["uid", *columns], "a.parquet", said)

    def test_no_files(self, tmp_path):
        self.refused(tmp_path, ["uid"], "no .parquet file")

    def test_no_folder(self, tmp_path):
        self.refused(tmp_path / "nowhere", ["uid"], "nowhere", "cannot be listed")

    def test_two_pools_of_one_name(self):
        with pytest.raises(PoolError, match="two pools have one name"):
            make_subset(parse("no_filter"), [TablePool(table(1)), TablePool(table(1))])

    def test_a_table_without_the_column(self):
        with pytest.raises(PoolError, match=re.escape("table: column uid is missing")):
            make_subset(parse("no_filter"), [TablePool(table(1).drop_columns("uid"))])
