"""What is taken down goes from everything made of it, and ``dqe takedown --check`` says what is left and where."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.cli.app import app
from dqe_assets.filtering.subset import parse_uids, write_subset
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.store import Checkpoint, Stamp
from tests.conftest import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

FOREIGN = "synthetic_captions/gone/one-00000.parquet"


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name, value in environment(folder).items():
        patch.setenv(name, value)


def picture(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((240, 180), Image.Resampling.BICUBIC)


def dqe(*arguments: str) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def said(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Path:
    """Six images in three shards through every stage; the last but one is a smaller copy of the second."""
    folder = tmp_path_factory.mktemp("takedowns") / "data"
    (folder / "one").mkdir(parents=True)
    for number in range(6):
        image = picture(1).resize((200, 150)) if number == 4 else picture(number)
        image.save(folder / "one" / f"picture{number}.png")
        (folder / "one" / f"picture{number}.txt").write_text(f"A secret painting, number {number}, of shapes")
    (folder / "cache").symlink_to(model_cache)
    (folder / "removals.txt").write_text("")
    settings: dict[str, Any] = {"sources": [{"kind": "folder", "name": "one", "path": "one", "shard_size": 2}]}
    settings |= {"captioners": [{"kind": "labels", "name": "labels"}], "image_text": None}
    settings |= {"takedowns": {"files": ["removals.txt"], "copies": True}}
    (folder / "dqe.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        use(folder, patch)
        assert dqe("materialize").exit_code == 0
        for form in ("hf", "webdataset"):
            published = dqe("publish", str(folder / form), "--caption", "original", "--format", form)
            assert published.exit_code == 0, published.output
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, to be changed in its place, since a folder elsewhere is another source."""
    kept = shutil.copytree(made, tmp_path / "kept", symlinks=True)
    use(made, monkeypatch)
    yield made
    shutil.rmtree(made)
    shutil.copytree(kept, made, symlinks=True)


