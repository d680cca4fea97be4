from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.core.work import Manifest
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.search.query import Query, collection_vectors, search_collection
from dqe_resources.vectors import EmbeddedQdrant
from tests.conftest import environment
from tests.servers.qdrant_server import Fault
from tests.stages import checked, stage_named

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.vectors import Vectors
    from tests.servers.qdrant_server import QdrantServer

SHARDS = [f"sample-{number:05d}" for number in range(4)]

KILLED = """
import os, signal
from dqe_assets.cli.app import app
from dqe_resources.vectors import embedded, server
def killed_halfway(upsert):
    def halfway(self, points):
        if points[0].payload["shard"] == "sample-00001":
            upsert(self, points[: len(points) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        upsert(self, points)
    return halfway
for kind in (embedded.EmbeddedCollection, server.ServerCollection):
    kind._upsert = killed_halfway(kind._upsert)
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


@pytest.fixture
def served(qdrant: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, the collection is one on a server."""
    qdrant.goes_wrong()
    vectors = {"kind": "server", "url": qdrant.url, "collection": uuid.uuid4().hex}
    monkeypatch.setenv("DQE_VECTORS", json.dumps(vectors))


@pytest.fixture(params=["embedded", "server"])
def either(request: pytest.FixtureRequest) -> None:
    """The collection is embedded, or on a server."""
    if request.param == "server":
        request.getfixturevalue("served")


def states(settings: Settings) -> list[str]:
    stage = stage_named(settings, "caption_collection")
    return [runner.state(settings, stage, shard, SHARDS) for shard in SHARDS]


def materialize(settings: Settings) -> list[tuple[str, str | None]]:
    with instance() as current:
        outcome = runner.materialize(settings, current, assets=["caption_collection"])
    assert outcome.failures == []
    return outcome.made


def everything(vectors: Vectors) -> dict[str, tuple[dict[str, Any], dict[str, list[float]]]]:
    with vectors.open() as collection:
        return {
            point.uid: (point.payload, {name: vector.tolist() for name, vector in point.vectors.items()})
            for point in collection.scroll()
        }


def undisturbed(finished: Path) -> EmbeddedQdrant:
    return EmbeddedQdrant(directory=finished / "qdrant")


@pytest.mark.usefixtures("either")
def test_killed_during_an_upsert_it_is_whole_again_after_the_next_run(copied: Path, finished: Path) -> None:
    settings = load_settings()
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment(copied), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    there = settings.vectors.contents(collection_vectors(settings.scorer, settings.captions)).points
    assert 0 < there["sample-00001"] < there["sample-00000"]
    assert set(there) == set(SHARDS[:2])
    assert states(settings) == ["current", "stale", "stale", "stale"]

    assert materialize(settings) == [("caption_collection", shard) for shard in SHARDS[1:]]
    assert everything(settings.vectors) == everything(undisturbed(finished))

    with settings.vectors.open() as collection:
        lost = min(collection.uids("sample-00002"))
        collection._delete([lost])
    assert states(settings) == ["current", "current", "stale", "current"]
    assert materialize(settings) == [("caption_collection", "sample-00002")]
    with settings.vectors.open() as collection:
        assert collection.get(lost) is not None
    assert states(settings) == ["current"] * 4


@pytest.mark.usefixtures("served")
def test_two_runs_at_once_fill_one_collection(
    copied: Path, finished: Path, tmp_path: Path, qdrant: QdrantServer
) -> None:
    # Two machines that share a store: each has a folder of its own, and the same in it.
    folders = [copied, shutil.copytree(copied, tmp_path / "another", symlinks=True)]
    command = [sys.executable, "-m", "dqe_assets.cli", "materialize", "caption_collection"]
    runs = [subprocess.Popen(command, env=environment(folder)) for folder in folders]
    assert [run.wait(120) for run in runs] == [0, 0]
    settings = load_settings()
    assert everything(settings.vectors) == everything(undisturbed(finished))
    assert states(settings) == ["current"] * 4


@pytest.mark.usefixtures("served")
def test_a_server_finds_what_an_embedded_collection_finds(copied: Path, finished: Path, qdrant: QdrantServer) -> None:
    settings = load_settings()
    # The server fails once in a while: nothing of it is seen.
    qdrant.goes_wrong(Fault("503", "points", skip=3), Fault("cut", "PUT .*points", skip=1))
    assert len(materialize(settings)) == len(SHARDS)
    assert qdrant.told()["left"] == 0
    embedded = settings.model_copy(update={"vectors": undisturbed(finished)})
    for query in (Query("a cat"), Query("ein Boot am Strand"), Query(like="chelsea_03.jpg")):
        for using in ("image", "original", "labels"):
            for where in ([], ["language=en"], ["width>=300", "similarity_original>=0.05"], ["flagged_labels=false"]):
                given = {"using": using, "where": where, "limit": 15}
                hits = search_collection(settings, query, **given)
                assert hits == search_collection(embedded, query, **given)
                assert hits or where
    assert search_collection(settings, Query("a cat"), unique=True) == search_collection(
        embedded, Query("a cat"), unique=True
    )


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
