"""The whole sample on an S3 server: the command is killed, then the server, and the store is that of a quiet run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.conftest import dqe, environment, make_data_folder
from tests.servers.qdrant_server import QdrantServer, qdrant_server
from tests.servers.seaweed import S3, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from fsspec import AbstractFileSystem

STORE = "bucket/store"
KILLED_AT = (0.05, 0.3, 0.55)
AWAY_AT = 0.75
"""Of all files, how many are there when the command is killed, and when the server is."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with qdrant_server(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


def sample(folder: Path, model_cache: Path, url: str, collection: str) -> Path:
    """A data folder with the sample, and a collection of its own on a server."""
    data = make_data_folder(folder, model_cache)
    settings = yaml.safe_load((data / "dqe.yaml").read_text())
    settings["vectors"] = {"kind": "server", "url": url, "collection": collection}
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))
    return data


def bucket(s3: S3) -> AbstractFileSystem:
    import fsspec

    return fsspec.filesystem(
        "s3", key="writer", secret="secret", endpoint_url=s3.url, skip_instance_cache=True, use_listings_cache=False
    )


def names(storage: AbstractFileSystem) -> list[str]:
    """What is made in the store on the server; whose it is to make is left out."""
    with suppress(FileNotFoundError):
        return [path.removeprefix(f"{STORE}/") for path in storage.find(STORE) if "/.owner/" not in path]
    return []


def files(data: Path) -> dict[str, bytes]:
    """The same of a store on this machine."""
    root = data / "store"
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != ".owner"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def what_must_be_the_same(name: str, content: bytes, data: Path) -> Any:
    """A table is the same, byte for byte; a manifest but for the folder, and what is drawn or has times in it."""
    if not name.endswith(".json"):
        return content
    manifest = json.loads(content.replace(str(data).encode(), b"DATA"))
    del manifest["checksum"]
    match name.partition("/")[0]:
        case "caption_collection":
            # Each collection has an identity of its own.
            del manifest["facts"]["collection"]
        case "warehouse":
            # A copy that was brought up to date has other places free.
            del manifest["facts"]["sha256"], manifest["facts"]["bytes"]
    return manifest


def begin(data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize"],
        env=environment(data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(s3: S3, count: float, process: subprocess.Popen[str]) -> None:
    storage = bucket(s3)
    while process.poll() is None and len(names(storage)) < count:
        time.sleep(0.2)
    assert process.poll() is None, process.stderr and process.stderr.read()


def test_the_sample_is_made_whoever_is_killed(
    s3: S3, collections: QdrantServer, tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = sample(tmp_path / "quiet", model_cache, collections.url, "quiet")
    done = dqe(quiet, "materialize")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = files(quiet)

    for name, value in {**s3.environment(), "DQE_STORE": f"s3://{STORE}"}.items():
        monkeypatch.setenv(name, value)
    data = sample(tmp_path / "data", model_cache, collections.url, "disturbed")
    for part in KILLED_AT:
        process = begin(data)
        wait_for(s3, part * len(expected), process)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    process = begin(data)
    wait_for(s3, AWAY_AT * len(expected), process)
    before = set(names(bucket(s3)))
    s3.kill()
    _, said = process.communicate(timeout=120)
    failures = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert process.returncode == 1, said
    assert len(failures) == 1, said
    assert "the store s3://bucket/store cannot be used: " in failures[0]
    assert "start its server" in failures[0]
    s3.start()
    storage, deadline = bucket(s3), time.monotonic() + 60
    while left := before.difference(names(storage)):
        # It answers before it has found all that it has.
        assert time.monotonic() < deadline, left
        time.sleep(0.5)

    done = dqe(data, "materialize")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: storage.cat_file(f"{STORE}/{name}") for name in names(storage)}
    assert found.keys() == expected.keys()
    others = [
        name
        for name, content in expected.items()
        if what_must_be_the_same(name, content, quiet) != what_must_be_the_same(name, found[name], data)
    ]
    assert not others
    assert (data / "gallery.html").read_bytes() == (quiet / "gallery.html").read_bytes()
    assert "(0 partitions made" in dqe(data, "materialize").stdout
