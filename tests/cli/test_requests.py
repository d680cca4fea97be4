"""How often commands ask an object store: what grows with partitions and assets must not grow faster than they do."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from tests.conftest import environment
from tests.servers.seaweed import S3, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.qdrant_server import QdrantServer

MOST = {"status": 2.2, "materialize": 2.5, "report": 1.8}
"""Requests of each command, for each partition that is looked at: a quarter more than were counted."""


@pytest.fixture
def server(finished: Path, qdrant: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A server with the store of the finished sample; the data folder is a copy of its own."""
    import fsspec

    shutil.copytree(finished, tmp_path / "data", symlinks=True)
    qdrant.goes_wrong()
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as running:
        vectors = {"kind": "server", "url": qdrant.url, "collection": "requests"}
        settings = {"DQE_STORE": "s3://bucket/store", "DQE_VECTORS": json.dumps(vectors), **running.environment()}
        for name, value in {**environment(tmp_path / "data"), **settings}.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").put(f"{finished / 'store'}/", "bucket/store/", recursive=True)
        yield running


def test_commands_ask_no_more_often_than_there_are_partitions(server: S3) -> None:
    def ask(*command: str) -> tuple[float, str]:
        before = server.requests().total()
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return server.requests().total() - before, done.stdout

    asked, said = ask("status", "--json")
    found = json.loads(said)["assets"]
    partitions = sum(sum(count for state, count in one.items() if state != "asset") for one in found)
    counted = {"status": asked / partitions}
    # The collection is another one, which does not exist: what is made of it is not current.
    current = [one["asset"] for one in found if one["current"] and not one["stale"] + one["missing"]]
    assert len(current) > len(found) / 2
    asked, said = ask("materialize", *current)
    assert said.splitlines()[-2].startswith("0 partitions made")
    counted["materialize"] = asked / sum(one["current"] for one in found if one["asset"] in current)
    counted["report"] = ask("report")[0] / partitions
    assert all(counted[name] <= MOST[name] for name in MOST), counted
