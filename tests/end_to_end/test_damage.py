"""What is torn or damaged, and a source that is away, is named, holds up only itself, and is made again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
import yaml
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from tests.conftest import environment
from tests.hostile_server import noise
from tests.resources.store.test_damage import damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name, value in environment(folder).items():
        patch.setenv(name, value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Path:
    """Two sources with a shard of three images each, through every stage."""
    folder = tmp_path_factory.mktemp("damage") / "data"
    for source in ("one", "two"):
        (folder / source).mkdir(parents=True)
        for number in range(3):
            noise(number + 3 * (source == "two"), 64, 48).save(folder / source / f"{source}{number}.png")
            (folder / source / f"{source}{number}.txt").write_text(f"noise of {source}, number {number}")
    (folder / "cache").symlink_to(model_cache)
    sources = [{"kind": "folder", "name": name, "path": name, "shard_size": 3} for name in ("one", "two")]
    captioners = [{"kind": "labels", "name": "labels"}]
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": sources, "captioners": captioners, "image_text": None}))
    with pytest.MonkeyPatch.context() as patch:
        use(folder, patch)
        assert dqe("materialize").exit_code == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, to be damaged: in its place, since a folder elsewhere is another source."""
    kept = shutil.copytree(made, tmp_path / "kept", symlinks=True)
    use(made, monkeypatch)
    yield made
    shutil.rmtree(made)
    shutil.copytree(kept, made, symlinks=True)


