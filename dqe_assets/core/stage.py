"""A stage: a pure function that makes one partition of an asset, and everything that an asset needs around it.

That is: which inputs it reads, when its output is current, its checks, metadata and progress, and how it is stored.
This module knows nothing of Dagster: ``core/asset.py`` turns a stage into a Dagster asset.
"""

from __future__ import annotations

import gc
import inspect
import resource
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
from pydantic import BaseModel

from dqe_assets.core.work import (
    Batches,
    Check,
    CheckResult,
    Manifest,
    StartOverError,
    Work,
    facts_of,
    input_fingerprint,
    with_facts,
)
from dqe_resources import progress
from dqe_resources.errors import WholeRunError, of_whole_run
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import ReplacedError, Stamp, StorageError, Store, StoreAwayError, StoredPartition, TornError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dqe_assets.core.relations import Relations

MODEL_POOL = "model"
"""Pool of the steps that run a model."""

COLLECTION_POOL = "collection"
"""Pool of the steps that open the collection: the embedded one takes one process at a time."""

CAPTIONER_PREFIX = "captioner_"

SHARDS = "shards"
"""The partition set of the assets that are made for each shard of samples."""

TRAINING_RUNS = "training_runs"
"""The partition set of the assets that are made for each training run."""

_COLLECTED_EVERY = 20_000

_ATTEMPTS = 5
"""How often a partition is begun whose inputs others replace meanwhile."""

_MADE = {
    SHARDS: "is made for each shard",
    TRAINING_RUNS: "is made for each training run",
    None: "is made over all shards",
}

Output: TypeAlias = "pa.Table | Manifest"


