"""What a source leaves out is said: by dqe sync, in the metadata of its shard, and by a check that warns."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from tests.conftest import environment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with nothing in it."""
    (tmp_path / "data").mkdir()
    for name, value in environment(tmp_path / "data").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "data"


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 40, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def photos(path: Path, *names: str, **captions: str) -> dict[str, Any]:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_bytes(jpeg())
    for name, caption in captions.items():
        (path / f"{name}.txt").write_text(caption)
    return {"kind": "folder", "name": path.name, "path": str(path)}


def tars(path: Path, *names: str) -> dict[str, Any]:
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(jpeg())
            tar.addfile(info, io.BytesIO(jpeg()))
    return {"kind": "webdataset", "name": "tars", "path": str(path)}


def configure(folder: Path, *sources: dict[str, Any]) -> None:
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": list(sources), "captioners": []}))


def dqe(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was said on one line."""
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, " ".join((done.output + done.stderr).split())


def materialized() -> tuple[runner.Outcome, dict[str, Any], dict[str, dg.AssetCheckEvaluation]]:
    """What was made, the metadata of the last shard, and its checks."""
    settings = load_settings()
    with instance() as current:
        runner.sync(settings, current)
        outcome = runner.materialize(settings, current, assets=["raw_samples"])
        event = current.fetch_materializations(dg.AssetKey("raw_samples"), limit=1).records[0]
        checks = {
            name: record.event.dagster_event.event_specific_data
            for name in ("left_out", "captions")
            for record in current.event_log_storage.get_asset_check_execution_history(
                dg.AssetCheckKey(dg.AssetKey("raw_samples"), name), limit=1
            )
        }
    materialization = event.asset_materialization
    assert materialization is not None
    return outcome, {name: value.value for name, value in materialization.metadata.items()}, checks


def test_what_is_left_out_of_a_folder_and_of_a_tar_is_said(folder: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "mine", "a.jpg", "b.jpg", a="a dog", c="nothing to it")
    (tmp_path / "mine" / "[bold]x.md").write_text("x")
    (tmp_path / "mine" / "Thumbs.db").write_text("x")
    (tmp_path / "mine" / "linked").symlink_to(folder)
    configure(folder, source, tars(tmp_path / "x.tar", "1.jpg", "22.05.jpg", "2.cls"))
    code, said = dqe("sync")
    assert code == 0
    assert (
        "source mine: left out: .md files: 1 ([bold]x.md), captions without an image, or of one that has another: 1 "
        "(c.txt), files of the operating system: 1 (Thumbs.db), links to folders: 1 (linked/)"
    ) in said
    assert (
        "source tars: left out: .cls files: 1 (2.cls), members with a dot before the end of their name (key_dot: last "
        "reads them): 1 (22.05.jpg)"
    ) in said
    configure(folder, source)
    outcome, metadata, checks = materialized()
    assert not outcome.failures
    assert metadata["left_out"] == {
        ".md files": 1,
        "captions without an image, or of one that has another": 1,
        "files of the operating system": 1,
        "links to folders": 1,
    }
    assert not checks["left_out"].passed
    assert checks["left_out"].severity == dg.AssetCheckSeverity.WARN
    assert "links to folders: 1 (linked/)" in (checks["left_out"].description or "")
    assert checks["captions"].passed


def test_what_nobody_takes_for_data_is_counted_without_a_warning(folder: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "mine", "a.jpg", "._a.jpg", ".hidden.jpg", a="a dog")
    configure(folder, source)
    _, metadata, checks = materialized()
    assert metadata["left_out"] == {"files of the operating system": 1, "hidden files and folders": 1}
    assert checks["left_out"].passed
    assert checks["left_out"].metadata["left_out"].value == metadata["left_out"]


def test_images_without_captions_say_where_captions_were_looked_for(folder: Path, tmp_path: Path) -> None:
    configure(folder, photos(tmp_path / "mine", "a.jpg", "b.jpg"))
    places = "looked for: a.txt, a.jpg.txt, a.caption and a.jpg.caption next to a.jpg, and metadata.csv"
    code, said = dqe("sync")
    assert (code, "source mine: no row has a caption; " + places in said) == (0, True)
    outcome, _, checks = materialized()
    assert not outcome.failures
    assert not checks["captions"].passed
    assert checks["captions"].severity == dg.AssetCheckSeverity.WARN
    assert "0 of 2 rows have a caption; " + places in (checks["captions"].description or "")
    (tmp_path / "mine" / "b.txt").write_text("one has")
    assert "no row has a caption" not in dqe("sync")[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "folder", "path": "empty"}, "/empty: no image in this folder or below it (a name that ends in .jpg"),
        (
            {"kind": "parquet", "path": "empty"},
            "/empty: no file in this folder ends in .parquet; left out: .md files: 1",
        ),
        ({"kind": "webdataset", "path": "empty"}, "no file in this folder ends in .tar, .tar.gz"),
        ({"kind": "urls", "path": "empt[y]"}, "no file in this folder matches empt[y]"),
        ({"kind": "urls", "path": "header.csv"}, "header.csv: no rows in it"),
    ],
)
def test_a_source_without_a_row_is_an_error_that_says_where_it_looked_and_for_what(
    folder: Path, source: dict[str, str], message: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "README.md").write_text("x")
    (folder / "header.csv").write_text("url,caption\n")
    configure(folder, {"name": "mine", **source})
    # Of one kind what follows is made too, for which there is nothing.
    for command in ("sync", "materialize") if source["path"] == "header.csv" else ("sync",):
        code, said = dqe(command)
        assert code == 1
        assert "source mine cannot be read" in said
        assert message in said
        assert "All is current" not in said


def test_all_captions_of_a_row_are_kept(folder: Path, tmp_path: Path) -> None:
    source = photos(tmp_path / "mine", "a.jpg", "b.jpg")
    lines = [{"file_name": "a.jpg", "text": ["one", "two"]}, {"file_name": "b.jpg", "text": "three"}]
    (tmp_path / "mine" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    configure(folder, source)
    materialized()
    table = pq.read_table(folder / "store" / "raw_samples" / "mine-00000.parquet")
    assert table["caption"].to_pylist() == ["one", "three"]
    assert table["original_captions"].to_pylist() == [["one", "two"], None]
