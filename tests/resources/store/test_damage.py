"""Flipped bits, cut files and garbled stamps: what is read is what was written, or an error."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest

from dqe_resources.store import Stamp, StorageError, Store, TornError, verified_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("similarity", pa.float32()),
        pa.field("words", pa.list_(pa.string())),
        pa.field("tokens", pa.int64()),
        pa.field("image", IMAGE),
    ]
)
ROWS = 600
STAMP = Stamp("f" * 32, "1", ROWS, facts={"kept": 17, "of": ["a", "b"]})
FLIPS = 300


def batches() -> list[pa.RecordBatch]:
    chance = random.Random(1)
    rows = [
        {
            "uid": f"{chance.getrandbits(128):032x}",
            "similarity": None if n % 9 == 0 else chance.random(),
            "words": None if n % 7 == 0 else [f"word{chance.randrange(40)}"] * (n % 4),
            "tokens": chance.randrange(100),
            "image": {"bytes": chance.randbytes(40), "path": f"{n}.jpg"},
        }
        for n in range(ROWS)
    ]
    return [pa.RecordBatch.from_pylist(rows[start : start + 200], SCHEMA) for start in range(0, ROWS, 200)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def path(store: Store) -> Path:
    return Path(store.write_batches("scores", "s-00000", batches(), SCHEMA, lambda: STAMP))


def outcomes(path: Path, read: Callable[[], object]) -> Counter[str]:
    """What comes of reading after each of many flipped bits, as many of them in the footer as in the data."""
    whole, good, chance = path.read_bytes(), read(), random.Random(2)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    found: Counter[str] = Counter()
    for flip in range(FLIPS):
        position = chance.randrange(footer) if flip % 2 else chance.randrange(footer, len(whole))
        flipped = bytearray(whole)
        flipped[position] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            found["the same" if read() == good else f"another: {position}"] += 1
        except (StorageError, duckdb.Error):
            found["an error"] += 1
    return found


def test_no_flipped_bit_changes_what_is_read(store: Store, path: Path) -> None:
    def read() -> object:
        stored = store.get("scores", "s-00000")
        return stored and (stored.stamp, store.read("scores", "s-00000", SCHEMA).to_pylist())

    found = outcomes(path, read)
    assert set(found) == {"an error", "the same"}
    assert found["an error"] > FLIPS // 2


def test_no_flipped_bit_changes_what_duckdb_reads(path: Path) -> None:
    columns = ["uid", "similarity", "words", "tokens"]

    def read() -> object:
        with duckdb.connect() as connection:
            connection.register("scores", verified_dataset([str(path)], SCHEMA, columns))
            return connection.execute("SELECT * FROM scores").fetchall()

    found = outcomes(path, read)
    assert set(found) == {"an error", "the same"}
    assert found["an error"] > FLIPS // 4


def test_a_dataset_reads_only_what_is_wanted_of_each_file(store: Store, path: Path) -> None:
    other = store.write_batches("scores", "s-00001", batches()[:1], SCHEMA, lambda: STAMP)
    assert store.files("scores", ["s-00000", "s-00001", "s-00002"]) == [str(path), other]
    dataset = verified_dataset([str(path), other], SCHEMA, ["tokens", "uid"])
    assert dataset.schema.names == ["tokens", "uid"]
    assert dataset.count_rows() == ROWS + 200
    with pytest.raises(StorageError, match=r"s-00000\.parquet: column extra is missing"):
        verified_dataset([str(path)], SCHEMA.append(pa.field("extra", pa.int8())), ["extra"])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TornError, match=r"s-00000\.parquet: torn"):
        verified_dataset([str(path), other], SCHEMA, ["uid"])


def test_no_flipped_bit_changes_a_manifest(store: Store) -> None:
    path = Path(store.write_manifest("subset", None, STAMP))
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        try:
            stored = store.get("subset", None)
        except TornError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert stored is not None
            assert stored.stamp == STAMP


def test_a_stamp_of_before_there_were_checksums_is_read() -> None:
    text = b'{"fingerprint": "f", "code_version": "1", "rows": 2, "failed_checks": [], "facts": {"1": 2}}'
    assert Stamp.from_json(text) == Stamp("f", "1", 2, facts={"1": 2})
    assert Stamp.from_json(Stamp("f", "1", 2, facts={10: 1, 9: 2}).to_json()).facts == {"10": 1, "9": 2}


def damage(path: Path, column: str = "similarity", group: int = 1) -> bytes:
    """Flip a bit in the values of a column in one row group; gives the file as it was."""
    import pyarrow.parquet as pq

    whole = path.read_bytes()
    metadata = pq.read_metadata(path)
    names = [metadata.row_group(group).column(number).path_in_schema for number in range(metadata.num_columns)]
    chunk = metadata.row_group(group).column(names.index(column))
    flipped = bytearray(whole)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    flipped[start + chunk.total_compressed_size - 9] ^= 4
    path.write_bytes(flipped)
    return whole


def test_damage_that_a_reader_finds_is_remembered_until_it_is_mended(store: Store, path: Path) -> None:
    whole = damage(path)
    assert store.get("scores", "s-00000") is not None, "the footer is whole"
    assert store.read("scores", "s-00000", SCHEMA, ["uid"]).num_rows == ROWS, "and so are other columns"
    with pytest.raises(TornError, match=r"s-00000\.parquet: damaged .*; run: dqe materialize scores --shard s-00000$"):
        store.read("scores", "s-00000", SCHEMA, ["similarity"])
    for opened in (store, Store(store.root)):
        with pytest.raises(TornError, match="damaged, as who read it has found; run: dqe materialize scores"):
            opened.get("scores", "s-00000")
    assert store.partitions("scores") == {"s-00000"}
    path.write_bytes(whole)
    assert store.get("scores", "s-00000") is not None, "it was brought back from a copy"
    damage(path)
    with pytest.raises(TornError):
        list(store.batches("scores", "s-00000", SCHEMA, ["similarity"], 50))
    store.write_batches("scores", "s-00000", batches(), SCHEMA, lambda: STAMP)
    assert store.get("scores", "s-00000") is not None, "it was made again"
    assert not list(path.parent.glob(".damaged/*"))


def test_a_disk_that_failed_in_passing_makes_no_file_torn(store: Store, path: Path) -> None:
    whole = damage(path)
    with pytest.raises(TornError):
        store.read("scores", "s-00000", SCHEMA)
    (mark,) = path.parent.glob(".damaged/*")
    before = path.stat()
    with path.open("r+b") as file:
        file.write(whole)
    # The same bytes as were written, in the same file: only the disk had given others.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.get("scores", "s-00000") is not None
    assert not mark.exists()


def test_all_that_is_damaged_is_found_by_reading_it_through(store: Store, path: Path) -> None:
    other = Path(store.write_batches("scores", "s-00001", batches(), SCHEMA, lambda: STAMP))
    store.write_manifest("manifest", None, STAMP)
    everything = [("scores", f"s-0000{n}", None) for n in range(3)] + [("manifest", None, None)]
    store.require_whole(everything)
    damage(path, "image.bytes", 2)
    damage(other, "uid", 0)
    store.require_whole([("scores", "s-00000", ["uid"])])
    with pytest.raises(TornError) as caught:
        store.require_whole(everything)
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [str(path), str(other)]
    assert store.whole_rows("scores", "s-00000", ["uid", "image"]) == [*range(400)]
    assert store.whole_rows("scores", "s-00001", ["similarity"]) == [*range(ROWS)]


def test_of_an_object_store_damage_is_named_and_forced() -> None:
    store = Store("memory://damaged/store")
    store.write_batches("scores", "s-00000", batches(), SCHEMA, lambda: STAMP)
    path = store.path("scores", "s-00000")
    whole = store.filesystem.cat_file(path)
    middle = len(whole) // 2
    store.filesystem.pipe_file(path, whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(TornError, match=r"damaged .*run: dqe materialize scores --shard s-00000 --force"):
        store.read("scores", "s-00000", SCHEMA)
    assert store.get("scores", "s-00000") is not None
    dataset = verified_dataset([path], SCHEMA, SCHEMA.names, store.place)
    with pytest.raises(OSError, match="CRC"):
        dataset.to_table()
