"""Finished rows of an unfinished partition."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dqe_resources.store import Checkpoint, Stamp, Store

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = pa.schema([("uid", pa.string()), ("value", pa.int32())])


def rows(*numbers: int) -> pa.Table:
    return pa.table({"uid": [f"u{number}" for number in numbers], "value": pa.array(numbers, pa.int32())}, SCHEMA)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "a [b]") if request.param == "local" else f"memory://{tmp_path.name}")


def test_what_was_appended_is_there_and_clearing_removes_every_version(store: Store) -> None:
    first, other = Checkpoint(store, "captions/x", "s-00000", "v1"), Checkpoint(store, "captions/x", "s-00000", "v2")
    assert first.rows(SCHEMA).num_rows == 0
    first.append(rows(1, 2))
    first.append(rows(3))
    assert sorted(first.rows(SCHEMA)["value"].to_pylist()) == [1, 2, 3]
    assert other.rows(SCHEMA).num_rows == 0, "another version never sees them"
    other.clear()
    assert first.rows(SCHEMA).num_rows == 0
    other.clear()


def test_a_torn_file_costs_its_own_rows_only(tmp_path: Path) -> None:
    checkpoint = Checkpoint(Store(str(tmp_path)), "captions", "s-00000", "v1")
    checkpoint.append(rows(1))
    checkpoint.append(rows(2))
    torn = min(tmp_path.rglob("*.arrow"))
    torn.write_bytes(torn.read_bytes()[:-20])
    assert replace(checkpoint).rows(SCHEMA).num_rows == 1


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(Store(str(tmp_path)), "captions", "s-00000", "v1")
    checkpoint.append(rows(*range(50)))
    (path,) = tmp_path.rglob("*.arrow")
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert replace(checkpoint).rows(SCHEMA).num_rows == 0, f"byte {place} of {len(data)}"
    path.write_bytes(data)
    found = replace(checkpoint)
    assert found.rows(SCHEMA).equals(rows(*range(50)))
    assert found.read(str(path), SCHEMA, [3]).equals(rows(3))


def test_rows_of_a_partition_that_was_written_after_them_are_swept_and_newer_ones_are_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    finished, begun, again = (Checkpoint(store, "captions/x", f"s-0000{number}", "v1") for number in range(3))
    for one in (finished, begun, again):
        one.append(rows(1))
    for one in (finished, again):
        store.write_table("captions/x", one.partition, rows(1), SCHEMA, Stamp("v1", "1", 1))
    again.append(rows(2))
    (newest,) = [path for path in again.files() if replace(again).read(path, SCHEMA)["value"].to_pylist() == [2]]
    os.utime(newest, ns=(1 << 61, 1 << 61))
    assert store.sweep() == 1
    assert [len(one.files()) for one in (finished, begun, again)] == [0, 1, 2]
    assert store.sweep() == 0


def test_some_rows_and_columns_of_a_file(store: Store) -> None:
    checkpoint = Checkpoint(store, "captions", "s-00000", "v1")
    checkpoint.append(pa.concat_tables([rows(1, 2, 3), rows(4, 5)]))
    (path,) = checkpoint.files()
    for one in (checkpoint, replace(checkpoint)):
        assert one.read(path, SCHEMA, [0, 2, 4])["value"].to_pylist() == [1, 3, 5]
        assert one.read(path, pa.schema([SCHEMA.field("value")])).to_pydict() == {"value": [1, 2, 3, 4, 5]}


def test_the_latest_rows_are_read_from_memory_and_older_ones_from_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = rows(*range(100))
    monkeypatch.setattr("dqe_resources.store.checkpoint._IN_MEMORY_BYTES", 2 * one.nbytes)
    checkpoint = Checkpoint(Store(str(tmp_path)), "captions", "s-00000", "v1")
    for _ in range(3):
        checkpoint.append(one)
    for path in tmp_path.rglob("*.arrow"):
        path.write_bytes(b"")
    assert checkpoint.rows(SCHEMA).num_rows == 200
    assert replace(checkpoint).rows(SCHEMA).num_rows == 0


def test_what_does_not_fit_together_is_not_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(Store(str(tmp_path)), "captions", "s-00000", "v1")
    checkpoint.append(rows(1, 2, 3))
    (path,) = tmp_path.rglob("*.arrow")
    ends_of_uids = np.array([0, 2, 4, 6], np.int32).tobytes()
    data = path.read_bytes()
    assert data.count(ends_of_uids) == 1
    path.write_bytes(data.replace(ends_of_uids, np.array([0, 2, 4, 1 << 30], np.int32).tobytes()))
    assert replace(checkpoint).rows(SCHEMA).num_rows == 0
