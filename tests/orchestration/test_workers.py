"""Shards that workers make: the same files and the same record as without them, also when workers are killed."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

from dqe_assets.core.asset import asset, asset_key
from dqe_assets.core.resource import WORKERS
from dqe_assets.core.shard_workers import Problems, ShardWorkers
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.settings import Settings, load_settings
from dqe_resources.cluster.board import at_work
from dqe_resources.progress import Step, listen
from tests.hostile_server import noise
from tests.stages import stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_assets.core.stage import Stage

CHAIN = ["raw_samples", "image_features", "text_quality"]
KEYS = [f"noise-{number:05d}" for number in range(4)]
BOTH_ENDS = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
LOCAL = {"kind": "local", "workers": 2}


@pytest.fixture
def images(data: Path) -> Path:
    """Settings with a source of 12 images, 3 in a shard."""
    folder = data / "images"
    folder.mkdir()
    for number in range(12):
        noise(number).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"noise, number {number}")
    source = {"kind": "folder", "name": "noise", "path": "images", "shard_size": 3}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "captioners": [], "image_text": None}))
    return folder


@pytest.fixture
def instance(images: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster that knows the shards."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        runner.sync(load_settings(), ephemeral)
        yield ephemeral


def with_workers(store: str = "store") -> Settings:
    return load_settings({"DQE_CLUSTER": yaml.safe_dump(LOCAL), "DQE_STORE": store})


def files(data: Path, store: str) -> dict[str, bytes]:
    root = data / store
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def killed_once(killed: list[str], asset_name: str) -> threading.Thread:
    """Kills the first worker that works on an asset."""

    def kill() -> None:
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            for one in at_work():
                if one.asset == asset_name and not killed:
                    os.kill(one.pid, signal.SIGKILL)
                    killed.append(one.partition)
            time.sleep(0.002)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_backfill_in_which_a_worker_is_killed_gives_the_same_bytes_and_the_same_record_as_without_workers(
    data: Path, instance: dg.DagsterInstance
) -> None:
    with dg.DagsterInstance.ephemeral() as other:
        runner.sync(load_settings({"DQE_STORE": "alone"}), other)
        alone = runner.materialize(load_settings({"DQE_STORE": "alone"}), other, assets=CHAIN)
        assert not alone.failures
        expected = recorded(other)
    killed: list[str] = []
    steps: list[Step] = []
    killer = killed_once(killed, "image_features")
    with listen(steps.append):
        outcome = runner.materialize(with_workers(), instance, assets=CHAIN)
    killer.join()
    assert killed
    assert killed[0] in KEYS
    assert (outcome.failures, sorted(outcome.made)) == ([], sorted(alone.made))
    assert files(data, "store") == files(data, "alone")
    assert recorded(instance) == expected
    assert {(one.asset, one.partition) for one in steps if one.outcome} == {(a, k) for a in CHAIN for k in KEYS}
    again = runner.materialize(with_workers(), instance, assets=CHAIN)
    assert (again.made, again.current) == ([], len(CHAIN) * len(KEYS))
    assert not list((data / "workers").glob("*"))


def recorded(instance: dg.DagsterInstance) -> dict[str, list[Any]]:
    """Of each asset, the partition, data version and rows of each materialisation."""
    found = {}
    for name in CHAIN:
        records = instance.fetch_materializations(asset_key(name), limit=100).records
        events = [record.asset_materialization for record in records]
        found[name] = sorted(
            (one.partition, one.tags["dagster/data_version"], one.metadata["dagster/partition_row_count"].value)
            for one in events
        )
    return found


def stages_that_kill(settings: Settings) -> list[Stage]:
    """The stages, of which one kills whoever makes the second shard, and fails for the third."""
    from dataclasses import replace

    stages = graph.stages(settings)
    place = next(place for place, one in enumerate(stages) if one.name == "image_features")
    before = stages[place]

    def kills(work: Any, image_model: Any) -> Any:
        if work.partition == KEYS[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        if work.partition == KEYS[2]:
            raise ValueError("this one is odd")
        work.log(f"a worker makes {work.partition}")
        return before.function(work, image_model)

    stages[place] = replace(before, function=kills)
    return stages


def test_a_shard_that_always_kills_fails_by_its_name_and_the_others_are_made_and_recorded(
    instance: dg.DagsterInstance,
) -> None:
    settings = with_workers()
    problems: Problems = {}
    workers = ShardWorkers(settings.cluster, partial(stages_that_kill, settings), problems)
    result = dg.materialize(
        [asset(stage_named(settings, name), shards_per_run=9) for name in CHAIN[:2]],
        instance=instance,
        resources=dagster_resources(settings) | {WORKERS: dg.ResourceDefinition.hardcoded_resource(workers)},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=BOTH_ENDS,
        raise_on_error=False,
    )
    assert not result.success
    said = str(problems[KEYS[1]])
    assert re.match(rf"image_features, {KEYS[1]}: 3 workers ended while they made it .*SIGKILL", said), said
    assert str(problems[KEYS[2]]) == "this one is odd"
    (event,) = result.get_step_failure_events()
    why = event.step_failure_data.error.cause.message
    assert "2 of 4 failed" in why
    assert f"image_features, {KEYS[1]}: 3 workers ended" in why
    made = instance.fetch_materializations(asset_key("image_features"), limit=9).records
    assert {record.partition_key for record in made} == {KEYS[0], KEYS[3]}
    log = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert f"a worker makes {KEYS[0]}" in log
    assert sum(f"{KEYS[1]}: its worker ended" in line for line in log) == 2
    (killed,) = [line for line in log if line.startswith(f"image_features, {KEYS[1]}: image_features")]
    assert "3 workers ended while they made it" in killed
    assert "Traceback" not in killed
    (odd,) = [line for line in log if line.startswith(f"image_features, {KEYS[2]}:")]
    assert "in kills" in odd
    assert odd.endswith("ValueError: this one is odd\n")


def test_what_asks_a_server_or_opens_the_collection_stays_in_the_process_of_the_run(images: Path) -> None:
    settings = with_workers()
    source = {"kind": "urls", "name": "web", "path": "list.csv"}
    (images.parent / "list.csv").write_text("url,caption\nhttp://127.0.0.1:9/a.jpg,a cat\n")
    web = load_settings({"DQE_SOURCES": yaml.safe_dump([source])})
    for found, key, expected in ((settings, KEYS[0], False), (web, "web-00000", True)):
        stage = stage_named(found, "raw_samples")
        work = stage.work(found.opened_store, key, ())
        assert stage.is_made_apart(work, stage.arguments(graph.resources(found))) is expected