def uids_by_name(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in (folder / "store" / "raw_samples").glob("*.parquet"):
        table = pq.read_table(path, columns=["image_name", "uid"])
        found |= dict(zip(table["image_name"].to_pylist(), table["uid"].to_pylist(), strict=True))
    return found


def left(uid: str) -> set[str]:
    """The places that a check names, each by its first word or asset."""
    lines = dqe("takedown", "--check", uid).output.splitlines()
    return {line.removeprefix("left: ").partition(" (")[0] for line in lines if line.startswith("left: ")}


def leftovers(folder: Path, uid: str) -> None:
    """What no stage makes again: captions of a captioner that is no more, an unfinished run, an old subset."""
    store = load_settings().opened_store
    row = dict.fromkeys(SYNTHETIC_CAPTIONS.names) | {"uid": uid, "caption": "secret", "finish_reason": "stop"}
    row |= {"model": "gone", "attempts": 1}
    rows = pa.Table.from_pylist([row], SYNTHETIC_CAPTIONS)
    store.write_table("synthetic_captions/gone", "one-00000", rows, SYNTHETIC_CAPTIONS, Stamp("", "", 1))
    Checkpoint(store, "synthetic_captions/gone", "one-00000", "v").append(rows)
    write_subset(folder / "subsets" / "old.npy", parse_uids(pa.array([uid])), {})


def shown(folder: Path) -> bytes:
    """The bytes of the warehouse, the gallery and the collection."""
    files = [path for path in sorted((folder / "qdrant").rglob("*")) if path.is_file()]
    return b"".join(
        path.read_bytes() for path in (folder / "warehouse.duckdb", *(folder / "gallery").glob("*.html"), *files)
    )


def test_it_goes_from_everything_with_its_copies_and_the_check_looks_everywhere(folder: Path) -> None:
    uids = uids_by_name(folder)
    uid, copy = uids["picture4.png"], uids["picture1.png"]
    leftovers(folder, copy)
    before = left(copy)
    assert {"raw_samples/one-00000.parquet", "image_features/one-00000.parquet", FOREIGN} <= before
    assert {"synthetic_captions/labels/one-00000.parquet", "duplicate_pairs/all.parquet"} <= before
    assert any("the gallery" in place for place in before)
    assert any("point" in place for place in before), "of the collection"
    assert any("the warehouse" in place for place in before)
    outside = {
        f"published folder: {folder}/hf/data/train-00000-of-00001.parquet",
        f"published folder: {folder}/webdataset/data/00000000.tar",
    }
    assert outside <= before
    assert f"subset {folder / 'subsets' / 'old.npy'}" in before
    assert any(place.endswith(".arrow") for place in before)

    (folder / "removals.txt").write_text(f"{uid}\n")
    assert "1 entry: 1 of kind uid 0 rows taken down 1 more" in said(dqe("takedown"))
    raw = json.loads(dqe("status", "--json").stdout)["assets"][0]
    assert (raw["asset"], raw["stale"], raw["current"]) == ("raw_samples", 1, 2)
    done = dqe("materialize")
    assert done.exit_code == 0, done.output
    assert f"removed {FOREIGN}: it had something of what is taken down" in said(done)
    assert said(done).count("it had something of what is taken down") == 2
    for form in ("hf", "webdataset"):
        assert f"warning: published folder {folder / form} has 2 samples taken down since" in said(done)
    assert f"warning: subset {folder / 'subsets' / 'old.npy'} has 1 sample taken down since" in said(done)
    assert "has 2 samples taken down since" in said(dqe("status"))
    assert "All is current." in said(dqe("status"))
    assert "2 rows taken down, 1 of them as copies" in said(dqe("takedown"))

    assert left(copy) == {*outside, f"subset {folder / 'subsets' / 'old.npy'}"}
    assert left(uid) == left(copy), "a check of one names what is left of its copies too"
    for form in ("hf", "webdataset"):
        shutil.rmtree(folder / form)
    (folder / "subsets" / "old.npy").unlink()
    for one in (uid, copy):
        check = dqe("takedown", "--check", one)
        assert (check.exit_code, "Nothing is left of" in check.output) == (0, True), check.output
        assert "its source lists it still: shard one-0000" in said(check)
    assert shown(folder).count(b"picture4") == 0
    assert shown(folder).count(b"picture3") > 0

    explained = said(dqe("explain", uid))
    assert "taken_down" in explained
    assert "number 4" not in explained
    with duckdb.connect(folder / "warehouse.duckdb", read_only=True) as connection:
        assert connection.sql("SELECT samples FROM failure_reasons WHERE reason = 'taken_down'").fetchall() == [(2,)]
        assert connection.sql("SELECT count(*) FROM samples").fetchall() == [(6,)]
    with load_settings().vectors.open() as collection:
        assert sum(collection.points_by_shard().values()) == 4


def test_what_is_published_after_has_none_of_it_and_says_so(folder: Path) -> None:
    uids = uids_by_name(folder)
    (folder / "removals.txt").write_text(uids["picture0.png"])
    assert dqe("materialize").exit_code == 0
    assert dqe("publish", str(folder / "new"), "--caption", "original", "--format", "webdataset").exit_code == 0
    with tarfile.open(next((folder / "new" / "data").glob("*.tar"))) as tar:
        names = tar.getnames()
    assert {name.partition(".")[0] for name in names} == set(uids.values()) - {uids["picture0.png"]}
    assert (
        "1 row of the sources is not among the samples: taken down on request."
        in (folder / "new" / "README.md").read_text()
    )
    assert f"published folder {folder / 'new'}" not in said(dqe("status"))

    (folder / "removals.txt").write_text("")
    assert dqe("materialize").exit_code == 0
    back = uids_by_name(folder)
    assert back == uids, "what is no longer listed is read from its source again"


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [("http://elsewhere.org/x.jpg", 0), ("elsewhere.org", 0), ("0" * 32, 0), ("0" * 64, 0), ("0" * 16, 0), ("what", 2)],
)
def test_of_what_was_never_there_nothing_is_left(folder: Path, text: str, exit_code: int) -> None:
    assert dqe("takedown", "--check", text).exit_code == exit_code


def test_a_check_finds_by_hashes_too(folder: Path) -> None:
    row = pq.read_table(folder / "store" / "image_features" / "one-00000.parquet").to_pylist()[0]
    raw = pq.read_table(folder / "store" / "raw_samples" / "one-00000.parquet").to_pylist()[0]
    for text in (raw["sha256"], f"{row['perceptual_hash']:016x}"):
        assert "raw_samples/one-00000.parquet" in left(text)
