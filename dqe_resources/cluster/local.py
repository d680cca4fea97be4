"""Workers that are processes of this machine."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

from pydantic import Field

from dqe_resources.cache import data_directory
from dqe_resources.captioners.served_process import gpus
from dqe_resources.cluster.protocol import DEFAULT, Cluster, Done, Failed, LostError, Worker, WorkersError
from dqe_resources.cluster.work import perform
from dqe_resources.parallel import limit_cores
from dqe_resources.processes import below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.context import ForkServerProcess

    from dqe_resources.cluster.protocol import Said, Task

_READY = "ready"
_END_SECONDS = 2.0
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

_starting = threading.Lock()


class LocalCluster(Cluster):
    """Workers that are processes of this machine. They share its cores, and each has a GPU if there are some.

    Attributes:
        workers: How many; by default one for 4 cores. Each takes the memory of a run: see docs/cluster.md.
    """

    kind: ClassVar[str] = "local"
    is_here: ClassVar[bool] = True
    workers: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 4))

    @property
    def counts(self) -> Mapping[str, int]:
        """All are of one kind."""
        return {DEFAULT: self.workers}

    def start(
        self,
        kind: str,  # noqa: ARG002 - there is one kind
        preload: str,
        place: int,
        is_wanted: Callable[[], bool],  # noqa: ARG002 - it takes seconds
    ) -> Worker:
        """As ``Cluster.start``."""
        visible = _visible_gpus()
        gpu = {_VISIBLE_GPUS: visible[place % len(visible)]} if visible else {}
        cores = max(1, (os.cpu_count() or 1) // self.workers)
        environment = {**os.environ, "DQE_DATA": str(data_directory()), **gpu}
        return _LocalWorker(cores, environment, preload)


def _visible_gpus() -> list[str]:
    said = os.environ.get(_VISIBLE_GPUS)
    return [one.strip() for one in said.split(",") if one.strip()] if said else [str(one.index) for one in gpus()]


class _LocalWorker(Worker):
    """A process, and the pipe to it. It is its own pipe: no other worker waits for what it holds as it is killed."""

    def __init__(self, cores: int, environment: Mapping[str, str], preload: str) -> None:
        self.host = socket.gethostname()
        context = get_context("forkserver")
        # What all need is loaded once, in the process that they are forked from.
        context.set_forkserver_preload([preload])
        with _starting:
            mine, theirs = context.Pipe()
            # Its output goes where that of this process goes now: to the terminal, or to the log of Dagster's step.
            outputs = tuple(Connection(os.dup(stream)) for stream in (1, 2))
            self._process: ForkServerProcess = context.Process(
                target=serve, args=(theirs, outputs, cores, environment, Path.cwd()), name="dqe worker"
            )
            with _deaf():
                self._process.start()
            theirs.close()
            for output in outputs:
                output.close()
        self._pipe = mine
        self._closing = threading.Lock()
        self.pid = self._process.pid or 0
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            raise WorkersError(f"a worker ended as it was started: {self._how_it_ended()}") from None

    def do(self, task: Task, say: Callable[[Said], None]) -> Done | Failed:
        """As ``Worker.do``."""
        try:
            self._pipe.send(task)
            while not isinstance(said := self._pipe.recv(), Done | Failed):
                say(said)
        except (EOFError, OSError):
            raise LostError(self._how_it_ended()) from None
        return said

    def _how_it_ended(self) -> str:
        self._process.join(_END_SECONDS)
        code = self._process.exitcode
        if code is None:
            return f"process {self.pid} no longer answers"
        if code >= 0:
            return f"process {self.pid} ended with exit code {code}"
        memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return f"process {self.pid} was ended by {signal.Signals(-code).name}{memory}"

    def end(self) -> None:
        """As ``Worker.end``."""
        with self._closing:
            # It ends once nobody is at the other end of its pipe, and what it has started with it.
            with suppress(OSError):
                self._pipe.close()
            self._process.join(_END_SECONDS)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are begun here wait with Ctrl-C, which else would end one before it ignores that."""
    # As it is begun, it lets Ctrl-C in again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(
    pipe: Connection, outputs: tuple[Connection, Connection], cores: int, environment: Mapping[str, str], folder: Path
) -> NoReturn:
    """What a worker does from its beginning to its end, which comes when nobody is at the other end of its pipe.

    Args:
        pipe: gives tasks, and takes what is said and the results.
        outputs: where its standard output and its errors go.
        cores: how many it may keep busy.
        environment: the environment variables.
        folder: the working directory.
    """
    # Ctrl-C reaches all processes of a terminal: who started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for stream, output in enumerate(outputs, 1):
        os.dup2(output.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    limit_cores(cores)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, tasks), daemon=True).start()
    sending = threading.Lock()

    def send(said: Any) -> None:
        try:
            with sending:
                pipe.send(said)
        except OSError:
            _end()

    send(_READY)
    while True:
        send(perform(tasks.get(), send))


def _receive(pipe: Connection, tasks: queue.SimpleQueue[Task]) -> NoReturn:
    """Take tasks while another is done, so that the end of who gives them is seen whatever this process does."""
    while True:
        try:
            tasks.put(pipe.recv())
        except (EOFError, OSError, pickle.UnpicklingError):
            _end()


def _end() -> NoReturn:
    """End this process, and what it has started, without a word: nobody is there to be told."""
    for one in below(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    os._exit(0)
