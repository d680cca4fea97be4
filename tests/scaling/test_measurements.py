"""Reading measured training curves, and naming what is wrong by row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dqe_assets.core.measurements import parse_count
from dqe_assets.orchestration.settings import SettingsError, load_settings
from dqe_assets.scaling.curves import (
    EXAMPLE_FILE,
    MEAN_18,
    TASKS_18,
    MeasurementsError,
    content_digest,
    read_evaluation,
    read_measurements,
)
from dqe_assets.scaling.example import EPOCHS, POOLS, example_csv

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "pool,pool_size,samples_seen,metric,error"
ROWS = ["top,1000,500,in1k,0.9", "top,1000,1000,in1k,0.8", "low,1000,500,in1k,0.95", "low,1000,1000,in1k,0.9"]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluation(path: Path, accuracy: float, **other: float | None) -> Path:
    """An eval_results.jsonl as DataComp's evaluate.py writes it."""
    tasks: dict[str, float | None] = dict.fromkeys(sorted(TASKS_18), accuracy) | {"fairness/fairface": None} | other
    lines = [
        json.dumps({"key": key, "dataset": key.title(), "metrics": {"acc1": value, "main_metric": value}})
        for key, value in tasks.items()
    ]
    return write(path, *lines)


def test_the_example_is_what_its_generator_writes_and_says_that_it_is_made_up() -> None:
    text = EXAMPLE_FILE.read_text(encoding="utf-8")
    assert text == example_csv()
    assert "MADE-UP" in text.splitlines()[0]
    curves = read_measurements(EXAMPLE_FILE)
    assert [curve.pool for curve in curves] == list(POOLS)
    assert all(len(curve.error) == len(EPOCHS) for curve in curves)


def test_csv_parquet_and_json_lines_give_the_same_curves(tmp_path: Path) -> None:
    names = HEADER.split(",")
    records: list[dict[str, Any]] = []
    for row in ROWS:
        values = dict(zip(names, row.split(","), strict=True))
        records.append(
            values
            | {"pool_size": int(values["pool_size"]), "samples_seen": int(values["samples_seen"])}
            | {"error": float(values["error"])}
        )
    from_csv = read_measurements(write(tmp_path / "m.csv", "# a remark", HEADER, *ROWS))
    assert from_csv == read_measurements(write(tmp_path / "m.jsonl", *map(json.dumps, records)))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "m.parquet")
    assert from_csv == read_measurements(tmp_path / "m.parquet")
    assert [(curve.pool, curve.pool_size, curve.error) for curve in from_csv] == [
        ("top", 1000, (0.9, 0.8)),
        ("low", 1000, (0.95, 0.9)),
    ]


def test_evaluations_give_imagenet_and_the_mean_of_the_papers_18_tasks(tmp_path: Path) -> None:
    evaluation(tmp_path / "half.jsonl", 0.2, imagenet1k=0.38)
    evaluation(tmp_path / "full.jsonl", 0.3, imagenet1k=0.48)
    table = write(
        tmp_path / "m.csv",
        "pool,pool_size,samples_seen,eval_results",
        "top,1000,500,half.jsonl",
        "top,1000,1000,full.jsonl",
    )
    curves = {curve.metric: curve for curve in read_measurements(table)}
    assert set(curves) == {"imagenet1k", MEAN_18}
    assert curves["imagenet1k"].error == pytest.approx((0.62, 0.52))
    assert curves[MEAN_18].error == pytest.approx((1 - (0.2 * 17 + 0.38) / 18, 1 - (0.3 * 17 + 0.48) / 18))
    assert read_measurements(table, ("cars",))[0].error == pytest.approx((0.8, 0.7))


