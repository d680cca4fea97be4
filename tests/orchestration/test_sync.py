"""What left a source, or dqe.yaml, goes from the store, the collection and Dagster; what cannot be read stays."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.core.partitions import registered_shards
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.sensors import shard_sensor
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.store import Checkpoint, Stamp
from dqe_resources.vectors import EmbeddedQdrant
from tests.conftest import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_assets.orchestration.settings import Settings

NAMED = {"image": 4}
OTHER = pa.schema([("uid", pa.string())])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of three shards each, with raw samples, another table, begun rows and points of every shard."""
    folder = tmp_path_factory.mktemp("made") / "data"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        use(folder, patch)
        for source in ("one", "two"):
            write(folder, source, 6)
        configure(folder, "one", "two")
        materialized()
        fill(load_settings())
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be written to."""
    copied = shutil.copytree(made, tmp_path / "data")
    use(copied, monkeypatch)
    return copied


def use(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name, value in environment(folder).items():
        patch.setenv(name, value)


def write(folder: Path, source: str, rows: int) -> None:
    photo = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(photo, "PNG")
    columns = {"id": pa.array([f"{source}{n}" for n in range(rows)], pa.string())}
    columns |= {"image": pa.array([photo.getvalue()] * rows, pa.binary()), "text": columns["id"]}
    pq.write_table(pa.table(columns), folder / f"{source}.parquet")


def configure(folder: Path, *sources: str, shard_size: int = 2) -> None:
    listed = [
        {"kind": "parquet", "name": name.partition(":")[0], "path": f"{name.partition(':')[2] or name}.parquet"}
        | {"key_column": "id", "image_column": "image", "caption_column": "text", "shard_size": shard_size}
        for name in sources
    ]
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": listed, "captioners": []}))


def fill(settings: Settings) -> None:
    """What a store also has of each shard: other tables, one of an asset that is no longer, begun rows, points."""
    store = settings.opened_store
    with settings.vectors.open(NAMED) as collection:
        for shard in store.partitions("raw_samples"):
            for asset in ("image_features", "synthetic_captions/gone", "filter_masks"):
                store.write_table(asset, shard, OTHER.empty_table(), OTHER, Stamp("", "", 0))
            store.write_manifest("caption_collection", shard, Stamp("", "", 0))
            Checkpoint(store, "synthetic_captions/gone", shard, "v").append(OTHER.empty_table())
            vector = pa.array([[1.0, 0.0, 0.0, 0.0]], pa.list_(pa.float32()))
            uid = f"{abs(hash(shard)):032x}"
            collection.replace_shard(shard, pa.table({"uid": [uid], "image": vector}))


def materialized() -> runner.Outcome:
    settings = load_settings()
    with instance() as current:
        runner.sync(settings, current)
        return runner.materialize(settings, current, assets=["raw_samples"])


def registered() -> list[str]:
    with instance() as current:
        return list(registered_shards(current))


def stored(folder: Path) -> set[str]:
    """Shards of which the store holds anything."""
    return {path.name.partition(".")[0] for path in (folder / "store").rglob("*-0*")}


def searchable() -> set[str]:
    with load_settings().vectors.open() as collection:
        return set(collection.points_by_shard())


def shards(source: str, *numbers: int) -> set[str]:
    return {f"{source}-{number:05d}" for number in numbers}


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_a_source_that_became_smaller_keeps_only_what_it_has(folder: Path) -> None:
    write(folder, "two", 3)
    code, said = run("materialize", "raw_samples")
    assert code == 0
    assert "removed 1 shard (two-00002): source two has become smaller" in said
    left = shards("one", 0, 1, 2) | shards("two", 0, 1)
    assert stored(folder) == left
    assert searchable() == left
    assert set(registered()) == left
    rows = pq.read_table(folder / "store" / "raw_samples" / "two-00001.parquet")["image_name"].to_pylist()
    assert rows == ["two2"]
    assert "removed" not in run("sync")[1].replace("0 removed", "")


def test_a_source_that_left_the_settings_goes_whole(folder: Path) -> None:
    configure(folder, "one")
    code, said = run("sync")
    assert code == 0
    assert "removed 3 shards (two-00000, two-00001, two-00002): source two is no longer in dqe.yaml" in said
    assert stored(folder) == searchable() == set(registered()) == shards("one", 0, 1, 2)


def test_a_source_that_is_renamed_goes_under_its_old_name(folder: Path) -> None:
    configure(folder, "one", "three:two")
    assert materialized().failures == []
    assert stored(folder) == set(registered()) == shards("one", 0, 1, 2) | shards("three", 0, 1, 2)
    assert searchable() == shards("one", 0, 1, 2)


def test_larger_shards_leave_no_rest_of_the_smaller_ones(folder: Path) -> None:
    configure(folder, "one", "two", shard_size=6)
    assert materialized().failures == []
    assert stored(folder) == searchable() == set(registered()) == shards("one", 0) | shards("two", 0)


def test_nothing_goes_of_a_source_that_cannot_be_read_or_has_no_rows_any_more(folder: Path) -> None:
    everything = shards("one", 0, 1, 2) | shards("two", 0, 1, 2)
    for make_unreadable in (
        lambda: (folder / "two.parquet").write_bytes(b"torn"),
        lambda: write(folder, "two", 0),
    ):
        make_unreadable()
        write(folder, "one", 3)
        code, said = run("materialize", "raw_samples")
        assert code == 1
        assert "source two cannot be read, and what was made of it stays: " in said
        assert "source one cannot be read" not in said
        assert stored(folder) == searchable() == set(registered()) == everything - shards("one", 2)
    assert "take it out of dqe.yaml" in said


def test_what_is_registered_or_stored_of_an_earlier_version_goes_too(folder: Path) -> None:
    with instance() as current:
        for shard in shards("two", 0, 1, 2):
            current.delete_dynamic_partition("shards", shard)
    configure(folder, "one")
    assert "removed 3 shards" in run("sync")[1]
    assert stored(folder) == searchable() == shards("one", 0, 1, 2)


def test_what_is_no_partition_is_left_alone(folder: Path) -> None:
    foreign = folder / "store" / "raw_samples" / "notes.parquet"
    foreign.write_bytes(b"mine")
    configure(folder, "one")
    run("sync")
    assert foreign.read_bytes() == b"mine"


class Killed(BaseException):
    """A process that ends at once."""


def kill_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let so many removals happen, of files, folders, points and partitions, and none after them."""
    count = 0

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if count == steps:
                raise Killed
            count += 1
            return do(*arguments, **options)

        return step

    for owner, name in (
        (Path, "unlink"),
        (os, "rmdir"),
        (EmbeddedQdrant, "open"),
        (dg.DagsterInstance, "delete_dynamic_partition"),
    ):
        patch.setattr(owner, name, counted(getattr(owner, name)))