@dataclass(frozen=True)
class Stage:
    """An asset of the platform. See ``stage`` for what the attributes mean.

    ``tables`` has the schema of every asset that is a table: the graph sets it, once it knows all stages.
    """

    name: str
    function: Callable[..., pa.Table | Batches | Manifest]
    group: str
    kinds: frozenset[str]
    code_version: str
    description: str
    inputs: tuple[str, ...]
    unpartitioned_inputs: tuple[str, ...]
    run_inputs: tuple[str, ...]
    partition_set: str | None
    depends: Callable[..., Any] | None
    schema: pa.Schema | None
    checks: tuple[Check, ...]
    resources: Mapping[str, str]
    metadata: Callable[..., Mapping[str, Any]] | None
    pool: str | None
    signature: Callable[..., Any] | None
    is_valid: Callable[..., bool] | None
    apart: Callable[..., bool] | None
    content: Callable[[pa.Table], Any] | None
    relations: Relations | None
    signals: Mapping[str, str]
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)

    @property
    def partitioned(self) -> bool:
        """Whether it is made for each shard."""
        return self.partition_set == SHARDS

    @property
    def of_runs(self) -> bool:
        """Whether it is made for each training run."""
        return self.partition_set == TRAINING_RUNS

    def arguments(self, resources: Mapping[str, Any]) -> dict[str, Any]:
        """The resources that its function, checks and metadata take, by parameter.

        A stage that needs a single setting names it (``"duplicates.min_jaccard"``): other settings then change nothing
        for it.
        """
        return {parameter: _at(resources, path) for parameter, path in self.resources.items()}

    def work(
        self, store: Store, partition: str | None, shards: Sequence[str], log: Any = None, runs: Sequence[str] = ()
    ) -> Work:
        """What the function gets to make a partition; for an asset over all shards, the shards whose inputs exist.

        An asset that reads no shard gets no shards, and stays current when shards come and go; so with training runs.
        """
        readable = ("raw_samples", *self.inputs, *self.unpartitioned_inputs, *self.run_inputs)
        tables = {name: self.tables[name] for name in readable if name in self.tables}
        tables |= {self.name: self.schema} if self.schema is not None else {}
        if partition is not None:
            own = (partition,)
            work = Work(
                self.name, partition, () if self.of_runs else own, store, tables, runs=own if self.of_runs else ()
            )
        else:
            of_shards, no_shards = _with_inputs(store, self.inputs, shards)
            of_runs, no_runs = _with_inputs(store, self.run_inputs, runs)
            work = Work(self.name, None, of_shards, store, tables, no_shards, of_runs, no_runs)
        return replace(work, log=log) if log else work

    def fingerprint(self, work: Work, arguments: Mapping[str, Any]) -> str:
        """Hex digest of everything that goes into a partition.

        Raises:
            StorageError: an input is not there, or failed a check.
        """
        injected = {name: _signature_of(arguments[name]) for name in _parameters(self.function, 1)}
        return fingerprint(
            self.name,
            self.code_version,
            self.schema.to_string() if self.schema is not None else None,
            {name: found for name, found in injected.items() if found is not None},
            _call(self.signature, arguments, work) if self.signature else None,
            _fingerprints(work, self.inputs, work.runs if self.of_runs else work.shards),
            _call(self.depends, arguments, work)
            if self.depends
            else [input_fingerprint(work, asset, None) for asset in self.unpartitioned_inputs],
            *([_fingerprints(work, self.run_inputs, work.runs)] if self.run_inputs else []),
        )

    def is_made_apart(self, work: Work, arguments: Mapping[str, Any]) -> bool:
        """Whether a partition is made by the process of the run alone, though there are workers."""
        return self.apart is not None and bool(_call(self.apart, arguments, work))

    def current(self, work: Work, arguments: Mapping[str, Any]) -> StoredPartition | None:
        """The stored partition if making it again would give the same; otherwise None, so also if it is torn.

        Raises:
            StorageError: what is stored there cannot be read, or is not of this platform.
        """
        try:
            stored = work.store.get(self.name, work.partition)
        except TornError:
            return None
        if stored is None or stored.stamp.failed_checks:
            return None
        if self.is_valid is not None and not _call(self.is_valid, arguments, work, stored.stamp):
            return None
        try:
            expected = self.fingerprint(work, arguments)
        except StorageError:
            return None
        return stored if stored.stamp.fingerprint == expected else None

    def make(
        self, work: Work, arguments: Mapping[str, Any], *, force: bool = False
    ) -> tuple[StoredPartition, Mapping[str, Any], dict[str, CheckResult]]:
        """Make a partition, or find it current; returns what is stored, its metadata and the results of its checks.

        Raises:
            WholeRunError: nothing of the asset can be made in this run, whatever the partition.
            ReplacedError: again and again, another process replaced an input while it was read.
            Exception: whatever else the function or a check raises.
        """
        try:
            work = replace(work, store=work.store.looked_at_once)
            for _ in range(_ATTEMPTS - 1):
                with suppress(ReplacedError):
                    return self._make(work, arguments, force=force)
                work = replace(work, store=work.store.as_it_is_now())
            return self._make(work, arguments, force=force)
        except WholeRunError:
            raise
        except Exception as error:
            if (away := StoreAwayError.told_in(str(error))) is not None:
                raise away from error
            if (why := of_whole_run(error)) is not None:
                raise WholeRunError(why) from error
            raise

    def _make(
        self, work: Work, arguments: Mapping[str, Any], *, force: bool
    ) -> tuple[StoredPartition, Mapping[str, Any], dict[str, CheckResult]]:
        started = time.monotonic()
        stored = None if force else self.current(work, arguments)
        reused = stored is not None
        progress.report(progress.Step(self.name, work.partition, 0, 0))
        if stored is None:
            # Taken before the inputs are read: later changes must not count as inputs.
            version = self.fingerprint(work, arguments)
            with _uncollected():
                stored, output, results = self._made(replace(work, version=version, force=force), arguments)
            work.checkpoint.clear()
        else:
            output = self._stored_output(work, stored.stamp)
            results = self._check(work, output, arguments)
        seconds = time.monotonic() - started
        metadata = self._metadata(work, stored, output, arguments, seconds=seconds, reused=reused)
        rows = stored.stamp.rows
        outcome = "current" if reused else f"{rows:,} row{'' if rows == 1 else 's'}, {seconds:.1f} s"
        left_out = (*work.left_out, *work.runs_left_out)
        if left_out:
            outcome += f"; left out, as their inputs are missing or failed: {', '.join(left_out)}"
        not_passed = [check for check in self.checks if not results[check.name].passed]
        failed_now = [check.name for check in not_passed if check.blocking]
        if warned := [check.name for check in not_passed if not check.blocking]:
            outcome += f"; warning: {', '.join(warned)}"
        progress.report(
            progress.Step(
                self.name, work.partition, 1, 1, f"failed: {', '.join(failed_now)}" if failed_now else outcome
            )
        )
        return stored, metadata, results

    def _made(self, work: Work, arguments: Mapping[str, Any]) -> tuple[StoredPartition, Output, dict[str, CheckResult]]:
        """Make, check and store; returns the output without images, if it came in batches, and the results."""
        while True:
            with suppress(StartOverError):
                return self._store(work, _call(self.function, arguments, work), arguments)

    def _store(
        self, work: Work, made: pa.Table | Batches | Manifest, arguments: Mapping[str, Any]
    ) -> tuple[StoredPartition, Output, dict[str, CheckResult]]:
        if isinstance(made, Manifest):
            stamp, results = self._stamped(work, made, arguments)
            work.store.write_manifest(self.name, work.partition, stamp)
            output: Output = made
        elif isinstance(made, pa.Table):
            stamp, results = self._stamped(work, made, arguments)
            work.store.write_table(self.name, work.partition, made, work.tables[self.name], stamp)
            output = made
        else:
            output, results = self._store_batches(work, made, arguments)
        stored = work.store.get(self.name, work.partition)
        if stored is None:
            raise StorageError(f"{work.store.path(self.name, work.partition)}: vanished as soon as it was written")
        return stored, output, results

    def _store_batches(
        self, work: Work, batches: Batches, arguments: Mapping[str, Any]
    ) -> tuple[pa.Table, dict[str, CheckResult]]:
        """Write batches as they come: only the columns that are read afterwards, never images, stay in memory."""
        schema = work.tables[self.name]
        small: list[pa.RecordBatch] = []
        results: dict[str, CheckResult] = {}

        def passing() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                small.append(batch.select(self._looked_at))
                yield batch

        def stamp() -> Stamp:
            made, found = self._stamped(work, table(), arguments)
            results.update(found)
            return made

        def table() -> pa.Table:
            return pa.Table.from_batches(small, pa.schema([schema.field(name) for name in self._looked_at]))

        with closing(batches):
            work.store.write_batches(self.name, work.partition, passing(), schema, stamp)
        # Arrow holds on to what it has freed, in each thread: the next partition would begin with it.
        pa.default_memory_pool().release_unused()
        return table(), results

    def _stamped(
        self, work: Work, output: Output, arguments: Mapping[str, Any]
    ) -> tuple[Stamp, dict[str, CheckResult]]:
        results = self._check(work, output, arguments)
        failed = tuple(check.name for check in self.checks if check.blocking and not results[check.name].passed)
        if isinstance(output, Manifest):
            return Stamp(work.version, self.code_version, output.rows, failed, output.facts), results
        content = fingerprint(self.content(output)) if self.content else ""
        return Stamp(work.version, self.code_version, output.num_rows, failed, facts_of(output), content), results

    def _stored_output(self, work: Work, stamp: Stamp) -> Output:
        if self.schema is None:
            return Manifest(stamp.rows, stamp.facts)
        return with_facts(work.read(self.name, self._looked_at), stamp.facts)

    @property
    def _looked_at(self) -> list[str]:
        """The columns that checks and metadata read: all but those of images."""
        columns = self.schema or ()
        return [column.name for column in columns if column.name != "image" and not pa.types.is_binary(column.type)]

    def _check(self, work: Work, output: Output, arguments: Mapping[str, Any]) -> dict[str, CheckResult]:
        return {check.name: _call(check.run, arguments, work, output) for check in self.checks}

    def _metadata(
        self,
        work: Work,
        stored: StoredPartition,
        output: Output,
        arguments: Mapping[str, Any],
        *,
        seconds: float,
        reused: bool,
    ) -> Mapping[str, Any]:
        return {
            **(_call(self.metadata, arguments, work, output) if self.metadata else {}),
            **({"shards_left_out": list(work.left_out)} if work.left_out else {}),
            **({"runs_left_out": list(work.runs_left_out)} if work.runs_left_out else {}),
            f"dagster/{'partition_' if self.partition_set else ''}row_count": stored.stamp.rows,
            "dagster/uri": stored.path,
            "bytes": stored.bytes,
            "seconds": round(seconds, 3),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **_peak_gpu_memory(),
            "reused": reused,
            "fingerprint": stored.stamp.fingerprint,
        }


