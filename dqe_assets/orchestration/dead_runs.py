"""Runs whose process was killed: without help, Dagster would show them as running for ever."""

from __future__ import annotations

import os
import socket

import dagster as dg

_PID_TAG, _HOST_TAG = "dqe/pid", "dqe/host"
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def process_tags() -> dict[str, str]:
    """Run tags that say which process a run is in."""
    return {_PID_TAG: str(os.getpid()), _HOST_TAG: socket.gethostname()}


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this machine whose process is gone as failed; returns their ids.

    Otherwise they would keep their places in the pools, and later runs would wait for them.
    """
    host, dead = socket.gethostname(), []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        pid = _process_of(instance, run)
        if run.tags.get(_HOST_TAG, host) == host and pid is not None and not _is_alive(pid):
            instance.report_run_failed(run, "The process was killed. What it had finished is in the store.")
            # What it held in the pools would be held for ever.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            dead.append(run.run_id)
    return dead


def _process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """The process of a run: of the command line by its tag, of the UI by what Dagster logs when it starts one."""
    if _PID_TAG in run.tags:
        return int(run.tags[_PID_TAG])
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        if event is not None and "pid" in event.engine_event_data.metadata:
            return int(str(event.engine_event_data.metadata["pid"].value))
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