def dqe(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def stored(folder: Path) -> dict[str, bytes]:
    store = folder / "store"
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.parquet"))}


def named(result: Result) -> set[str]:
    """The files that the error stream names."""
    words = result.stderr.replace(": ", " ").split()
    return {Path(word).parent.name + "/" + Path(word).name for word in words if word.endswith((".parquet", ".json"))}


def test_all_that_is_torn_is_named_and_made_again_and_nothing_else(folder: Path) -> None:
    before = stored(folder)
    torn = {"raw_samples/one-00000.parquet", "caption_scores/two-00000.parquet", "duplicate_pairs/all.parquet"}
    for name, cut in zip(sorted(torn), (0, 100, -9), strict=True):
        (folder / "store" / name).write_bytes(before[name][:cut])
    (folder / "store" / "concept_plan" / "all.json").unlink(missing_ok=True)
    gallery = folder / "store" / "sample_gallery" / "all.json"
    gallery.write_bytes(gallery.read_bytes()[:-20])

    said = dqe("status")
    assert (said.exit_code, named(said)) == (1, {*torn, "sample_gallery/all.json"})
    document = json.loads(dqe("status", "--json").stdout)
    assert (len(document["torn"]), document["is_current"], document["unread"]) == (4, False, {})
    counts = {row["asset"]: (row["torn"], row["current"]) for row in document["assets"]}
    assert (counts["raw_samples"], counts["image_features"]) == ((1, 1), (0, 1)), (
        "of which one is made from what is torn"
    )
    for command in (["sql", "SELECT count(*) FROM samples"], ["get", "one0.png"], ["report"], ["search", "noise"]):
        assert dqe(*command).exit_code == 0, command
    explained = dqe("explain", "two0.png")
    assert explained.exit_code == 0
    assert "torn" in explained.stdout

    hidden = {"raw_samples/two-00000.parquet": "image.bytes", "joint_embeddings/two-00000.parquet": "uid"}
    for name, column in hidden.items():
        damage(folder / "store" / name, column, 0)
    wrong = {*torn, *hidden, "sample_gallery/all.json"}
    assert not named(dqe("status")) & hidden.keys(), "what is not read cannot be known"
    looked = dqe("status", "--verify")
    assert (looked.exit_code, named(looked)) == (1, wrong)
    assert named(dqe("status")) == wrong, "it is remembered"

    mended = dqe("materialize")
    assert (mended.exit_code, named(mended)) == (0, wrong), mended.output
    assert stored(folder) == before
    assert dqe("status", "--verify").exit_code == 0


def test_damage_shows_when_it_is_read_and_is_made_again_in_the_same_command(folder: Path) -> None:
    before = stored(folder)
    scores = "caption_scores/two-00000.parquet"
    damage(folder / "store" / scores, "similarity", 0)
    assert dqe("status").exit_code == 0, "what is not read cannot be known"
    (folder / "warehouse.duckdb").unlink()
    mended = dqe("materialize")
    assert (mended.exit_code, named(mended)) == (0, {scores}), mended.output
    assert stored(folder) == before
    rows = dqe("sql", "SELECT count(*), count(original_similarity) FROM samples").stdout.split()
    assert rows[-1] == "6,6"


def test_a_source_that_is_away_holds_up_only_itself(folder: Path) -> None:
    before = stored(folder)
    (folder / "one").rename(folder / "elsewhere")
    noise(9, 64, 48).save(folder / "two" / "two3.png")
    (folder / "two" / "two3.txt").write_text("one more")
    commands = (
        ["sql", "SELECT count(*) FROM samples"],
        ["get", "one0.png"],
        ["explain", "one0.png"],
        ["report"],
        ["search", "noise"],
    )
    for command in commands:
        assert dqe(*command).exit_code == 0, command
    for command in ("status", "materialize"):
        said = dqe(command)
        assert said.exit_code == 1
        assert f"source one cannot be read, and what was made of it stays: there is nothing at {folder / 'one'}" in (
            said.stderr.replace("\n", "")
        )
    after = stored(folder)
    assert {name for name in after if name.endswith("two-00001.parquet")}, "the other source goes on"
    # What filters keep is decided over all shards.
    of_one = {name for name in before if name.endswith("one-00000.parquet")} - {"filter_masks/one-00000.parquet"}
    assert all(after[name] == before[name] for name in of_one)
    assert dqe("sql", "SELECT count(*) FROM samples").stdout.split()[-1] == "7", "with what was made of this one"


def another_database(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE samples AS SELECT 1 AS uid")


def flip(path: Path) -> None:
    """Flip a bit, and hide when."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_a_damaged_warehouse_gallery_or_subset_is_not_current_and_what_is_advised_mends_it(folder: Path) -> None:
    files = {
        "warehouse": folder / "warehouse.duckdb",
        "sample_gallery": folder / "gallery.html",
        "subsets/best": next((folder / "subsets").glob("best.npy")),
    }
    whole = {asset: path.read_bytes() for asset, path in files.items()}
    kinds = [flip, cut, lambda path: os.truncate(path, 0), lambda path: path.write_bytes(b"something else")]
    for kind in [*kinds, another_database]:
        for asset, path in files.items():
            path.write_bytes(whole[asset])
            if asset == "warehouse" or kind is not another_database:
                kind(path)
        if kind is not flip:
            advised = dqe("sql", "SELECT caption FROM samples").stderr
            assert "dqe materialize warehouse" in advised or kind is another_database
        rows = json.loads(dqe("status", "--json").stdout)["assets"]
        stale = {row["asset"] for row in rows if row["stale"]}
        assert stale == ({"warehouse"} if kind is another_database else set(files)), kind
    cut(files["sample_gallery"])
    assert dqe("materialize", "warehouse").exit_code == 0
    assert dqe("sql", "SELECT count(*) FROM samples").stdout.split()[-1] == "6"
    assert dqe("materialize").exit_code == 0
    assert files["sample_gallery"].read_bytes() == whole["sample_gallery"]
    assert dqe("status").exit_code == 0


def test_a_query_that_meets_damage_in_the_warehouse_says_what_mends_it(folder: Path) -> None:
    path = folder / "warehouse.duckdb"
    content = bytearray(path.read_bytes())
    for position in range(1 << 18, len(content), 4096):
        content[position] ^= 1
    path.write_bytes(content)
    for command in (["sql", "SELECT * FROM captions"], ["get", "one0.png"], ["report"]):
        said = dqe(*command)
        assert said.exit_code == 1
        assert "error: the warehouse is damaged (" in said.stderr or "cannot read the warehouse" in said.stderr
        assert "make it again: dqe materialize warehouse" in said.stderr
        assert "Traceback" not in said.stderr


def test_of_a_damaged_file_of_dagsters_it_is_said_which_and_what_is_lost_without_it(folder: Path) -> None:
    history = folder / "dagster_home" / "history"
    index, runs = history / "runs" / "index.db", history / "runs.db"
    index.write_bytes(b"not a database" * 999)
    cut(runs)
    for path in (index, runs):
        for log in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            log.unlink(missing_ok=True)
    for command in ("status", "materialize", "sync"):
        said = dqe(command)
        assert said.exit_code == 1
        assert (
            f"{index}: damaged (file is not a database). Dagster keeps what the UI shows of each asset" in said.stderr
        )
        assert f"{runs}: damaged (database disk image is malformed). Dagster keeps the list of runs" in said.stderr
        assert "Traceback" not in said.stderr
    report = dqe("report")
    assert (report.exit_code, "not known whether the warehouse is current" in report.stderr) == (0, True)
    for path in (index, runs):
        path.rename(path.with_suffix(".damaged"))
    done = dqe("materialize")
    assert (done.exit_code, "(0 partitions made" in done.stdout) == (0, True), done.output
    assert dqe("status").exit_code == 0
