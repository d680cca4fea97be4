"""What columns of users' tables are as signals, and what is said of values that are not of their type."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.signals.columns import SignalsError, signal_types, typed_batches

if TYPE_CHECKING:
    from pathlib import Path


def values(path: Path, key: str, *names: str) -> pa.Table:
    types = signal_types(path)[0]
    return pa.Table.from_batches(typed_batches(path, key, {name: (name, types[name]) for name in names}))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_texts_are_read_as_what_they_stand_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    rows = [
        ["id", "score", "likes", "safe", "lang", "day", "empty"],
        ["007", "0.5", " 3 ", "true", "en", "2026-01-02", ""],
        ["008", "NaN", "NA", "False", "", "2026-01-03", ""],
        ["009", "1e-3", "-4", "", "NA", "", ""],
    ]
    path.write_text("\n".join((",", "\t")[suffix == "tsv"].join(row) for row in rows) + "\n")
    types, refused = signal_types(path)
    assert types == {
        "id": pa.float64(), "score": pa.float64(), "likes": pa.float64(), "safe": pa.bool_(), "lang": pa.string(),
        "day": pa.string(),
    }  # fmt: skip
    assert refused == {"empty": "it has no value in its first rows"}
    found = values(path, "id", "score", "likes", "safe", "lang", "day")
    assert found.to_pydict() == {
        "key": ["007", "008", "009"],
        "table_row": [1, 2, 3],
        "score": [0.5, None, 1e-3],
        "likes": [3.0, None, -4.0],
        "safe": [True, False, None],
        "lang": ["en", None, "NA"],
        "day": ["2026-01-02", "2026-01-03", None],
    }


def test_parquet_keeps_the_size_of_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {
        "uid": pa.array(["a", "b"]),
        "half": pa.array([0.5, None], pa.float16()),
        "single": pa.array([0.1, float("nan")], pa.float32()),
        "whole": pa.array([2**60, None], pa.int64()),
        "small": pa.array([1, 2], pa.uint8()),
        "category": pa.array(["x", "y"]).dictionary_encode(),
        "day": pa.array([dt.date(2026, 1, 2), None]),
        "vector": pa.array([[1.0], [2.0]]),
    }
    pq.write_table(pa.table(columns), path)
    types, refused = signal_types(path)
    assert types == {
        "uid": pa.string(), "half": pa.float32(), "single": pa.float32(), "whole": pa.int64(), "small": pa.int64(),
        "category": pa.string(), "day": pa.string(),
    }  # fmt: skip
    assert list(refused) == ["vector"]
    assert "list" in refused["vector"]
    found = values(path, "uid", "half", "single", "whole", "small", "category", "day").to_pydict()
    assert found["half"] == [0.5, None]
    assert found["single"] == [pytest.approx(0.1), None]
    assert found["whole"] == [2**60, None]
    assert found["small"] == [1, 2]
    assert found["category"] == ["x", "y"]
    assert found["day"] == ["2026-01-02", None]


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    records = [{"uid": "a", "likes": 3, "safe": True}, {"uid": "b", "likes": 2.5}, {"uid": "c", "safe": False}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert values(path, "uid", "likes", "safe").to_pydict() == {
        "key": ["a", "b", "c"],
        "table_row": [1, 2, 3],
        "likes": [3.0, 2.5, None],
        "safe": [True, None, False],
    }


def many(count: int) -> list[dict[str, object]]:
    """Rows that fill more than the block that types are told by."""
    return [{"uid": f"{row:032x}" + "0" * 400, "score": row / 2} for row in range(count)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_value_of_another_type_is_named_by_its_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    rows = many(30_000)
    rows[25_000]["score"] = "high"
    if suffix == "csv":
        path.write_text("uid,score\n" + "".join(f"{row['uid']},{row['score']}\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SignalsError, match=r"row 25,001: column score is 'high', and a number by the rows before it"):
        values(path, "uid", "score")
