from __future__ import annotations

import os
import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from dqe_assets.orchestration.dead_runs import end_dead_runs, process_tags


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
            started(instance, {}, pid=dead_pid),
        ]
        alive = [
            started(instance, process_tags()),
            started(instance, {}, pid=os.getpid()),
            started(instance, {}),
            started(instance, process_tags() | gone | {"dqe/host": "another-machine"}),
        ]
        assert set(end_dead_runs(instance)) == {run.run_id for run in dead}
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        assert {statuses[run.run_id] for run in dead} == {dg.DagsterRunStatus.FAILURE}
        assert {statuses[run.run_id] for run in alive} == {dg.DagsterRunStatus.STARTED}
        assert end_dead_runs(instance) == []
