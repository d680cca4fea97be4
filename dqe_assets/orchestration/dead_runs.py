"""Runs whose process was killed: without help, Dagster would show them as running for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import dagster as dg

from dqe_assets.core.asset import HOST_TAG
from dqe_resources.processes import process, processes

_PID_TAG, _BEGAN_TAG = "dqe/pid", "dqe/began"
_SLACK_SECONDS = 60
"""By so much the clock may have been set back since a run began."""

_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def process_tags() -> dict[str, str]:
    """Run tags that say which process a run is in."""
    mine = process(os.getpid())
    began = {_BEGAN_TAG: mine.began} if mine else {}
    return {_PID_TAG: str(os.getpid()), HOST_TAG: socket.gethostname(), **began}


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this machine whose process is gone as failed; returns their ids.

    Otherwise they would keep their places in the pools, and later runs would wait for them. A run that does not say
    which machine it is on may be on any: of such runs, and of those of other machines, Dagster's run monitoring takes
    care.
    """
    host, dead = socket.gethostname(), []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        if run.tags.get(HOST_TAG) == host and _is_dead(instance, run):
            instance.report_run_failed(run, "The process was killed. What it had finished is in the store.")
            # What it held in the pools would be held for ever.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            _end_log_followers(run.run_id)
            dead.append(run.run_id)
    return dead


def _is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process of a run has ended; another may have its number since. Unknown is not dead."""
    if _PID_TAG in run.tags:
        found = process(int(run.tags[_PID_TAG]))
        return found is None or run.tags.get(_BEGAN_TAG, found.began) != found.began
    started = _started_by_dagster(instance, run)
    if started is None:
        return False
    pid, at = started
    found = process(pid)
    return found is None or found.started_at > at + _SLACK_SECONDS


def _started_by_dagster(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, float] | None:
    """The process that Dagster has started for a run, as it logs it, and when it was there, in seconds since 1970."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        if event is not None and "pid" in event.engine_event_data.metadata:
            return int(str(event.engine_event_data.metadata["pid"].value)), entry.timestamp
    return None


def _end_log_followers(run_id: str) -> None:
    """End the processes that show the output of a run's steps as it is written: they would wait for more for ever."""
    for one in processes():
        command = one.command
        if command[:1] == ["tail"] and f"/{run_id}/" in command[-1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGTERM)
