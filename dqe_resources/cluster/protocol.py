"""What workers are given and what they say, whatever kind they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from pydantic import Field

from dqe_resources.configurable import Configurable
from dqe_resources.errors import DataQualityError, WholeRunError
from dqe_resources.progress import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT = "default"
"""The kind of worker that a task goes to whose pool has none of its own."""


class KilledError(DataQualityError):
    """A task has ended as many workers as it may."""


class WorkersError(WholeRunError):
    """There are no workers: says why they cannot be started."""


class LostError(Exception):
    """A worker has ended before its task: says how."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given.

    Attributes:
        asset: of what it makes something, for people.
        partition: what it makes, for people.
        pool: which kind of worker it is for.
        begin: a pickled function without parameters, which gives a function ``(arguments, is_again, log) -> result``. A
            worker calls it once for all tasks that have the same: it keeps what that has loaded.
        arguments: of that function; can be pickled, and so can the result.
        is_again: whether a worker that was given it before has ended: perhaps it had finished.
    """

    asset: str
    partition: str
    pool: str | None
    begin: bytes
    arguments: Any
    is_again: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.asset}, {self.partition}"


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log of the run."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a task."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """What a task has raised, and its traceback as text."""

    error: Exception
    traceback: str


Said: TypeAlias = Step | Log
"""What a worker says while it works."""


class Worker(ABC):
    """A process that does one task at a time, as who gives it tasks sees it.

    Attributes:
        host: the machine that it is on.
        pid: its number there.
    """

    host: str
    pid: int

    @abstractmethod
    def do(self, task: Task, say: Callable[[Said], None]) -> Done | Failed:
        """Have it do a task, and hand on what it says meanwhile.

        Raises:
            LostError: it has ended.
        """

    @abstractmethod
    def end(self) -> None:
        """End it, whatever it does."""


class Cluster(Configurable):
    """Who makes shards: workers, each of which loads a model once and makes one shard at a time.

    Attributes:
        attempts: By so many ends of the worker that makes it, a shard fails; until then it is given to another one.
    """

    attempts: Annotated[int, Field(ge=1)] = 3
    is_here: ClassVar[bool] = False
    """Whether all workers are on this machine."""

    @property
    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """How many workers there are of each kind, by the pool that they are for; ``default`` for all others."""

    @abstractmethod
    def start(self, kind: str, preload: str, place: int, is_wanted: Callable[[], bool]) -> Worker:
        """Start a worker, and wait until it can be given a task.

        Args:
            kind: one of ``counts``.
            preload: a module that all tasks need.
            place: its number among those of its kind, from 0. No other that lives has it.
            is_wanted: whether it is still waited for.

        Raises:
            WorkersError: it cannot be started; says why.
        """

    def leave(self) -> None:
        """Leave what was joined to start workers, once all have ended and nobody waits for one."""
