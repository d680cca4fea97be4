"""A user's table, sorted once by its keys: what shards find in it, and rows that contradict each other."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.signals import sorted_table as module
from dqe_assets.signals.columns import SignalsError
from dqe_assets.signals.settings import SignalTable
from dqe_assets.signals.sorted_table import key_digests, keys_at, sorted_table

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))


def table_of(path: Path, columns: dict[str, Any], **more: Any) -> SignalTable:
    pq.write_table(pa.table(columns), path, row_group_size=1000)
    return SignalTable(name="made", path=path, **more)


def found(settings: SignalTable, keys: list[str | None], name: str) -> list[Any]:
    digests, there = key_digests(pa.array(keys, pa.string()), settings.key)
    table = sorted_table(settings)
    places = np.where(there, table.find(digests), -1)
    return table.table[name].take(pa.array(places, mask=places < 0)).to_pylist()


def test_every_key_finds_its_row_whatever_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 2048)
    rows = np.random.default_rng(0).permutation(30_000)
    urls = [f"https://example.org/{row}.jpg" for row in rows.tolist()]
    settings = table_of(tmp_path / "t.parquet", {"url": urls, "score": rows.astype(np.float32)}, key="url")
    assert sorted_table(settings).keys == sorted_table(settings).rows == 30_000
    assert sorted_table(settings).table["digest"].num_chunks > 1
    asked = [0, 29_999, 12_345, 0]
    keys = [None, *(f" https://example.org/{row}.jpg" for row in asked), "https://example.org/none.jpg"]
    assert found(settings, keys, "score") == [None, *map(float, asked), None]
    assert found(settings, keys[1:3], "table_row") == [urls.index(keys[1].strip()) + 1, urls.index(keys[2].strip()) + 1]


def test_capitals_mean_the_same_in_digests_alone(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    settings = table_of(tmp_path / "a.parquet", {"hash": [digest.upper()], "v": [1]}, key="sha256", key_column="hash")
    assert found(settings, [digest, digest.upper()], "v") == [1, 1]
    settings = table_of(tmp_path / "b.parquet", {"image_name": ["A.jpg", None], "v": [1, 2]}, key="image_name")
    assert found(settings, ["A.jpg", "a.jpg"], "v") == [1, None]
    assert (sorted_table(settings).rows, sorted_table(settings).keys) == (2, 1)


def test_a_repeated_key_is_one_if_its_values_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 2)
    uids = ["a", "b", "a", "a", "c"]
    columns = {"uid": uids, "v": [1.5, None, 1.5, 1.5, 2.0], "w": ["x", None, "x", "x", "y"]}
    settings = table_of(tmp_path / "t.parquet", columns)
    assert (sorted_table(settings).rows, sorted_table(settings).keys) == (5, 3)
    assert found(settings, ["a", "b", "c"], "v") == [1.5, None, 2.0]
    assert found(settings, ["a"], "table_row") == [1]


@pytest.mark.parametrize("other", [2.5, None])
def test_a_repeated_key_with_another_value_is_refused_with_both_rows(tmp_path: Path, other: float | None) -> None:
    uids = [f"{row}" for row in range(1500)]
    settings = table_of(tmp_path / "t.parquet", {"uid": [*uids, "7"], "v": [*([1.5] * 1500), other]})
    with pytest.raises(SignalsError, match="rows 8 and 1,501 have the same uid '7' and different values of v"):
        sorted_table(settings)
    assert not list((tmp_path / "cache").glob("*signals*"))


def test_a_file_that_changes_is_read_again_and_its_former_state_goes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("uid,v\na,1\n")
    assert found(SignalTable(name="made", path=path), ["a"], "v") == [1.0]
    path.write_text("uid,v\na,27\n")
    assert found(SignalTable(name="made", path=path), ["a"], "v") == [27.0]
    assert len(list((tmp_path / "cache").glob("signals-made-*.arrow"))) == 1


def test_a_torn_file_and_a_damaged_cache_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    settings = table_of(path, {"uid": [str(row) for row in range(5000)], "v": list(range(5000))})
    sorted_table(settings)
    (cached,) = (tmp_path / "cache").glob("signals-made-*.arrow")
    cached.write_bytes(cached.read_bytes()[:100])
    module._opened.cache_clear()
    with pytest.raises(SignalsError, match=r"damaged .*; delete it, and run the same command again"):
        sorted_table(settings)
    cached.unlink()
    data = path.read_bytes()
    path.write_bytes(data[:2000] + b"\0" * 500 + data[2500:])
    with pytest.raises(SignalsError, match=r"t.parquet: cannot be read as .parquet"):
        sorted_table(settings)


def test_an_empty_table_has_no_key(tmp_path: Path) -> None:
    settings = table_of(tmp_path / "t.parquet", {"uid": pa.array([], pa.string()), "v": pa.array([], pa.float64())})
    assert found(settings, ["a"], "v") == [None]
    assert sorted_table(settings).rows == 0


def test_the_keys_of_rows_are_read_again_from_the_file(tmp_path: Path) -> None:
    settings = table_of(tmp_path / "t.parquet", {"uid": [f"k{row}" for row in range(3000)], "v": [0] * 3000})
    assert keys_at(settings, [1, 2, 2500]) == ["k0", "k1", "k2499"]
    assert keys_at(settings, []) == []
