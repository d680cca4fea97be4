"""What was published is a source again: with the same uids, captions, scores and pictures."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml

from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.publish.dataset import Request, publish
from tests.stages import stage_named, table_of

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from dqe_assets.orchestration.settings import Settings

FEW = "width = 640 AND NOT is_duplicate"
HF = {"kind": "hf", "image_column": "image", "caption_column": "captions", "uid_column": "uid", "url_column": "url"}
HF["metadata_columns"] = ["similarity", "caption_source", "top_label"]
WEBDATASET = {"kind": "webdataset", "caption_field": "captions", "uid_field": "uid"}
WEBDATASET["metadata_types"] = {"caption_source": "text"}


def read_again(folder: Path, source: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[pa.Table, Settings]:
    """The raw samples of a data folder with this source alone."""
    folder.mkdir()
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": [{"name": "again", **source}], "captioners": []}))
    monkeypatch.setenv("DQE_DATA", str(folder))
    settings = load_settings()
    stage = stage_named(settings, "raw_samples")
    work = stage.work(settings.opened_store, "again-00000", ["again-00000"])
    _, _, results = stage.make(work, stage.arguments(graph.resources(settings)))
    assert all(results[check.name].passed for check in stage.checks if check.blocking)
    return table_of(settings, "raw_samples", "again-00000"), settings


@pytest.mark.parametrize(("kind", "source"), [("hf", HF), ("webdataset", WEBDATASET)])
def test_a_publication_is_a_source_with_the_same_uids_captions_and_scores(
    opened: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, source: dict[str, Any]
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    publish(opened, tmp_path / "published", Request(FEW, "best", kind, 7))
    publish(opened, tmp_path / "expected", Request(FEW, "best", "hf", 1000))
    (file,) = (tmp_path / "expected" / "data").iterdir()
    expected = pq.read_table(file).to_pylist()
    path = tmp_path / "published" / ("data" if kind == "webdataset" else "")
    raw, settings = read_again(tmp_path / "again", {**source, "path": str(path)}, monkeypatch)
    rows = raw.to_pylist()
    assert [row["uid"] for row in rows] == [one["uid"] for one in expected]
    assert len(rows) > 10
    for row, one in zip(rows, expected, strict=True):
        assert row["status"] == "ok", row["detail"]
        assert row["caption"] == one["caption"]
        assert (row["original_captions"] or [row["caption"]]) == [caption["text"] for caption in one["captions"]]
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == one["sha256"]
        assert row["url"] == one["url"]
        said = json.loads(row["source_metadata"])
        assert {name: said[name] for name in HF["metadata_columns"]} == {
            name: one[name] for name in HF["metadata_columns"]
        }
    assert settings.metadata_signals.types["caption_source"] == "text"


def test_a_uid_that_is_none_is_the_fault_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    table = pa.table({"image": [b"x", b"y"], "caption": ["a", "b"], "id": ["0" * 32, "7"]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    source = {"kind": "parquet", "path": str(tmp_path / "pairs.parquet"), "uid_column": "id", "min_success_rate": 0}
    raw, _ = read_again(tmp_path / "again", source, monkeypatch)
    assert raw["uid"].to_pylist()[0] == "0" * 32
    assert raw["reason"].to_pylist() == ["not_an_image", "bad_row"]
    assert "row 2: 'id' is '7', expected 32 hex digits" in raw["detail"].to_pylist()[1]
