"""Who works on what now: a file in the data folder for each process that gives out tasks."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_resources.cache import data_directory
from dqe_resources.errors import DataQualityError
from dqe_resources.processes import process
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dqe_resources.cluster.protocol import Task, Worker
    from dqe_resources.progress import Step

_WRITE_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AtWork:
    """A worker that works.

    Attributes:
        host: its machine.
        pid: its number there.
        given_by: machine and number of the process that gave it its task.
        asset: of what it makes something.
        partition: what it makes.
        since: when it was given it, in seconds since 1970.
        done: how many samples are done.
        total: of how many; 0 if that is not known.
        attempt: how many workers were given it, this one included.
    """

    host: str
    pid: int
    given_by: tuple[str, int]
    asset: str
    partition: str
    since: float
    done: int
    total: int
    attempt: int


class Board:
    """The file of this process, which only it writes."""

    def __init__(self) -> None:
        mine = process(os.getpid())
        self._of = {"host": socket.gethostname(), "pid": os.getpid(), "began": mine.began if mine else None}
        self._path = _folder() / f"{os.getpid()}-{id(self):x}.json"
        self._rows: dict[int, dict[str, Any]] = {}
        self._written = 0.0
        self._is_removed = False
        self._lock = threading.Lock()

    @contextmanager
    def shown(self, worker: Worker, task: Task, attempt: int) -> Iterator[Callable[[Step], None]]:
        """Show, as long as this lasts, that a worker has a task; what it gives is to be told how far that is."""
        row = {
            "host": worker.host,
            "pid": worker.pid,
            "asset": task.asset,
            "partition": task.partition,
            "since": time.time(),
            "done": 0,
            "total": 0,
            "attempt": attempt,
        }

        def tell(step: Step) -> None:
            row.update(done=step.done, total=step.total)
            if time.monotonic() - self._written >= _WRITE_EVERY_SECONDS:
                self._write()

        with self._lock:
            self._rows[id(row)] = row
        self._write()
        try:
            yield tell
        finally:
            with self._lock:
                del self._rows[id(row)]
            self._write()

    def _write(self) -> None:
        with self._lock:
            if self._is_removed:
                return
            text = json.dumps({**self._of, "workers": list(self._rows.values())})
            self._written = time.monotonic()
            # It is only for people: no work fails for it.
            with suppress(DataQualityError):
                replace_file(self._path, lambda target: target.write(text.encode()))

    def remove(self) -> None:
        """Nobody works any more."""
        with self._lock, suppress(OSError):
            self._is_removed = True
            self._path.unlink(missing_ok=True)


def at_work() -> list[AtWork]:
    """All workers that work now, of all processes that use the data folder; the longest at work first.

    A process or worker of this machine that was killed is not among them, and neither is what a killed process said.
    """
    here, found = socket.gethostname(), list[AtWork]()
    for path in _folder().glob("*.json"):
        try:
            said = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # it has just ended
        if said["host"] == here and not _lives(said["pid"], said["began"]):
            path.unlink(missing_ok=True)
            continue
        for row in said["workers"]:
            if row["host"] != here or process(row["pid"]) is not None:
                found.append(AtWork(given_by=(said["host"], said["pid"]), **row))
    return sorted(found, key=lambda one: one.since)


def _lives(pid: int, began: str | None) -> bool:
    found = process(pid)
    return found is not None and began in {None, found.began}


def _folder() -> Path:
    return data_directory() / "workers"
