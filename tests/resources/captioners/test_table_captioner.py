"""Captions made elsewhere, read from tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dqe_assets.caption.normalise import straightforward
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from dqe_resources.captioners.table import TableCaptioner

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [
    {"image_name": "007", "text": 'A spy, in a "dinner jacket",\nwith a drink', "by": "cog"},
    {"image_name": "b.jpg", "text": None, "by": "cog"},
    {"image_name": "c.jpg", "text": "A café 猫", "by": "intern"},
    {"image_name": "c.jpg", "text": "A café 猫", "by": "intern"},
    {"image_name": "2009-01-01", "text": "NA", "by": "null"},
]


def written(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path, table = folder / f"captions.{kind}", pa.Table.from_pylist(rows)
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter="," if kind == "csv" else "\t"))
    return path


def captions(path: Path, *names: str | None, **settings: Any) -> list[Caption]:
    captioner = TableCaptioner(name="t", path=path, caption_column="text", key="image_name", **settings)
    samples = (Sample({"uid": "u", "url": None, "image_name": name}) for name in names)
    return [caption for _, caption in sorted(captioner.caption(samples), key=lambda item: item[0])]


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    missing = "no row of {} with a caption has the image_name '{}'"
    assert captions(path, "c.jpg", "007", "b.jpg", "d.jpg", "2009-01-01", model_column="by") == [
        Caption("A café 猫", model="intern"),
        Caption('A spy, in a "dinner jacket",\nwith a drink', model="cog"),
        Caption(None, "error", missing.format(path.name, "b.jpg")),
        Caption(None, "error", missing.format(path.name, "d.jpg")),
        Caption("NA", model="null"),
    ]


def test_a_sample_without_the_key_has_no_caption(tmp_path: Path) -> None:
    path = written(tmp_path, "parquet", [{"url": None, "text": "A dog."}])
    captioner = TableCaptioner(name="t", path=path, caption_column="text", key="url")
    assert list(captioner.caption(iter([Sample({"url": None})]))) == [
        (0, Caption(None, "error", "the sample has no url"))
    ]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_rows_of_one_key_that_disagree_are_named(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, [*ROWS, {"image_name": "c.jpg", "text": "Another", "by": "cog"}])
    with pytest.raises(CaptionerError, match=r"rows 3 and 6 have the same image_name 'c\.jpg' and different captions"):
        captions(path, "c.jpg")
    assert captions(path, "007")[0].text == ROWS[0]["text"], "only what is asked for matters"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"caption_column": "capton"}, r"has no column 'capton'; it has: image_name, text, by"),
        ({"key": "url"}, "has no column 'url'"),
        ({"key": "name"}, "'uid', 'url' or 'image_name'"),
        ({"model_column": "model"}, "has no column 'model'"),
        ({"path": "nothing.csv"}, "there is nothing at"),
        ({"path": "."}, r"expected a file ending in \.parquet, \.csv"),
    ],
)
def test_wrong_settings_are_refused_when_they_load(data: Path, settings: dict[str, Any], message: str) -> None:
    right = {"path": written(data, "csv"), "caption_column": "text", "key": "image_name"}
    with pytest.raises(ValidationError, match=message):
        TableCaptioner(name="t", **{**right, **settings})


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    captioner = TableCaptioner(name="t", path=path, caption_column="text", key="image_name")
    path.write_bytes(b'{"image_name": "\xff' if kind == "jsonl" else b'image_name,text\n"\xff')
    with pytest.raises(CaptionerError, match=rf"captions\.{kind}: cannot be read as \.{kind}"):
        list(captioner.caption(iter([Sample({"image_name": "007"})])))
    with pytest.raises(ValidationError, match=rf"captions\.{kind}"):
        TableCaptioner(name="t", path=path, caption_column="text", key="image_name")


def test_a_changed_file_changes_the_signature(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    captioner = TableCaptioner(name="t", path=path, caption_column="text", key="image_name")
    before = captioner.signature()
    assert captioner.signature() == before
    path.write_text(path.read_text() + "d.jpg,A dog.,cog\n")
    assert captioner.signature() != before
    assert captioner.backbones == frozenset()
    assert captioner.model_id == "table captions.csv"


@pytest.mark.parametrize(
    ("column", "model", "key", "key_column"),
    [
        ("cogvlm2_caption", "CogVLM2-19B", "image_name", "image_name"),
        ("internvl2_caption", "InternVL2-8B", "url", "image_url"),
    ],
)
def test_the_published_captions_go_through(sbu: Path, column: str, model: str, key: str, key_column: str) -> None:
    table = pq.read_table(sbu / "captions.parquet")
    captioner = TableCaptioner(
        name="published",
        path=sbu / "captions.parquet",
        caption_column=column,
        key=key,
        key_column=key_column,
        model=model,
    )
    order = np.random.default_rng(3).permutation(len(table))
    shuffled = table.take(pa.array(order))
    uids = pa.array([f"{index:032x}" for index in order])
    samples = pa.table({"uid": uids, "url": shuffled["image_url"], "image_name": shuffled["image_name"]})
    rows = synthetic_captions(uids, np.ones(len(table), bool), iter(samples.to_batches(max_chunksize=16)), captioner)
    assert len(rows) == 7_999
    assert rows["text"].to_pylist() == shuffled[column].to_pylist()
    assert set(rows["model"].to_pylist()) == {model}
    assert set(rows["finish_reason"].to_pylist()) == {"stop"}
    assert rows["caption"][0].as_py() == straightforward(rows["text"][0].as_py())
    assert sum(bool(flags) for flags in rows["flags"].to_pylist()) <= 2
    for name in ("seconds", "finished_at", "attempts", "prompt", "prompt_hash"):
        assert rows[name].null_count == len(rows), "no model was asked"
