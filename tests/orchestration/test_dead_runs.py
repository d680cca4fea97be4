from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from dqe_assets.core.asset import asset
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.dead_runs import end_dead_runs, process_tags
from dqe_assets.orchestration.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"dqe/host": socket.gethostname()}


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def started(instance: dg.DagsterInstance, tags: dict[str, str], pid: int | None = None) -> dg.DagsterRun:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=tags)
    if pid is not None:
        data = EngineEventData({"pid": dg.MetadataValue.text(str(pid))})
        instance.report_engine_event("Started process for run", run, data)
    return run


def test_only_runs_whose_process_is_gone_are_ended(dead_pid: int) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        gone = {"dqe/pid": str(dead_pid)}
        dead = [
            started(instance, process_tags() | gone),
            started(instance, HERE, pid=dead_pid),
        ]
        alive = [
            started(instance, process_tags()),
            started(instance, HERE, pid=os.getpid()),
            started(instance, HERE),
            # On whichever machine: in a container, for one.
            started(instance, {}, pid=dead_pid),
            started(instance, gone),
            started(instance, process_tags() | gone | {"dqe/host": "another-machine"}),
        ]
        assert set(end_dead_runs(instance)) == {run.run_id for run in dead}
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        assert {statuses[run.run_id] for run in dead} == {dg.DagsterRunStatus.FAILURE}
        assert {statuses[run.run_id] for run in alive} == {dg.DagsterRunStatus.STARTED}
        assert end_dead_runs(instance) == []


def test_a_process_that_got_the_number_of_a_dead_one_is_not_its_run() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        # This process has the number, but began at another time.
        by_tag = started(instance, process_tags() | {"dqe/began": "1"})
        by_event = started(instance, HERE, pid=os.getpid())
        assert end_dead_runs(instance) == [by_tag.run_id]
        (record,) = instance.get_records_for_run(by_event.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
        old = record.event_log_entry._replace(timestamp=time.time() - 10 * 24 * 3600)
        instance.event_log_storage.update_event_log_record(record.storage_id, old)
        assert end_dead_runs(instance) == [by_event.run_id]


def test_what_follows_the_output_of_a_dead_run_is_ended(dead_pid: int, tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dead, alive = started(instance, process_tags() | {"dqe/pid": str(dead_pid)}), started(instance, process_tags())
        logs = [tmp_path / run.run_id / "compute_logs" / "step.out" for run in (dead, alive)]
        for log in logs:
            log.parent.mkdir(parents=True)
            log.touch()
        # As Dagster starts them.
        follows = [subprocess.Popen(["tail", "-F", "-c", "+0", str(log)]) for log in logs]
        try:
            assert end_dead_runs(instance) == [dead.run_id]
            assert follows[0].wait(10) == -15
            assert follows[1].poll() is None
        finally:
            for process in follows:
                process.kill()
                process.wait()


def test_a_dead_run_gives_back_its_place_in_a_pool_and_a_living_one_keeps_it(dead_pid: int) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots("model", 2)
        dead, alive = started(instance, process_tags() | {"dqe/pid": str(dead_pid)}), started(instance, process_tags())
        for run in (dead, alive):
            assert storage.claim_concurrency_slot("model", run.run_id, "step").is_claimed
        assert storage.get_concurrency_info("model").active_slot_count == 2
        end_dead_runs(instance)
        assert storage.get_concurrency_info("model").active_run_ids == {alive.run_id}


def test_a_run_of_the_command_line_waits_in_no_pool(data: Path) -> None:
    (stage,) = [one for one in graph.stages(load_settings({})) if one.name == "image_features"]
    assert asset(stage, shards_per_run=1).op.pool == stage.pool == "model"
    assert asset(stage, shards_per_run=1, in_pool=False).op.pool is None
