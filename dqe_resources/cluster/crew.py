"""Who is given which task: idle workers, started as they are needed, and others in the place of those that end."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dqe_resources.cluster.board import Board
from dqe_resources.cluster.protocol import DEFAULT, Failed, KilledError, Log, LostError, WorkersError
from dqe_resources.progress import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dqe_resources.cluster.protocol import Cluster, Done, Said, Task, Worker

_SAY_EVERY_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 1.0
_SETTLE_SECONDS = 10.0


class WorkerTracebackError(Exception):
    """The traceback of an error in the worker that raised it."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Crew:
    """The workers of a cluster. Any number of threads may give them tasks at once."""

    def __init__(self, cluster: Cluster, preload: str) -> None:
        """No worker is started yet.

        Args:
            cluster: which workers.
            preload: a module that all tasks need.
        """
        self._cluster = cluster
        self._attempts = cluster.attempts
        self._board = Board()
        self._kinds = {
            kind: _Kind(kind, count, partial(cluster.start, kind, preload)) for kind, count in cluster.counts.items()
        }

    @property
    def at_once(self) -> int:
        """How many tasks they do at once."""
        return sum(kind.count for kind in self._kinds.values())

    def do(self, task: Task, say: Callable[[Said], None]) -> Any:
        """Have a worker do a task, once one is idle; returns its result.

        Args:
            task: what is to be done.
            say: is called, in this thread, with what the worker says meanwhile.

        Raises:
            KilledError: as many workers as may have ended over it.
            WorkersError: there are no workers.
            KeyboardInterrupt: the crew was closed.
            Exception: whatever the task raises, caused by the worker's traceback.
        """
        kind = self._kinds.get(task.pool or DEFAULT) or self._kinds[DEFAULT]
        losses: list[str] = []
        while True:
            worker = kind.take(lambda text: say(Log(f"{task.name}: {text}")))
            done: Done | Failed | None = None
            try:
                with self._board.shown(worker, task, len(losses) + 1) as shown:

                    def hear(said: Said, shown: Callable[[Step], None] = shown) -> None:
                        if isinstance(said, Step):
                            shown(said)
                        say(said)

                    done = worker.do(replace(task, is_again=bool(losses)), hear)
            except LostError as error:
                if kind.is_closed:
                    raise KeyboardInterrupt from None
                losses.append(str(error))
            finally:
                kind.put(worker, is_well=done is not None)
            if isinstance(done, Failed):
                raise done.error from WorkerTracebackError(done.traceback)
            if done is not None:
                return done.result
            if len(losses) == self._attempts:
                raise KilledError(
                    f"{task.name}: {len(losses)} workers ended while they made it (the last: {losses[-1]}), so it is "
                    "given to no other; look at what is special about it, or at the memory of the machine"
                )
            say(Log(f"{task.name}: its worker ended ({losses[-1]}); another one is given it"))

    def close(self) -> None:
        """End all workers, whatever they do."""
        for kind in self._kinds.values():
            kind.close()
        deadline = time.monotonic() + _SETTLE_SECONDS
        for kind in self._kinds.values():
            kind.settle(deadline)
        self._cluster.leave()
        self._board.remove()


class _Kind:
    """The workers of one kind."""

    def __init__(self, name: str, count: int, start: Callable[[int, Callable[[], bool]], Worker]) -> None:
        self.count = count
        self.is_closed = False
        self._name, self._start = name, start
        self._free = list(reversed(range(count)))
        self._places: dict[int, int] = {}
        self._idle: list[Worker] = []
        self._live: list[Worker] = []
        self._away = 0
        """How many threads start a worker, have one work, or end one."""
        self._failure: Exception | None = None
        self._changed = threading.Condition()

    def take(self, say: Callable[[str], None]) -> Worker:
        """An idle worker. Where there is none, and fewer than there may be, one more is started.

        Raises:
            WorkersError: none can be started.
            KeyboardInterrupt: they are closed.
        """
        waits_since = time.monotonic()
        with self._changed:
            while True:
                if self.is_closed:
                    raise KeyboardInterrupt
                if self._idle:
                    self._away += 1
                    # The one that worked last: what it has loaded is at hand.
                    return self._idle.pop()
                if self._failure is not None:
                    if not self._live:
                        raise self._failure
                elif self._free:
                    place = self._free.pop()
                    self._away += 1
                    # It may take long, or for ever: meanwhile another one may become idle.
                    threading.Thread(target=self._begin, args=(place,), daemon=True).start()
                self._changed.wait(_LOOK_EVERY_SECONDS)
                if time.monotonic() - waits_since >= _SAY_EVERY_SECONDS:
                    waits_since = time.monotonic()
                    say(f"waits for a worker of the kind {self._name}; {len(self._live)} of {self.count} are there")

    def _begin(self, place: int) -> None:
        worker, failure = None, None
        try:
            worker = self._start(place, lambda: not self.is_closed)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits raises it
            failure = error if isinstance(error, WorkersError) else WorkersError(f"no worker can be started: {error}")
        with self._changed:
            if worker is not None and not self.is_closed:
                self._places[id(worker)] = place
                self._live.append(worker)
                self._idle.append(worker)
                worker = None
            else:
                self._free.append(place)
                self._failure = failure
            self._changed.notify_all()
        if worker is not None:
            worker.end()
        self._is_back()

    def put(self, worker: Worker, *, is_well: bool) -> None:
        """A worker is idle again, or has ended, or is to end."""
        with self._changed:
            if is_well and not self.is_closed:
                self._idle.append(worker)
                self._away -= 1
                self._changed.notify()
                return
            if worker in self._live:
                self._live.remove(worker)
                self._free.append(self._places.pop(id(worker)))
            self._changed.notify_all()
        worker.end()
        self._is_back()

    def _is_back(self) -> None:
        with self._changed:
            self._away -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all."""
        with self._changed:
            self.is_closed = True
            live, self._live, self._idle = self._live, [], []
            self._changed.notify_all()
        for worker in live:
            worker.end()

    def settle(self, deadline: float) -> None:
        """Once they are closed, wait until no thread starts one, has one work or ends one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._away, max(0.0, deadline - time.monotonic()))


_open: dict[str, tuple[Crew, int]] = {}
_opening = threading.Lock()


@contextmanager
def crew_of(cluster: Cluster, preload: str) -> Iterator[Crew]:
    """The workers of a cluster: those of this process, or else new ones, which end with whoever opened them first.

    Args:
        cluster: which workers.
        preload: a module that all tasks need.
    """
    key = json.dumps([cluster.kind, cluster.model_dump(mode="json")])
    with _opening:
        crew, users = _open.get(key) or (Crew(cluster, preload), 0)
        _open[key] = crew, users + 1
    try:
        yield crew
    finally:
        with _opening:
            crew, users = _open[key]
            _open[key] = crew, users - 1
            if users == 1:
                del _open[key]
        if users == 1:
            crew.close()
