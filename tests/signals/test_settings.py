"""Tables of signals as data/dqe.yaml names them, and what is refused when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dqe_assets.orchestration.settings import Settings
from dqe_assets.signals.settings import SignalTable

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = [{"kind": "sample"}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "safety.parquet"
    columns = {"uid": ["a"], "url": ["u"], "nsfw": [0.1], "lang": ["en"], "safe": [True], "vector": [[1.0]]}
    pq.write_table(pa.table(columns), path)
    return path


def settings(*tables: dict[str, Any], **more: Any) -> Settings:
    return Settings.model_validate({"sources": SOURCES, "signals": list(tables), **more})


def refused(*tables: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ValidationError) as error:
        settings(*tables, **more)
    return str(error.value)


def test_all_columns_but_the_key_are_signals_unless_some_are_named(file: Path) -> None:
    table = SignalTable(name="safety", path=file, key="url")
    assert table.signals == {
        "uid": ("uid", pa.string()),
        "nsfw": ("nsfw", pa.float64()),
        "lang": ("lang", pa.string()),
        "safe": ("safe", pa.bool_()),
    }
    assert "vector" in table.left_out


def test_columns_are_named_or_renamed(file: Path) -> None:
    assert SignalTable(name="safety", path=file, columns=["nsfw"]).signals == {"nsfw": ("nsfw", pa.float64())}
    renamed = SignalTable(name="safety", path=file, columns={"p_nsfw": "nsfw"})
    assert renamed.signals == {"p_nsfw": ("nsfw", pa.float64())}
    assert not renamed.left_out


def test_filters_and_subsets_know_the_signals(file: Path) -> None:
    found = settings(
        {"name": "safety", "path": str(file), "columns": ["nsfw", "lang", "safe"]},
        filters={"clean": "nsfw < 0.1 & basic", "english": "lang == 'en' & safe == True"},
        subsets=[{"name": "first", "expression": "clean & similarity > 0.2 & width >= 200"}],
    )
    assert found.signal_types == {"nsfw": pa.float64(), "lang": pa.string(), "safe": pa.bool_()}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("nfsw < 0.1", r"filters.f: nfsw < 0.1: samples have no column nfsw; did you mean nsfw\?"),
        ("nsfw < 'a'", "filters.f: nsfw < 'a': nsfw is a number, and what it is compared with a text"),
        ("lang < 3", "lang is a text, and what it is compared with a number"),
        ("lang == en", "lang == en: samples have no column en"),
        ("safe > False", "true and false are compared by == and !="),
        ("nsfw < lang", "nsfw is a number, and what it is compared with a text"),
        ("clip_l14_similarity_score > 0.3", "its scorer is none of DataComp's CLIPs"),
        ("image_embedding > 0.3", r"image_embedding is list.*, which is not compared; use sql"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_when_the_settings_are_read(
    file: Path, expression: str, said: str
) -> None:
    table = {"name": "safety", "path": str(file), "columns": ["nsfw", "lang", "safe"]}
    with pytest.raises(ValidationError, match=said):
        settings(table, filters={"f": expression})
    # Other pools have other columns.
    settings(table, subsets=[{"name": "other", "expression": "nfsw < 0.1", "pools": ["elsewhere"]}], filters={})


def test_names_that_mean_something_else_are_refused(file: Path, tmp_path: Path) -> None:
    def table(**more: Any) -> dict[str, Any]:
        return {"name": "safety", "path": str(file), **more}

    assert "'url' is already the name of a column of samples" in refused(table())
    assert "columns: {my_url: url}" in refused(table())
    assert "'basic' is already the name of a filter" in refused(table(columns={"basic": "nsfw"}))
    assert "'clean' is already the name of a filter" in refused(
        table(columns={"clean": "nsfw"}), filters={"clean": "basic"}
    )
    assert "'Width' is already the name of a column of samples" in refused(table(columns={"Width": "nsfw"}))
    assert "'in' is no name for a signal" in refused(table(columns={"in": "nsfw"}))
    assert "'p nsfw' is no name for a signal" in refused(table(columns={"p nsfw": "nsfw"}))
    assert "column 'vector' cannot be a signal: it is list" in refused(table(columns=["vector"]))
    assert "has no column 'gone'; it has: uid, url, nsfw" in refused(table(columns=["gone"]))
    assert "two assets would be called signals/safety" in refused(table(columns=["nsfw"]), table(columns=["lang"]))
    other = {**table(columns={"NSFW": "safe"}), "name": "other"}
    message = refused(table(columns=["nsfw"]), other)
    assert "'NSFW' is a signal of the table safety and of the table other" in message
    assert "columns: {other_NSFW: safe}" in message
    assert "at least 1" in refused(table(columns=[]))
    assert "there is nothing at" in refused({**table(), "path": str(tmp_path / "gone.csv")})
    (tmp_path / "keys.csv").write_text("uid\na\n")
    assert "has no column that can be a signal, besides the key 'uid'" in refused(
        {"name": "k", "path": str(tmp_path / "keys.csv")}
    )
    assert "has no column 'sha256'" in refused(table(key="sha256"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"uid,score,score\na,1,2\n", "cannot be read as .csv ('Field \"score\" exists 2 times in schema')"),
        ("t.csv", b"uid,sc\xe9\na,1\n", "cannot be read as .csv ('utf-8' codec"),
        ("t.csv", b"uid,score\na,1,3\n", "Expected 2 columns, got 3"),
        ("t.csv", b"", "Empty CSV file"),
        ("t.csv", b"uid;score\na;1\n", "has no column 'uid'; it has: uid;score"),
        ("t.jsonl", b'{"uid":"a","s":1}\n{"uid":"b","s":"x"}\n', "row 2: column s is 'x', and a number by the rows"),
        ("t.jsonl", b'{"uid":"a","s":1}\n{"uid":"b"\n', "row 2: no JSON"),
        ("t.jsonl", b'[{"uid":"a","s":1}]\n', "row 1: no JSON object"),
        ("t.txt", b"uid,s\na,1\n", "expected a file ending in .parquet, .csv"),
    ],
)
def test_what_cannot_be_read_is_told_when_the_settings_are(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refused({"name": "t", "path": str(tmp_path / name)})
