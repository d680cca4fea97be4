"""How shards are made: one after another in this process, or side by side by workers."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from dqe_assets.core.stage import MODEL_POOL
from dqe_resources import progress
from dqe_resources.cluster import Log, Task, crew_of
from dqe_resources.errors import DataQualityError, WholeRunError
from dqe_resources.store import StorageError, Store, StoredPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from dqe_assets.core.stage import Stage
    from dqe_assets.core.work import CheckResult
    from dqe_resources.cluster import Cluster, Crew

Made: TypeAlias = tuple[StoredPartition, "Mapping[str, Any]", "dict[str, CheckResult]"]
"""What ``Stage.make`` returns."""

Problems: TypeAlias = "dict[str, Exception | Mapping[str, str]]"
"""What went wrong with partitions, by their keys: what was raised, or what each blocking check says that failed."""


@dataclass(frozen=True)
class ShardWorkers:
    """The workers that shards are given to.

    Attributes:
        cluster: which they are.
        stages: gives all stages, in a worker too: it can be pickled.
        problems: is told what goes wrong.
    """

    cluster: Cluster
    stages: partial[list[Stage]]
    problems: Problems = field(default_factory=dict)

    def crew(self) -> AbstractContextManager[Crew]:
        """The workers, which end with whoever of this process has asked for them first."""
        return crew_of(self.cluster, self.stages.func.__module__)

    def note(self, key: str | None, made: Made | Exception) -> None:
        """Tell ``problems`` what went wrong with a partition, if anything did that concerns it alone."""
        if isinstance(made, Exception):
            if key and not isinstance(made, WholeRunError):
                self.problems[key] = made
            return
        stored, _, results = made
        if key and stored.stamp.failed_checks:
            self.problems[key] = {name: results[name].description for name in stored.stamp.failed_checks}


@dataclass(frozen=True)
class Making:
    """What is to be made of a stage, and with what.

    Attributes:
        stage: the stage.
        arguments: the resources that it takes, by parameter.
        store: where its inputs are.
        log: writes a line to the run's log.
        force: whether what is current is made again.
        here: makes a partition in this process.
    """

    stage: Stage
    arguments: Mapping[str, Any]
    store: Store
    log: Callable[[str], None]
    force: bool
    here: Callable[[str | None], Made]

    def outcomes(
        self,
        keys: Sequence[str | None],
        workers: ShardWorkers | None,
        is_wanted: Callable[[str | None], bool],
    ) -> Generator[tuple[str | None, Made | Exception]]:
        """Each partition as it is made, or what was raised.

        What asks a server, opens the collection, or is over all shards is made in this process, one after another: so
        limits that are of a process hold.

        Args:
            keys: the partitions.
            workers: who makes them; None for this process.
            is_wanted: whether a partition is still wanted when it is its turn.
        """
        given = [key for key in keys if key and self._is_given(key)] if workers else []
        if workers and given:
            with workers.crew() as crew:
                yield from self._by(crew, given, workers, is_wanted)
        for key in keys:
            if key not in given and is_wanted(key):
                made = _tried(partial(self.here, key))
                if workers:
                    workers.note(key, made)
                yield key, made

    def _is_given(self, key: str) -> bool:
        if not self.stage.partitioned or self.stage.pool not in {None, MODEL_POOL}:
            return False
        try:
            return not self.stage.is_made_apart(self.stage.work(self.store, key, ()), self.arguments)
        except WholeRunError:
            raise
        except DataQualityError:
            return False  # to make it raises the same

    def _by(
        self,
        crew: Crew,
        keys: Sequence[str],
        workers: ShardWorkers,
        is_wanted: Callable[[str | None], bool],
    ) -> Iterator[tuple[str, Made | Exception]]:
        begin = pickle.dumps(partial(_maker, workers.stages, self.stage.name, dict(self.arguments), self.store.root))
        heard: SimpleQueue[Log | tuple[str, Made | Exception] | None] = SimpleQueue()
        rest = deque(keys)

        def hear(said: progress.Step | Log) -> None:
            if isinstance(said, Log):
                heard.put(said)
            else:
                progress.report(said)

        def give(key: str) -> Made:
            wanted = Wanted(key, self.force, self._written_at(key))
            return crew.do(Task(self.stage.name, key, self.stage.pool, begin, wanted), hear)

        def give_out() -> None:
            # The crew raises KeyboardInterrupt once it is closed.
            with suppress(IndexError, KeyboardInterrupt):
                while True:
                    key = rest.popleft()
                    if is_wanted(key):
                        heard.put((key, _tried(partial(give, key))))
            heard.put(None)

        givers = [threading.Thread(target=give_out, daemon=True) for _ in range(min(crew.at_once, len(keys)))]
        for giver in givers:
            giver.start()
        try:
            for key, made in _until_all_end(heard, len(givers), self.log):
                workers.note(key, made)
                yield key, made
        finally:
            rest.clear()

    def _written_at(self, key: str) -> datetime | None:
        """When what is to be made again was written: a worker then knows whether that was done."""
        with suppress(StorageError):
            if self.force and (stored := self.store.get(self.stage.name, key)):
                return stored.written_at
        return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker is to make of a stage.

    Attributes:
        key: the partition.
        force: whether it is made again if it is current.
        written_at: when what is to be made again was written.
    """

    key: str
    force: bool
    written_at: datetime | None


def _until_all_end(
    heard: SimpleQueue[Log | tuple[str, Made | Exception] | None], givers: int, log: Callable[[str], None]
) -> Iterator[tuple[str, Made | Exception]]:
    """What comes of the partitions, until each of those who give them out has said None."""
    while givers:
        match heard.get():
            case None:
                givers -= 1
            case Log(text):
                log(text)
            case outcome:
                yield outcome


def _tried(make: Callable[[], Made]) -> Made | Exception:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - who asked for it decides
        return error


def _maker(
    stages: Callable[[], Iterable[Stage]], name: str, arguments: Mapping[str, Any], root: str
) -> Callable[[Wanted, bool, Callable[[str], None]], Made]:
    """In a worker: what makes partitions of a stage."""
    stage = next(one for one in stages() if one.name == name)
    return partial(_make, stage, arguments, Store(root))


def _make(
    stage: Stage,
    arguments: Mapping[str, Any],
    store: Store,
    wanted: Wanted,
    is_again: bool,
    log: Callable[[str], None],
) -> Made:
    force = wanted.force
    if force and is_again:
        with suppress(StorageError):
            stored = store.get(stage.name, wanted.key)
            # The worker that was given it before had written it: it is not made twice.
            force = stored is None or stored.written_at == wanted.written_at
    return stage.make(stage.work(store.as_it_is_now(), wanted.key, (), log), arguments, force=force)
