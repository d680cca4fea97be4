"""A store that goes away ends a command, a run in Dagster, and workers, at once and with one line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from dqe_assets.orchestration.settings import load_settings
from dqe_resources.progress import Step, listen
from tests.caption_server import jpeg
from tests.conftest import environment
from tests.orchestration.test_whole_run import error_of, made, materialize, run_of_dagster
from tests.servers.relay import Relay
from tests.servers.seaweed import S3, s3_server
from tests.stages import stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

ASSETS = ["raw_samples", "image_features", "rights", "text_quality"]
SHARDS = [f"photos-{number:05d}" for number in range(4)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def relay(server: S3, data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """What stands before the server, and a data folder whose store is there: twelve photos in four shards."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    (data / "photos").mkdir()
    for number in range(12):
        (data / "photos" / f"{number:02d}.jpg").write_bytes(jpeg(number + 40))
    with Relay(server.url) as relay:
        settings = {**server.environment(), "AWS_ENDPOINT_URL": relay.url, "AWS_MAX_ATTEMPTS": "2"}
        # No server of a collection: what is made here does without.
        settings |= {"DQE_STORE": f"s3://bucket/{data.parent.name}", "DQE_QDRANT_URL": "http://127.0.0.1:9"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield relay


def configure(data: Path, **settings: Any) -> None:
    source = {"kind": "folder", "name": "photos", "path": "photos", "shard_size": 3}
    text = yaml.safe_dump({"sources": [source], "captioners": [], "image_text": None, **settings})
    (data / "dqe.yaml").write_text(text)


class Going:
    """Has the server go away once an asset of a shard is made."""

    def __init__(self, relay: Relay, asset: str, shard: str) -> None:
        self.tried: list[tuple[str, str | None]] = []
        self._relay, self._last = relay, (asset, shard)

    def __call__(self, step: Step) -> None:
        if step.total == 0:
            self.tried.append((step.asset, step.partition))
        if step.outcome and (step.asset, step.partition) == self._last:
            self._relay.go()


@pytest.mark.parametrize("cluster", [{}, {"cluster": {"kind": "local", "workers": 2}}], ids=["alone", "workers"])
def test_a_command_ends_and_goes_on_when_the_store_is_back(data: Path, relay: Relay, cluster: dict[str, Any]) -> None:
    configure(data, **cluster)
    going = Going(relay, "image_features", SHARDS[1])
    with listen(going):
        outcome = materialize(*ASSETS)
    (failure,) = outcome.failures
    assert failure == outcome.away
    assert failure.startswith(f"the store s3://bucket/{data.parent.name} cannot be used: ")
    assert "start its server, or correct its address or the network, then run the same command again" in failure
    assert not outcome.ended
    assert made(outcome, "raw_samples") >= SHARDS[:2]
    if not cluster:
        assert not [shard for _, shard in going.tried if shard in SHARDS[2:]], "no other shard was tried"

    relay.come()
    again = materialize(*ASSETS)
    assert not again.failures
    together = [(asset, shard) for one in (outcome, again) for asset, shard in one.made]
    assert len(together) <= len(ASSETS) * len(SHARDS), "nothing is made twice"
    store = load_settings().opened_store
    assert all(store.get(asset, shard) for asset in ASSETS for shard in SHARDS)


def test_in_a_run_of_dagster_each_asset_says_it_once(data: Path, relay: Relay) -> None:
    configure(data)
    settings = load_settings()
    going = Going(relay, "image_features", SHARDS[1])
    with listen(going):
        result = run_of_dagster(settings, [stage_named(settings, one) for one in ASSETS[:2]], SHARDS[0], SHARDS[-1])
    assert "StoreAwayError: the store s3://bucket/" in error_of(result)
    assert [shard for asset, shard in going.tried if asset == "image_features"] == SHARDS[:2]


def test_steps_of_one_run_do_not_each_ask_a_server_that_is_away(data: Path, relay: Relay) -> None:
    configure(data)
    settings = load_settings()
    materialize("raw_samples")
    going = Going(relay, "image_features", SHARDS[1])
    stages = [stage_named(settings, one) for one in ASSETS[1:]]
    with listen(going):
        result = run_of_dagster(settings, stages, SHARDS[0], SHARDS[-1])
    errors = {event.step_failure_data.error.cause.message for event in result.get_step_failure_events()}
    assert len(errors) == 1
    assert len({asset for asset, _ in going.tried}) < len(stages)


@pytest.mark.parametrize(("command", "fault"), [("status", "server"), ("materialize", "credentials")])
def test_a_command_says_so_in_one_line(data: Path, relay: Relay, command: str, fault: str) -> None:
    configure(data)
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong"} if fault == "credentials" else {}
    if fault == "server":
        relay.go()
    done = subprocess.run(
        [sys.executable, "-m", "dqe_assets.cli", command],
        env={**environment(data), **wrong},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the store s3://bucket/"), done.stderr
    assert ("give valid credentials" if fault == "credentials" else "start its server") in line
    assert done.returncode == 1
