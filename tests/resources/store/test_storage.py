from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import Stamp, StorageError, Store, StoreAwayError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = pa.schema([pa.field("uid", pa.string(), nullable=False), pa.field("values", pa.list_(pa.float16()))])
STAMP = Stamp("f" * 32, "1", 3)


def table() -> pa.Table:
    return pa.table({"uid": ["a", "b", "c"], "values": [[1.0], None, [2.0]]}, SCHEMA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_what_is_written_is_read_back(store: Store) -> None:
    store.write_table("scores", "s-00000", table(), SCHEMA, STAMP)
    assert store.read("scores", "s-00000", SCHEMA).equals(table())
    assert store.read("scores", "s-00000", SCHEMA, ["uid"]).column_names == ["uid"]
    stored = store.get("scores", "s-00000")
    assert stored is not None
    assert stored.stamp == STAMP
    assert stored.bytes == Path(stored.path).stat().st_size


def test_the_same_table_gives_the_same_bytes(store: Store) -> None:
    first = Path(store.write_table("scores", "a", table(), SCHEMA, STAMP)).read_bytes()
    second = Path(store.write_table("scores", "b", table(), SCHEMA, STAMP)).read_bytes()
    assert first == second


def test_images_are_stored_as_they_are_and_everything_else_small(store: Store) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([pa.field("uid", pa.string()), pa.field("image", image)])
    batch = pa.RecordBatch.from_pylist([{"uid": "a", "image": {"bytes": b"jpeg" * 99, "path": "a.jpg"}}] * 2, schema)
    path = store.write_batches("raw_samples", "s-00000", iter([batch, batch]), schema, lambda: STAMP)
    group = pq.ParquetFile(path).metadata.row_group(1)
    columns = {group.column(number).path_in_schema: group.column(number) for number in range(3)}
    assert {name: column.compression for name, column in columns.items()} == {
        "uid": "ZSTD",
        "image.bytes": "UNCOMPRESSED",
        "image.path": "ZSTD",
    }
    assert {name: column.has_dictionary_page for name, column in columns.items()} == {
        "uid": True,
        "image.bytes": False,
        "image.path": True,
    }
    assert store.read("raw_samples", "s-00000", schema).equals(pa.Table.from_batches([batch, batch]))


def test_a_manifest_keeps_its_facts(store: Store) -> None:
    stamp = Stamp("0" * 32, "2", 7, ("count_matches",), {"collection": "x"})
    store.write_manifest("collection", "s-00000", stamp)
    stored = store.get("collection", "s-00000")
    assert stored is not None
    assert stored.stamp == stamp


def test_nothing_there_is_none_for_get_and_an_error_for_read(store: Store) -> None:
    assert store.get("scores", "s-00000") is None
    with pytest.raises(
        StorageError, match=r"s-00000\.parquet: not there; run: dqe materialize scores --shard s-00000$"
    ):
        store.read("scores", "s-00000", SCHEMA)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_torn_file_is_named_with_the_fix_and_left_alone(store: Store, damage: str) -> None:
    path = Path(store.write_table("scores", "s-00000", table(), SCHEMA, STAMP))
    whole = path.read_bytes()
    torn = {"cut": whole[: len(whole) // 2], "garbage": b"hello world" * 20, "empty": b""}[damage]
    path.write_bytes(torn)
    for action in (lambda: store.read("scores", "s-00000", SCHEMA), lambda: store.get("scores", "s-00000")):
        with pytest.raises(
            StorageError, match=r"s-00000\.parquet: torn .*; run: dqe materialize scores --shard s-00000$"
        ):
            action()
    assert path.read_bytes() == torn


def test_damage_within_the_data_is_found_when_read(store: Store) -> None:
    big = pa.table({"uid": [f"{i:032x}" for i in range(5000)], "values": [[float(i % 7)] for i in range(5000)]}, SCHEMA)
    path = Path(store.write_table("scores", "s-00000", big, SCHEMA, STAMP))
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"s-00000\.parquet"):
        store.read("scores", "s-00000", SCHEMA)


def test_a_foreign_parquet_file_is_refused(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "scores"
    folder.mkdir(parents=True)
    pq.write_table(table(), folder / "s-00000.parquet")
    with pytest.raises(StorageError, match="this platform did not write it; move it away"):
        store.get("scores", "s-00000")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (SCHEMA.append(pa.field("extra", pa.int8())), "column extra is missing"),
        (pa.schema([SCHEMA.field("uid"), pa.field("values", pa.string())]), "column values is list<"),
    ],
)
def test_another_schema_is_named_by_column(store: Store, schema: pa.Schema, message: str) -> None:
    store.write_table("scores", "s-00000", table(), SCHEMA, STAMP)
    with pytest.raises(StorageError, match=f"{message}.*written by another version; run: dqe materialize"):
        store.read("scores", "s-00000", schema)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pa.table({"uid": ["a"]}), r"missing \['values'\]"),
        (pa.table({"uid": ["a"], "values": ["b"]}), "column values is string, declared list"),
        (pa.table({"uid": pa.array([None], pa.string()), "values": pa.array([None], SCHEMA.field(1).type)}), "1 nulls"),
    ],
)
def test_a_table_that_does_not_fit_is_not_written(store: Store, wrong: pa.Table, message: str) -> None:
    store.write_table("scores", "s-00000", table(), SCHEMA, STAMP)
    with pytest.raises(StorageError, match=message):
        store.write_table("scores", "s-00000", wrong, SCHEMA, STAMP)
    assert store.read("scores", "s-00000", SCHEMA).equals(table())