def test_an_evaluation_without_all_18_tasks_has_no_mean_and_a_task_without_a_metric_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", '{"key": "cars", "dataset": "Cars", "metrics": {"main_metric": 0.25}}')
    assert read_evaluation(path) == {"cars": 0.75}
    assert "fairness/fairface" not in read_evaluation(evaluation(tmp_path / "f.jsonl", 0.5))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["top,1000,500,in1k,1.3", *ROWS[1:]], r"m\.csv, line 2: error of in1k is 1\.3, it must lie in \(0, 1\]"),
        (["top,1000,500,in1k,0", *ROWS[1:]], "line 2: error of in1k is 0"),
        (["top,1000,500,in1k,nan", *ROWS[1:]], "line 2: error is 'nan', it must be a number"),
        (["top,1000,500,in1k,low", *ROWS[1:]], "line 2: error is 'low', it must be a number"),
        (["top,1000,1500,in1k,0.9", *ROWS[1:]], "line 3: samples_seen of top decreases from 1,500 to 1,000"),
        (["top,2000,500,in1k,0.9", *ROWS[1:]], "line 3: pool_size of top is 1,000, and 2,000 before"),
        (ROWS[1:], "line 2: the only point of top for in1k; a curve needs at least two"),
        (["top,,500,in1k,0.9", *ROWS[1:]], "line 2: no pool_size; needed: pool, pool_size, samples_seen"),
        (["top,-1,500,in1k,0.9", *ROWS[1:]], "line 2: pool_size is -1, it must be above 0"),
        (["top,1000,500,in1k", *ROWS[1:]], "line 2: needs metric and error, or eval_results in their place"),
        ([], r"m\.csv: no measurements"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(MeasurementsError, match=message):
        read_measurements(write(tmp_path / "m.csv", HEADER, *rows))


def test_every_bad_row_has_a_line_up_to_ten(tmp_path: Path) -> None:
    bad = [f"top,1000,{seen},in1k,2" for seen in range(1, 15)]
    with pytest.raises(MeasurementsError) as caught:
        read_measurements(write(tmp_path / "m.csv", HEADER, *bad))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 4 more"


def test_files_that_are_none_are_refused_with_their_name(tmp_path: Path) -> None:
    with pytest.raises(MeasurementsError, match=r"ends in \.csv"):
        read_measurements(write(tmp_path / "m.xlsx", "x"))
    with pytest.raises(MeasurementsError, match=r"m\.jsonl, line 1: not JSON"):
        read_measurements(write(tmp_path / "m.jsonl", "{"))
    with pytest.raises(MeasurementsError, match=r"m\.parquet: cannot be read"):
        read_measurements(write(tmp_path / "m.parquet", "x"))
    table = write(tmp_path / "m.csv", "pool,pool_size,samples_seen,eval_results", "top,1000,500,gone.jsonl")
    with pytest.raises(MeasurementsError, match=r"m\.csv, line 2: .*gone\.jsonl: cannot be read"):
        read_measurements(table)
    write(tmp_path / "gone.jsonl", '{"key": "cars"}')
    with pytest.raises(MeasurementsError, match=r"gone\.jsonl, line 1: not an evaluation of DataComp: .*metrics"):
        read_measurements(table)
    with pytest.raises(MeasurementsError, match="no metric cars; there are: in1k"):
        read_measurements(write(tmp_path / "n.csv", HEADER, *ROWS), ("cars",))


def test_the_digest_changes_with_an_evaluation_that_the_table_names(tmp_path: Path) -> None:
    evaluation(tmp_path / "e.jsonl", 0.2)
    table = write(tmp_path / "m.csv", "pool,pool_size,samples_seen,eval_results", "top,1000,500,e.jsonl")
    before = content_digest(table)
    evaluation(tmp_path / "e.jsonl", 0.3)
    assert before != content_digest(table)


@pytest.mark.parametrize(
    ("text", "count"), [("32M", 32_000_000), ("12.8m", 12_800_000), ("1.28B", 1_280_000_000), ("640_000", 640_000)]
)
def test_numbers_of_samples_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"measurements": "gone.csv"}, r"scaling\.measurements: there is no file .*gone\.csv; allowed: 'example'"),
        (
            {"measurements": "trained"},
            r"scaling\.measurements: 'trained' are the results of training runs, and .* none",
        ),
        ({"samples_seen": ["32X"]}, r"scaling\.samples_seen\.0: '32X' is not a number of samples"),
        ({"samples_seen": []}, r"scaling\.samples_seen: .*at least 1"),
        ({"irreducible": 1.5}, r"scaling\.irreducible: must be below 1"),
        (
            {"budget": 3},
            r"scaling: unknown key 'budget'; allowed: from_samples_seen, irreducible, measurements, metrics, mixtures",
        ),
    ],
)
def test_wrong_settings_are_refused_when_they_are_loaded(data: Path, scaling: dict[str, Any], message: str) -> None:
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [{"kind": "sample"}], "scaling": scaling}))
    with pytest.raises(SettingsError, match=message):
        load_settings({})
