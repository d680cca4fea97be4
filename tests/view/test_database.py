"""What the page asks of the samples, and what it exports."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from dqe_assets.view.database import FORMATS, Samples, ViewQueryError
from dqe_assets.view.samples import NEIGHBOURS

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 25_000
TABLE = pa.table(
    {
        "uid": [f"{row:032x}" for row in range(ROWS)],
        "caption": ['a "quoted", caption\nof two lines', None, "日本語", ""] * (ROWS // 4),
        "similarity": pa.array([0.5, float("nan"), None, -0.25] * (ROWS // 4), pa.float32()),
        "filters": [["best", "basic"], [], None, ["a,b"]] * (ROWS // 4),
        "neighbours": pa.array([{"ids": ["x"], "distances": [0.5]}, None] * (ROWS // 2), NEIGHBOURS),
        'odd "name"': pa.array([1.5] * ROWS, pa.float64()),
    }
)


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    return Samples(TABLE.to_reader(), tmp_path / "spill")


def read(data: bytes, kind: str) -> list[dict[str, Any]]:
    match kind:
        case "parquet":
            return pq.read_table(io.BytesIO(data)).to_pylist()
        case "csv":
            options = pa_csv.ParseOptions(newlines_in_values=True)
            return pa_csv.read_csv(io.BytesIO(data), parse_options=options).to_pylist()
        case "json":
            return json.loads(data)
        case _:
            return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_has_all_that_is_chosen_whatever_the_format(samples: Samples, kind: str) -> None:
    pieces = list(samples.exported("caption IS NOT NULL", kind))
    assert len(pieces) > 1, "not all is in memory at once"
    found = read(b"".join(pieces), kind)
    wanted = [row for row in TABLE.to_pylist() if row["caption"] is not None]
    assert [row["uid"] for row in found] == [row["uid"] for row in wanted]
    assert [row["caption"] for row in found] == [row["caption"] for row in wanted]
    assert list(found[0]) == TABLE.column_names
    if kind != "csv":
        assert [row["filters"] for row in found[:4]] == [row["filters"] for row in wanted[:4]]
        assert found[0]["neighbours"] == wanted[0]["neighbours"]
    (one,) = read(b"".join(samples.exported(f"uid = '{1:032x}'", kind)), kind)
    assert one["similarity"] is None or one["similarity"] != one["similarity"]
    assert read(b"".join(samples.exported("false", kind)), kind) == []


def test_a_wrong_question_is_said_in_one_line(samples: Samples) -> None:
    for wrong in (lambda: list(samples.exported("nobody = 1", "csv")), lambda: list(samples.exported(None, "xml"))):
        with pytest.raises(ViewQueryError) as error:
            wrong()
        assert "\n" not in str(error.value)
    with pytest.raises(ViewQueryError):
        samples.answer("arrow", "SELEC 1")


def test_no_file_can_be_read_or_written(samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "secret.csv"
    path.write_text("a\n1\n")
    for sql in (
        f"FROM read_csv('{path}')",
        f"COPY dataset TO '{tmp_path}/out.csv'",
        "SET enable_external_access = true",
    ):
        with pytest.raises(ViewQueryError):
            samples.answer("json", sql)
    with pytest.raises(ViewQueryError):
        list(samples.exported(f"uid IN (SELECT a FROM read_csv('{path}'))", "csv"))
    assert [one.name for one in tmp_path.iterdir()] == ["secret.csv"]


def test_the_page_gets_arrow_json_or_that_it_was_done(samples: Samples) -> None:
    with pa.ipc.open_stream(samples.answer("arrow", "SELECT count(*) AS n FROM dataset")) as stream:
        assert stream.read_all().to_pylist() == [{"n": ROWS}]
    assert samples.answer("exec", "CREATE TABLE more AS SELECT 1 AS one") == b"{}"
    assert json.loads(samples.answer("json", "FROM more")) == [{"one": 1}]
    assert samples.answer("exec", "ALTER TABLE dataset ADD COLUMN kind INTEGER DEFAULT 0") == b"{}"