def test_an_unwritable_root_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        Store(str(tmp_path / "file" / "store")).write_table("scores", "a", table(), SCHEMA, STAMP)


def test_a_full_disk_damages_nothing(tmp_path: Path) -> None:
    """A real one: a process whose files may not grow beyond 64 KiB writes over a good partition."""
    store = Store(str(tmp_path / "store"))
    store.write_table("scores", "s-00000", table(), SCHEMA, STAMP)
    before = store.read("scores", "s-00000", SCHEMA)
    script = """
import resource, signal, sys, os
import pyarrow as pa
from dqe_resources.store import Stamp, StorageError, Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
schema = pa.schema([pa.field("uid", pa.string(), nullable=False)])
big = pa.table({"uid": [os.urandom(32).hex() for _ in range(20000)]}, schema)
try:
    Store(sys.argv[1]).write_table("scores", "s-00000", big, schema, Stamp("0" * 32, "1", 1))
except StorageError as error:
    print(error)
    sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "cannot be written" in done.stdout
    assert os.strerror(errno.EFBIG) in done.stdout
    assert "nothing was changed" in done.stdout
    assert store.read("scores", "s-00000", SCHEMA).equals(before)
    assert [path.name for path in (tmp_path / "store" / "scores").iterdir()] == ["s-00000.parquet"]


def test_an_object_store_works_alike() -> None:
    store = Store("memory://bucket/store")
    store.write_table("scores", "s-00000", table(), SCHEMA, STAMP)
    assert store.read("scores", "s-00000", SCHEMA).equals(table())
    assert store.files("scores", ["s-00000", "s-00001"]) == ["/bucket/store/scores/s-00000.parquet"]
    stored = store.get("scores", "s-00000")
    assert stored is not None
    assert stored.stamp == STAMP


@pytest.mark.parametrize("said", ["many", "0", "-1", "2.5", ""])
def test_a_number_of_attempts_that_is_none_is_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", said)
    with pytest.raises(StoreAwayError, match=f"^the environment variable AWS_MAX_ATTEMPTS is '{said}': give a whole"):
        Store("s3://bucket/store").get("raw_samples", "one")


@pytest.mark.parametrize("kind", ["local", "object store"])
def test_what_breaks_off_among_batches_leaves_what_was_there(kind: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path) if kind == "local" else f"memory://{tmp_path.name}")

    def broken() -> Iterator[pa.RecordBatch]:
        yield from table().to_batches()
        raise KeyboardInterrupt

    for before in (None, table().slice(1)):
        if before is not None:
            store.write_batches("scores", "s-00000", iter(before.to_batches()), SCHEMA, lambda: STAMP)
        with pytest.raises(KeyboardInterrupt):
            store.write_batches("scores", "s-00000", broken(), SCHEMA, lambda: STAMP)
        if before is None:
            assert store.get("scores", "s-00000") is None
        else:
            assert store.read("scores", "s-00000", SCHEMA).equals(before)


def test_sweep_removes_what_killed_writers_left(store: Store, tmp_path: Path) -> None:
    path = Path(store.write_table("scores", "s-00000", table(), SCHEMA, STAMP))
    stale, young = path.parent / ".x.parquet.1.tmp", path.parent / ".y.parquet.2.tmp"
    stale.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(stale, (0, 0))

    swept = []

    def slowly() -> Iterator[pa.RecordBatch]:
        for batch in table().to_batches() * 2:
            yield batch
            (mine,) = path.parent.glob(".s-00001.parquet.*.tmp")
            os.utime(mine, (0, 0))
            swept.append(store.sweep())

    store.write_batches("scores", "s-00001", slowly(), SCHEMA, lambda: STAMP)
    assert swept == [1, 0], "what was left, and not what is being written"
    assert sorted(path.parent.iterdir()) == [young, path, path.with_name("s-00001.parquet")]


def test_what_a_killed_run_left_of_a_large_table_goes_when_it_is_written_again(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "captions" / "a [b]"
    folder.mkdir(parents=True)
    left, of_another = folder / ".s-00000.parquet.1.tmp", folder / ".s-00001.parquet.1.tmp"
    for path in (left, of_another):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    store.write_batches("captions/a [b]", "s-00000", iter(table().to_batches()), SCHEMA, lambda: STAMP)
    assert sorted(folder.iterdir()) == [of_another, folder / "s-00000.parquet"]


def test_fingerprints_differ_where_the_parts_do() -> None:
    assert fingerprint("a", {"x": 1}) == fingerprint("a", {"x": 1})
    assert len({fingerprint("a", 1), fingerprint("a", "1"), fingerprint("a1"), fingerprint(["a"], 1)}) == 4
