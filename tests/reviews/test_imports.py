"""Files of decisions: every form gives the same, and a wrong file is refused by the row that is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.reviews.imports import ReviewError, located, parse_said, read_decisions
from dqe_resources.store import Stamp, Store

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.reviews.imports import Said

ROWS = [
    {"uid": "aa", "caption": "a cat, asleep", "weight": 2.5, "drawn_by": "random", "n": 1},
    {"uid": "BB ", "caption": 'a "dog"\non a mat', "weight": 2.5, "drawn_by": "random", "n": 2},
]


def written(path: Path) -> Path:
    table = pa.Table.from_pylist(ROWS)
    if path.suffix == ".parquet":
        # As Embedding Atlas exports a table with pictures.
        pq.write_table(table.append_column("image", pa.array([{"bytes": b"x"}, None])), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix in {".jsonl", ".ndjson"}:
        path.write_text("".join(json.dumps(row | {"image": {"bytes": "x"}}) + "\n" for row in ROWS))
    else:
        from pyarrow import csv

        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ","))
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
def test_every_form_of_table_gives_the_same(tmp_path: Path, suffix: str) -> None:
    table, empty = read_decisions(written(tmp_path / f"chosen.{suffix}"), parse_said("caption"))
    assert empty == 0
    assert table.to_pylist() == [
        {
            "uid": uid,
            "decision": "caption",
            "value": row["caption"],
            "drawn_by": "random",
            "weight": 2.5,
            "file_row": number,
        }
        for number, (uid, row) in enumerate(zip(("aa", "bb"), ROWS, strict=True), 1)
    ]


def test_a_list_has_a_uid_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("\ufeff# blurry ones\n\naa\n  bb\naa\n")
    table, _ = read_decisions(path, parse_said("tag:too dark"))
    assert table.select(["uid", "decision", "value", "file_row"]).to_pylist() == [
        {"uid": "aa", "decision": "tag", "value": "too dark", "file_row": 3},
        {"uid": "bb", "decision": "tag", "value": "too dark", "file_row": 4},
    ]
    (tmp_path / "list.json").write_text('["aa", "bb"]')
    assert read_decisions(tmp_path / "list.json", parse_said("drop"))[0]["uid"].to_pylist() == ["aa", "bb"]


def test_the_column_review_decides_of_each_row_and_empty_ones_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_text("uid,review\na,Keep\nb,\nc, drop \n")
    table, empty = read_decisions(path, parse_said(None))
    assert dict(zip(table["uid"].to_pylist(), table["decision"].to_pylist(), strict=True)) == {"a": "keep", "c": "drop"}
    assert empty == 1


@pytest.mark.parametrize(
    ("name", "text", "said", "message"),
    [
        ("a.csv", "url\nx\n", "drop", r"a\.csv has no column uid; it has: url"),
        ("a.csv", "uid\nx\n", None, "has no column review; say what is decided with --as"),
        ("a.csv", "uid,caption\nx,a\ny, \n", "caption", r"a\.csv, row 2: column caption is empty"),
        ("a.csv", "uid,review\nx,keep\ny,maybe\nz,no\n", None, "row 2, and 1 more: column review is neither drop nor"),
        ("a.csv", "uid,caption\nx,a\n,b\n", "caption", "row 2: has no uid"),
        ("a.csv", "uid,caption\nx,a\nx,b\n", "caption", "rows 1 and 2 say different things of x"),
        ("a.csv", "uid,weight\nx,-1\n", "drop", "column weight is no number above 0"),
        ("a.txt", "x\n", "caption", "a list of uids has no column caption"),
        ("a.json", '{"uid": "x"}', "drop", "expected a list"),
        ("a.json", "[3]", "drop", "row 1: expected an object"),
        ("a.json", "[", "drop", r"a\.json: cannot be read as \.json"),
        ("a.parquet", "x", "drop", r"a\.parquet: cannot be read as \.parquet"),
        ("a.xlsx", "x", "drop", "expected a file ending in .txt, .json"),
    ],
)
def test_a_wrong_file_is_refused_by_what_is_wrong(
    tmp_path: Path, name: str, text: str, said: str | None, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ReviewError, match=message):
        read_decisions(tmp_path / name, parse_said(said))


@pytest.mark.parametrize("text", ["", "dropp", "tag:", "tag: ", "tag:a\x1bb", f"tag:{'x' * 61}"])
def test_what_is_decided_is_one_of_a_few_things(text: str) -> None:
    with pytest.raises(ReviewError, match="--as"):
        parse_said(text)


@pytest.mark.parametrize("text", ["drop", "keep", "none", "tag:a b", "caption", "caption:smolvlm"])
def test_what_is_decided_is_said_as_it_was_typed(text: str) -> None:
    said: Said = parse_said(text)
    assert str(said) == text


def test_uids_are_found_in_their_shards_and_the_others_are_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for shard, uids in (("web-00000", "ab"), ("web-00001", "cd")):
        rows = [
            {
                "uid": uid,
                "source": "web",
                "shard": shard,
                "row": row,
                "image_name": uid,
                "status": "ok",
                "reason": "taken_down" if uid == "d" else "ok",
            }
            for row, uid in enumerate(uids)
        ]
        store.write_table(
            "raw_samples", shard, pa.Table.from_pylist(rows, RAW_SAMPLES), RAW_SAMPLES, Stamp("1", "1", 2)
        )
    (tmp_path / "a.txt").write_text("a\nc\nd\nnobody\n")
    decided, _ = read_decisions(tmp_path / "a.txt", parse_said("drop"))
    found, unknown, gone = located(store, decided)
    assert [(row["uid"], row["shard"]) for row in found.to_pylist()] == [("a", "web-00000"), ("c", "web-00001")]
    assert (unknown, gone) == (["nobody"], ["d"])
