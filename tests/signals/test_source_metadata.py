"""What sources say of their rows, as typed columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dqe_assets.core.stage import connected
from dqe_assets.core.work import facts_of
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings
from dqe_assets.signals.assets import source_metadata_of
from dqe_assets.signals.source_metadata import SOURCE_METADATA, MetadataSignals, typed_metadata
from dqe_resources.configurable import files_may_be_away
from dqe_resources.sources.metadata_types import as_type
from dqe_resources.store import Stamp

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))


CSV = "url,caption,punsafe,lang,ok,WIDTH,sizes x,gone\nhttp://a/1,x,0.5,en,true,3,1,\nhttp://a/2,y,,de,False,4,2,\n"
COLUMNS = ["punsafe", "lang", "ok", "WIDTH", "sizes x", "gone"]


def web(path: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "urls", "name": "web", "path": str(path), "metadata_columns": COLUMNS, **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "list.csv"
    path.write_text(CSV)
    return path


def test_metadata_columns_are_typed_by_the_first_rows(file: Path) -> None:
    settings = Settings.model_validate(
        {"sources": [web(file)], "filters": {"safe": "punsafe < 0.1 & lang == 'en' & ok == True & gone != 'x'"}}
    )
    assert settings.metadata_signals.types == {"punsafe": "number", "lang": "text", "ok": "boolean", "gone": "text"}
    # These stay where they were: a list that was good stays so.
    assert settings.metadata_signals.left_out == {
        "WIDTH": "samples or filters have that name",
        "sizes x": "it is no name",
    }
    assert set(graph.signals(settings)) == {"punsafe", "lang", "ok", "gone"}
    with pytest.raises(
        ValidationError, match="WIDTH is in source_metadata alone, as samples or filters have that name"
    ):
        Settings.model_validate({"sources": [web(file)], "filters": {"wide": "WIDTH > 3"}})
    Settings.model_validate({"sources": [web(file)], "filters": {"wide": "sql(\"source_metadata->>'WIDTH' > '3'\")"}})


def test_types_of_parquet_and_those_that_are_given(tmp_path: Path) -> None:
    columns = {"url": ["u"], "caption": ["c"], "punsafe": [1], "lang": ["1"], "ok": [True], "tags": [["a"]]}
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    source = web(tmp_path / "list.parquet", metadata_columns=["punsafe", "lang", "ok", "tags"])
    found = Settings.model_validate({"sources": [source]}).metadata_signals.types
    assert found == {"punsafe": "number", "lang": "text", "ok": "boolean", "tags": "text"}
    given = Settings.model_validate({"sources": [{**source, "metadata_types": {"lang": "number", "score": "number"}}]})
    assert given.metadata_signals.types == {**found, "lang": "number", "score": "number"}
    plain = Settings.model_validate({"sources": [source]})
    assert given.sources[0].signature() == plain.sources[0].signature(), "nothing is fetched again for a type"


def test_two_sources_of_different_minds(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("url,caption,punsafe\nhttp://b/1,x,high\n")
    sources = [web(file), web(other, name="other", metadata_columns=["punsafe"])]
    assert Settings.model_validate({"sources": sources}).metadata_signals.types["punsafe"] == "text"


def test_names_that_mean_something_else(file: Path) -> None:
    def refused(**more: Any) -> str:
        with pytest.raises(ValidationError) as error:
            Settings.model_validate({"sources": [web(file, metadata_types=more.pop("types", {}))], **more})
        return str(error.value)

    assert "'WIDTH' is already the name of a column of samples" in refused(types={"WIDTH": "number"})
    assert "should be 'number', 'text' or 'boolean'" in refused(types={"lang": "float"})
    score = {"kind": "imported", "name": "punsafe", "path": str(file), "key": "url"}
    assert "'punsafe' is a column of the sources' metadata" in refused(scorers=[score])
    table = {"name": "source_metadata", "path": str(file), "key": "url", "columns": ["punsafe"]}
    assert "called signals/source_metadata" in refused(signals=[table])
    assert "is a signal of the sources' metadata and of the table t" in refused(signals=[{**table, "name": "t"}])
    # A filter may have that name, which then means the filter.
    settings = Settings.model_validate({"sources": [web(file)], "filters": {"ok": "basic"}})
    assert settings.metadata_signals.left_out["ok"] == "samples or filters have that name"


def rows(*records: dict[str, Any] | None) -> pa.Table:
    texts = [None if record is None else json.dumps(record) for record in records]
    return pa.table({"uid": [f"u{row}" for row in range(len(texts))], "source_metadata": pa.array(texts, pa.string())})


def test_a_value_of_another_type_is_null_and_counted() -> None:
    signals = MetadataSignals({"score": "number", "ok": "boolean", "lang": "text"})
    samples = rows(
        {"score": "0.5", "ok": "TRUE", "lang": "en"},
        {"score": "high", "ok": 1, "lang": 7},
        None,
        {"score": " nan ", "ok": None, "lang": ""},
        {"score": True, "ok": False, "lang": ["a"]},
    )
    table = typed_metadata(samples, signals)
    assert table.to_pydict() == {
        "uid": ["u0", "u1", "u2", "u3", "u4"],
        "score": [0.5, None, None, None, None],
        "ok": [True, None, None, None, False],
        "lang": ["en", "7", None, None, '["a"]'],
    }
    facts = facts_of(table)
    assert facts["wrong"] == {"score": 2, "ok": 1}
    assert facts["first"] == {"score": "'high' of u1", "ok": "1 of u1"}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, "number", 3.0),
        ("1e-3", "number", 1e-3),
        ("N/A", "number", None),
        ("nan", "text", "nan"),
        (0.5, "text", "0.5"),
    ],
)
def test_values(value: Any, kind: Any, expected: Any) -> None:
    assert as_type(value, kind) == expected


def test_what_is_stored_holds_while_the_source_is_away(file: Path) -> None:
    settings = Settings.model_validate({"sources": [web(file)]})
    stage = source_metadata_of(settings.metadata_signals)
    store, shard = settings.opened_store, "web-00000"
    row = {
        "uid": "0" * 32,
        "source": "web",
        "shard": shard,
        "row": 0,
        "image_name": "1",
        "status": "ok",
        "reason": "ok",
    }
    raw = pa.Table.from_pylist([{**row, "source_metadata": '{"punsafe": "x", "lang": "en"}'}], RAW_SAMPLES)
    store.write_table("raw_samples", shard, raw, RAW_SAMPLES, Stamp("1", "1", 1))
    (made,) = (one for one in connected([raw_samples, stage]) if one.name == SOURCE_METADATA)
    _, _, results = made.make(made.work(store, shard, [shard]), {})
    assert results["keys_unique"].passed
    assert not results["values_typed"].passed
    assert "punsafe: 1 values are no number, first 'x' of 0000" in results["values_typed"].description
    file.unlink()
    with files_may_be_away():
        away = Settings.model_validate({"sources": [web(file)]})
    assert away.metadata_signals.types == settings.metadata_signals.types