def test_killed_at_any_moment_the_next_command_goes_on(made: Path, folder: Path) -> None:
    for steps in range(0, 100, 4):
        shutil.rmtree(folder)
        shutil.copytree(made, folder)
        configure(folder, "one")
        settings = load_settings()
        with instance() as current:
            with pytest.MonkeyPatch.context() as patch:
                kill_after(patch, steps)
                try:
                    runner.sync(settings, current)
                except Killed:
                    pass
                else:
                    break
            assert runner.sync(settings, current).removed_in_words
            assert stored(folder) == searchable() == set(registered_shards(current)) == shards("one", 0, 1, 2)
    assert steps > 20, "the kills fell into the whole of a removal"


def test_a_collection_that_is_away_is_made_good_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(folder, "one")
    monkeypatch.setenv("DQE_QDRANT_URL", "http://127.0.0.1:9")
    code, said = run("sync")
    assert code == 1
    assert "a search may still find 3 shards (two-00000" in said
    assert shards("two", 0) <= set(registered())
    monkeypatch.delenv("DQE_QDRANT_URL")
    assert run("sync")[0] == 0
    assert searchable() == set(registered()) == shards("one", 0, 1, 2)


def test_the_sensor_does_the_same(folder: Path) -> None:
    configure(folder, "one")
    settings = load_settings()
    with instance() as current:
        tick = shard_sensor(settings)(dg.build_sensor_context(current))
    assert isinstance(tick, dg.SensorResult)
    (asked,) = tick.dynamic_partitions_requests or ()
    assert set(asked.partition_keys) == shards("two", 0, 1, 2)
    assert stored(folder) == searchable() == shards("one", 0, 1, 2)


def test_status_and_an_unchanged_materialize_open_each_file_of_the_store_once(folder: Path) -> None:
    opened: list[str] = []

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(folder / "store" / "raw_samples")):
            opened.append(str(arguments[0]))

    # It stays for as long as this process lives, and costs it little.
    sys.addaudithook(listen)
    materialized()
    for command in (["status"], ["materialize", "raw_samples"]):
        opened.clear()
        assert run(*command)[0] == 0
        files = [path for path in opened if path.endswith(".parquet")]
        assert len(set(files)) == 6
        assert len(files) == 6, command


def test_what_is_made_in_a_command_is_looked_at_again(folder: Path) -> None:
    materialized()
    look = load_settings().as_it_is_now()
    store = look.opened_store
    assert store.get("raw_samples", "one-00000") is not None
    (folder / "store" / "raw_samples" / "one-00000.parquet").unlink()
    assert store.get("raw_samples", "one-00000") is not None
    store.forget("raw_samples", "one-00000")
    assert store.get("raw_samples", "one-00000") is None
    assert "1 partition made, 5 were current" in run("materialize", "raw_samples")[1]