def stage(  # noqa: PLR0913
    *,
    kinds: Iterable[str],
    code_version: str,
    schema: pa.Schema | None = None,
    inputs: Iterable[str] = (),
    unpartitioned_inputs: Iterable[str] = (),
    run_inputs: Iterable[str] = (),
    name: str | None = None,
    partitioned: bool = True,
    partition_set: str = SHARDS,
    depends: Callable[..., Any] | None = None,
    checks: Iterable[Check] = (),
    resources: Mapping[str, str] | None = None,
    metadata: Callable[..., Mapping[str, Any]] | None = None,
    pool: str | None = None,
    signature: Callable[..., Any] | None = None,
    is_valid: Callable[..., bool] | None = None,
    apart: Callable[..., bool] | None = None,
    content: Callable[[pa.Table], Any] | None = None,
    relations: Relations | None = None,
    signals: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., pa.Table | Batches | Manifest]], Stage]:
    """Make a stage of a function ``(work, **resources) -> table, batches of a large table, or Manifest``.

    The group is called as the folder that the function is in. What the function takes after ``work`` are resources
    (models, the collection, slices of the settings); they are part of the fingerprint. Checks, metadata, ``signature``,
    ``depends``, ``is_valid`` and ``apart`` may take resources too, after their own parameters.

    Args:
        kinds: what it is made with, shown in the UI (at most three).
        code_version: to be raised when the function would give another output for the same inputs.
        schema: of the table; None if the function returns a Manifest.
        inputs: assets of its own partition set that it reads; for one over all shards, per-shard assets.
        unpartitioned_inputs: assets over all shards that it reads.
        run_inputs: for an asset over all shards, assets of each training run that it reads.
        name: of the asset; by default the function's.
        partitioned: made for each shard (or whatever ``partition_set`` says), or once over all of them.
        partition_set: what it is made for each of: ``SHARDS`` or ``TRAINING_RUNS``.
        depends: ``(work) -> what of unpartitioned_inputs decides a partition``; by default the fingerprint of each.
        checks: what must hold for each partition.
        resources: for a parameter the resource's key, or ``key.attribute`` for a part of one; by default the
            parameter's own name.
        metadata: ``(work, output without images) -> metadata for people``.
        pool: Dagster pool.
        signature: ``(work) -> whatever else goes into a partition``: the state of a source, what shaped the graph.
        is_valid: ``(work, stamp) -> whether what was made is still there and still holds``.
        apart: ``(work) -> whether the process of the run makes a partition, though there are workers``: where several
            processes together would ask too much of others.
        content: what else of a table, without images, what is downstream depends on: where the same inputs can give
            another output.
        relations: what it adds to the warehouse.
        signals: of a table with a row for each row of ``raw_samples``, in their order, the columns that expressions,
            the table ``samples`` and the gallery know, by the names that they have there.
    """

    def decorate(function: Callable[..., pa.Table | Batches | Manifest]) -> Stage:
        called = [
            (function, 1),
            (metadata, 2),
            (signature, 1),
            (is_valid, 2),
            (depends, 1),
            (apart, 1),
            *((check.run, 2) for check in checked),
        ]
        parameters = dict.fromkeys(name for one, given in called if one for name in _parameters(one, given))
        return Stage(
            name=name or function.__name__,
            function=function,
            group=function.__module__.split(".")[1],
            kinds=frozenset(kinds),
            code_version=code_version,
            description=(inspect.getdoc(function) or "").replace("``", "`"),
            inputs=tuple(inputs),
            unpartitioned_inputs=tuple(unpartitioned_inputs),
            run_inputs=tuple(run_inputs),
            partition_set=partition_set if partitioned else None,
            depends=depends,
            schema=schema,
            checks=checked,
            resources={parameter: (resources or {}).get(parameter, parameter) for parameter in parameters},
            metadata=metadata,
            pool=pool,
            signature=signature,
            is_valid=is_valid,
            apart=apart,
            content=content,
            relations=relations,
            signals=signals or {},
        )

    checked = tuple(checks)
    return decorate


