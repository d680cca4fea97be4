from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.core.work import Manifest
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.search.query import collection_vectors
from tests.conftest import environment
from tests.stages import checked, stage_named

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.vectors import Collection

SHARDS = [f"sample-{number:05d}" for number in range(4)]

KILLED = """
import os, signal
from dqe_assets.cli.app import app
from dqe_resources.vectors.embedded import EmbeddedCollection
upsert = EmbeddedCollection._upsert
def killed_halfway(self, points):
    if points[0].payload["shard"] == "sample-00001":
        upsert(self, points[: len(points) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    upsert(self, points)
EmbeddedCollection._upsert = killed_halfway
app(["materialize", "caption_collection"])
"""


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished data folder, to be written to, with an empty collection."""
    folder = shutil.copytree(finished, tmp_path / "data", symlinks=True)
    shutil.rmtree(folder / "qdrant")
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    return folder


def states(settings: Settings) -> list[str]:
    stage = stage_named(settings, "caption_collection")
    return [runner.state(settings, stage, shard, SHARDS) for shard in SHARDS]


def materialize(settings: Settings) -> list[tuple[str, str | None]]:
    with instance() as current:
        outcome = runner.materialize(settings, current, assets=["caption_collection"])
    assert outcome.failures == []
    return outcome.made


def everything(collection: Collection) -> dict[str, tuple[dict[str, Any], dict[str, list[float]]]]:
    return {
        point.uid: (point.payload, {name: vector.tolist() for name, vector in point.vectors.items()})
        for point in collection.scroll()
    }


def test_killed_during_an_upsert_it_is_whole_again_after_the_next_run(copied: Path, finished: Path) -> None:
    settings = load_settings()
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment(copied), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    there = settings.vectors.contents(collection_vectors(settings.scorer, settings.captions)).points
    assert 0 < there["sample-00001"] < there["sample-00000"]
    assert set(there) == set(SHARDS[:2])
    assert states(settings) == ["current", "stale", "stale", "stale"]

    assert materialize(settings) == [("caption_collection", shard) for shard in SHARDS[1:]]
    undisturbed = settings.vectors.model_copy(update={"directory": finished / "qdrant"})
    with settings.vectors.open() as collection, undisturbed.open() as other:
        assert everything(collection) == everything(other)

    with settings.vectors.open() as collection:
        lost = min(collection.uids("sample-00002"))
        collection._delete([lost])
    assert states(settings) == ["current", "current", "stale", "current"]
    assert materialize(settings) == [("caption_collection", "sample-00002")]
    with settings.vectors.open() as collection:
        assert collection.get(lost) is not None
    assert states(settings) == ["current"] * 4


@pytest.mark.parametrize("difference", [-1, 1])
def test_the_count_check_knows_of_a_point_too_few_or_too_many(opened: Settings, difference: int) -> None:
    stage = stage_named(opened, "caption_collection")
    (check,) = stage.checks
    work = stage.work(opened.opened_store, "sample-00000", SHARDS)
    statuses = work.read("raw_samples", ["status"])["status"].to_pylist()
    samples = statuses.count("ok")
    good, bad = (Manifest(samples, {"counted": samples + more}) for more in (0, difference))
    assert checked(opened, stage, check.name, work, good).passed
    assert not checked(opened, stage, check.name, work, bad).passed
