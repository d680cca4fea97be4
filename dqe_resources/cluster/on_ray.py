"""Workers on the machines of a Ray cluster."""

from __future__ import annotations

import os
import queue
import socket
import threading
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from dqe_resources.cache import data_directory
from dqe_resources.cluster.protocol import DEFAULT, Cluster, Done, Failed, LostError, Worker, WorkersError
from dqe_resources.cluster.work import perform
from dqe_resources.configurable import Strict
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dqe_resources.cluster.protocol import Said, Task

_HANDED_ON = ("DQE_", "AWS_", "AZURE_", "GOOGLE_", "FSSPEC_", "HF_")
"""What the names of environment variables begin with that every worker gets: settings and credentials."""


_LOOK_EVERY_SECONDS = 0.2


class RayWorkers(Strict):
    """Workers of one kind.

    Attributes:
        count: How many.
        num_cpus: Cores that Ray keeps for each, and that it uses.
        num_gpus: GPUs that Ray keeps for each.
    """

    count: Annotated[int, Field(ge=1)]
    num_cpus: Annotated[int, Field(ge=1)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0


class RayCluster(Cluster):
    """Workers on the machines of a Ray cluster. Each machine has this platform, and reaches the store.

    Attributes:
        address: Of the cluster, as Ray takes it: HOST:6379, or auto for the one that this machine is of.
        workers: The workers, by the pool of the stages that they are for: ``model`` for those that run a model, and
            ``default`` for all others.
        environment: Names of environment variables that workers get too. They always get those whose names begin with
            DQE_, AWS_, AZURE_, GOOGLE_, FSSPEC_ or HF_.
    """

    kind: ClassVar[str] = "ray"
    address: str = "auto"
    workers: dict[str, RayWorkers]
    environment: list[str] = Field(default_factory=list)

    @field_validator("workers")
    @classmethod
    def _some_are_for_all(cls, workers: dict[str, RayWorkers]) -> dict[str, RayWorkers]:
        if DEFAULT not in workers:
            msg = f"needs workers of the kind '{DEFAULT}', which make what no other kind is for"
            raise ValueError(msg)
        return workers

    @property
    def counts(self) -> Mapping[str, int]:
        """As configured."""
        return {kind: one.count for kind, one in self.workers.items()}

    def start(
        self,
        kind: str,
        preload: str,
        place: int,  # noqa: ARG002 - Ray chooses the machine
        is_wanted: Callable[[], bool],
    ) -> Worker:
        """As ``Cluster.start``. It waits as long as no machine has what the worker needs."""
        ray = self._joined()
        wanted = self.workers[kind]
        actor = (
            ray.remote(_Actor)
            .options(
                num_cpus=wanted.num_cpus,
                num_gpus=wanted.num_gpus,
                # What was lost is given out again by who gave it out: it knows what was written.
                max_restarts=0,
                max_task_retries=0,
                runtime_env={"env_vars": self._handed_on()},
            )
            .remote(wanted.num_cpus, preload)
        )
        where = actor.where.remote()
        try:
            # It may wait for a machine for ever, and Ray is not to be left meanwhile: that ends the process.
            while not ray.wait([where], timeout=_LOOK_EVERY_SECONDS)[0]:
                if not is_wanted():
                    ray.kill(actor)
            host, pid = ray.get(where)
        except ray.exceptions.RayError as error:
            raise WorkersError(f"cluster: a worker ended as it was started: {one_line(error)}") from error
        return _RayWorker(actor, host, pid)

    def _joined(self) -> Any:
        """Ray, of whose cluster this process is."""
        try:
            import ray
        except ImportError as error:
            raise WorkersError("cluster: kind ray needs the package ray; install it: pip install '.[ray]'") from error
        with _joining:
            if not ray.is_initialized():
                try:
                    ray.init(address=self.address, log_to_driver=True, configure_logging=False)
                except (ConnectionError, RuntimeError, ValueError) as error:
                    raise WorkersError(
                        f"cluster: no Ray cluster at {self.address} ({one_line(error)}); start one: ray start "
                        "--head; or have this machine join it: ray start --address HOST:6379"
                    ) from error
                _joined_here.set()
        return ray

    def _handed_on(self) -> dict[str, str]:
        found = {
            name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON) or name in self.environment
        }
        return {**found, "DQE_DATA": str(data_directory())}

    def leave(self) -> None:
        """Leave the cluster: workers that still wait for a machine are no longer wanted."""
        with _joining:
            if _joined_here.is_set():
                import ray

                ray.shutdown()
                _joined_here.clear()


_joining = threading.Lock()
_joined_here = threading.Event()
"""Whether it was this module that joined a cluster: a run that Ray has started is of one before."""


class _RayWorker(Worker):
    """An actor of Ray."""

    def __init__(self, actor: Any, host: str, pid: int) -> None:
        self.host, self.pid = host, pid
        self._actor = actor

    def do(self, task: Task, say: Callable[[Said], None]) -> Done | Failed:
        """As ``Worker.do``."""
        import ray

        try:
            for reference in self._actor.do.options(name=task.name, num_returns="streaming").remote(task):
                said = ray.get(reference)
                if isinstance(said, Done | Failed):
                    return said
                say(said)
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise LostError(f"process {self.pid} of {self.host}: {one_line(error)}") from None
        raise LostError(f"process {self.pid} of {self.host} said no more")

    def end(self) -> None:
        """As ``Worker.end``."""
        import ray

        if ray.is_initialized():
            ray.kill(self._actor)


class _Actor:
    """What a worker is, in its own process."""

    def __init__(self, cores: int, preload: str) -> None:
        import importlib

        from dqe_resources.parallel import limit_cores

        limit_cores(cores)
        importlib.import_module(preload)

    def where(self) -> tuple[str, int]:
        """Its machine, and its number there."""
        return socket.gethostname(), os.getpid()

    def do(self, task: Task) -> Iterator[Said | Done | Failed]:
        """What it says while it does a task, and then what comes of it."""
        heard: queue.SimpleQueue[Said | Done | Failed] = queue.SimpleQueue()
        # In a thread of its own: what it says is sent on while it works.
        threading.Thread(target=lambda: heard.put(perform(task, heard.put)), daemon=True).start()
        while True:
            said = heard.get()
            yield said
            if isinstance(said, Done | Failed):
                return