def connected(stages: Sequence[Stage]) -> list[Stage]:
    """The stages, each told the tables of all of them, so that it can read them by name.

    Raises:
        ValueError: a stage reads what no stage before it makes.
    """
    known: dict[str, Stage] = {}
    for one in stages:
        of_set = {one.partition_set or SHARDS: one.inputs, None: one.unpartitioned_inputs}
        for partition_set, names in (*of_set.items(), (TRAINING_RUNS, one.run_inputs)):
            for name in names:
                if name not in known or known[name].partition_set != partition_set:
                    msg = f"{one.name} reads {name}, but no stage before it is called so and {_MADE[partition_set]}"
                    raise ValueError(msg)
        known[one.name] = one
    tables = {one.name: one.schema for one in stages if one.schema is not None}
    return [replace(one, tables=tables) for one in stages]


def _with_inputs(store: Store, assets: Sequence[str], keys: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The partitions of which all of these assets are there, whole and passed their checks; and the others, sorted.

    Of no assets, there are neither.
    """
    read = keys if assets else ()
    usable = []
    for key in read:
        # What cannot be read holds up only itself.
        with suppress(StorageError):
            stored = (store.get(asset, key) for asset in assets)
            if all(partition is not None and not partition.stamp.failed_checks for partition in stored):
                usable.append(key)
    return tuple(usable), tuple(sorted(set(read) - set(usable)))


def _fingerprints(work: Work, assets: Sequence[str], keys: Sequence[str]) -> list[list[str]]:
    return [[key, *(input_fingerprint(work, asset, key) for asset in assets)] for key in keys]


@lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any], given: int) -> list[str]:
    """The names of a function's parameters, but for the first ones."""
    return list(inspect.signature(function).parameters)[given:]


def _call(function: Callable[..., Any], arguments: Mapping[str, Any], *given: Any) -> Any:
    return function(*given, **{name: arguments[name] for name in _parameters(function, len(given))})


def _at(resources: Mapping[str, Any], path: str) -> Any:
    key, *attributes = path.split(".")
    value = resources[key]
    for attribute in attributes:
        value = getattr(value, attribute)
    return value


def _signature_of(value: Any) -> Any:
    """The part of a resource or setting that changes the output; None if nothing does."""
    if hasattr(value, "signature"):
        return value.signature()
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector away from existing objects: Dagster alone has hundreds of thousands.

    New objects are still collected, but less often: hardly any of them is part of a cycle.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECTED_EVERY, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        # Quick, as long as all else is frozen: a shard's cycles must not hold its memory while the next is made.
        gc.collect()
        gc.unfreeze()


def _peak_gpu_memory() -> dict[str, int]:
    """The most memory that torch has held on a GPU in this process; nothing if it was not used."""
    torch = sys.modules.get("torch")
    used = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_initialized() else 0
    return {"peak_gpu_memory_mib": round(used / 2**20)} if used else {}
