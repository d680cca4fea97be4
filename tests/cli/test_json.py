from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.cli.terminal import print_json


def test_a_table_is_its_rows_with_numbers_as_numbers_and_times_in_iso_8601(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
    table = pa.table(
        {
            "count": pa.array([2**40, None]),
            "sum": pa.array([Decimal(7), Decimal("0.5")], pa.decimal128(38, 1)),
            "share": pa.array([0.1, float("nan")]),
            "needed": pa.array([float("inf"), 1.5], pa.float32()),
            "is_new": [True, None],
            "name": ["Kätzchen \x1b[31m", None],
            "at": pa.array([moment, None], pa.timestamp("us", tz="UTC")),
            "day": [date(2026, 3, 1), None],
            "took": [timedelta(minutes=1.5), None],
            "parts": [["a", "b"], []],
            "place": [{"x": 1.5, "n": float("nan")}, None],
        }
    )
    print_json({"rows": table, "none": table.slice(0, 0), "total": np.int64(3), "ratio": np.float32(0.5)})
    printed = capsys.readouterr().out
    found = json.loads(printed, parse_constant=pytest.fail)
    first, second = found["rows"]
    assert first == {
        "count": 2**40, "sum": 7, "share": 0.1, "needed": None, "is_new": True, "name": "Kätzchen \x1b[31m",
        "at": "2026-03-01T12:30:15.250000Z", "day": "2026-03-01", "took": 90.0, "parts": ["a", "b"],
        "place": {"x": 1.5, "n": None},
    }  # fmt: skip
    assert second == {
        "count": None, "sum": 0.5, "share": None, "needed": 1.5, "is_new": None, "name": None,
        "at": None, "day": None, "took": None, "parts": [], "place": None,
    }  # fmt: skip
    assert (found["none"], found["total"], found["ratio"]) == ([], 3, 0.5)
    assert "\x1b" not in printed
