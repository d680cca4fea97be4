"""A stage: a pure function that makes one partition of an asset, and what turns it into a Dagster asset.

What every asset needs is here once: which inputs it reads, what makes its output current, its checks, its metadata,
progress, and one load of a model for all partitions of a run.
"""

import gc
import inspect
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
import pyarrow as pa

from dqe_assets.core.partitions import SHARDS, registered_shards
from dqe_assets.core.work import Batches, Check, Facts, StartOverError, Verdict, Work, facts_of, input_fingerprint
from dqe_assets.orchestration.settings import Settings
from dqe_assets.orchestration.tables import schema_of
from dqe_resources import progress
from dqe_resources.configurable import Configurable
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import Stamp, StorageError, StoredPartition

FORCE_TAG = "dqe/force"
"""Run tag: ``true`` makes again what is current."""


MODEL_POOL = "model"
"""Dagster pool of the steps that run a model."""


COLLECTION_POOL = "collection"
"""Dagster pool of the steps that open the collection: the embedded one takes one process at a time."""


CAPTIONER_PREFIX = "captioner_"


_COLLECTED_EVERY = 20_000


@dataclass(frozen=True)
class Stage:
    """An asset of the platform. See ``stage`` for what the attributes mean."""

    name: str
    function: Callable[..., pa.Table | Batches | Facts]
    inputs: tuple[str, ...]
    group: str
    kinds: frozenset[str]
    code_version: str
    description: str
    partitioned: bool
    is_table: bool
    checks: tuple[Check, ...]
    resources: Mapping[str, str]
    corpus_inputs: tuple[str, ...]
    metadata: Callable[[Work, Any], Mapping[str, Any]] | None
    pool: str | None
    signature: Callable[[Work], Any] | None
    intact: Callable[[Work, Stamp], bool] | None
    content: Callable[[pa.Table], Any] | None

    @property
    def key(self) -> dg.AssetKey:
        """The Dagster asset key."""
        return dg.AssetKey(self.name.split("/"))

    def work(self, settings: Settings, partition: str | None, shards: Sequence[str], log: Any = None) -> Work:
        """The work of making a partition; for an asset over all shards, of those shards whose inputs are there.

        An asset that reads nothing of any shard has none, and stays current when shards come and go.
        """
        if partition is not None:
            work = Work(self.name, partition, (partition,), settings)
        else:
            read = shards if self.inputs else ()
            usable = tuple(shard for shard in read if self._has_inputs(settings, shard))
            work = Work(self.name, None, usable, settings, left_out=tuple(sorted(set(read) - set(usable))))
        return replace(work, log=log) if log else work

    def _has_inputs(self, settings: Settings, shard: str) -> bool:
        stored = (settings.opened_store.get(asset, shard) for asset in self.inputs)
        return all(partition is not None and not partition.stamp.failed_checks for partition in stored)

    def fingerprint(self, work: Work, components: Mapping[str, Configurable]) -> str:
        """Hex digest of everything that goes into a partition.

        Raises:
            StorageError: an input is not there, or failed a check.
        """
        return fingerprint(
            self.name,
            self.code_version,
            schema_of(self.name).to_string() if self.is_table else None,
            {parameter: component.signature() for parameter, component in components.items()},
            self.signature(work) if self.signature else None,
            [[shard, *(input_fingerprint(work, asset, shard) for asset in self.inputs)] for shard in work.shards],
            [input_fingerprint(work, asset, None) for asset in self.corpus_inputs],
        )

    def current(self, work: Work, components: Mapping[str, Configurable]) -> StoredPartition | None:
        """What is stored for the partition, if it is what making it again would give."""
        stored = work.store.get(self.name, work.partition)
        if stored is None or stored.stamp.failed_checks:
            return None
        if self.intact is not None and not self.intact(work, stored.stamp):
            return None
        try:
            expected = self.fingerprint(work, components)
        except StorageError:
            return None
        return stored if stored.stamp.fingerprint == expected else None

    def components(self, resources: Mapping[str, Any]) -> dict[str, Configurable]:
        """The resources that its function takes, by parameter."""
        return {parameter: resources[key] for parameter, key in self.resources.items()}

    def make(
        self, work: Work, components: Mapping[str, Configurable], *, force: bool = False
    ) -> tuple[StoredPartition, Mapping[str, Any], dict[str, Verdict]]:
        """Make a partition, or find it current; returns what is stored, its metadata and its checks' verdicts."""
        started = time.monotonic()
        stored = None if force else self.current(work, components)
        reused = stored is not None
        progress.report(progress.Step(self.name, work.partition, 0, 0))
        if stored is None:
            # Before the inputs are read: what changes meanwhile must not count as what went in.
            version = self.fingerprint(work, components)
            with _uncollected():
                stored, output, verdicts = self._made(replace(work, version=version, force=force), components)
            work.checkpoint.clear()
        else:
            output = self._stored_output(work, stored.stamp)
            verdicts = self._verdicts(work, output)
        seconds = time.monotonic() - started
        metadata = self._metadata(work, stored, output, seconds=seconds, reused=reused)
        outcome = "current" if reused else f"{stored.stamp.rows:,} rows, {seconds:.1f} s"
        if work.left_out:
            outcome += f"; left out, as their inputs are missing or failed: {', '.join(work.left_out)}"
        failed_now = [name for name, verdict in verdicts.items() if not verdict.passed]
        progress.report(
            progress.Step(
                self.name, work.partition, 1, 1, f"failed: {', '.join(failed_now)}" if failed_now else outcome
            )
        )
        return stored, metadata, verdicts

    def _made(
        self, work: Work, components: Mapping[str, Configurable]
    ) -> tuple[StoredPartition, pa.Table | Facts, dict[str, Verdict]]:
        """Make, check and store; returns the output without images, if it came in batches, and the verdicts."""
        while True:
            with suppress(StartOverError):
                return self._store(work, self.function(work, **components), work.version)

    def _store(
        self, work: Work, made: pa.Table | Batches | Facts, version: str
    ) -> tuple[StoredPartition, pa.Table | Facts, dict[str, Verdict]]:
        if isinstance(made, Facts):
            stamp, verdicts = self._checked(work, made, version)
            work.store.write_manifest(self.name, work.partition, stamp)
            output: pa.Table | Facts = made
        elif isinstance(made, pa.Table):
            stamp, verdicts = self._checked(work, made, version)
            work.store.write_table(self.name, work.partition, made, schema_of(self.name), stamp)
            output = made
        else:
            output, verdicts = self._store_batches(work, made, version)
        stored = work.store.get(self.name, work.partition)
        if stored is None:
            raise StorageError(f"{work.store.path(self.name, work.partition)}: vanished as soon as it was written")
        return stored, output, verdicts

    def _store_batches(self, work: Work, batches: Batches, version: str) -> tuple[pa.Table, dict[str, Verdict]]:
        """Write batches as they come: only what is looked at afterwards, which is not the images, stays in memory."""
        schema = schema_of(self.name)
        small: list[pa.RecordBatch] = []
        verdicts: dict[str, Verdict] = {}

        def passing() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                small.append(batch.select(self._looked_at))
                yield batch

        def stamp() -> Stamp:
            made, found = self._checked(work, table(), version)
            verdicts.update(found)
            return made

        def table() -> pa.Table:
            return pa.Table.from_batches(small, pa.schema([schema.field(name) for name in self._looked_at]))

        with closing(batches):
            work.store.write_batches(self.name, work.partition, passing(), schema, stamp)
        # Arrow holds on to what it has freed, in each thread: the next partition would begin with it.
        pa.default_memory_pool().release_unused()
        return table(), verdicts

    def _checked(self, work: Work, output: pa.Table | Facts, version: str) -> tuple[Stamp, dict[str, Verdict]]:
        verdicts = self._verdicts(work, output)
        failed = tuple(check.name for check in self.checks if check.blocking and not verdicts[check.name].passed)
        if isinstance(output, Facts):
            return Stamp(version, self.code_version, output.rows, failed, output.facts), verdicts
        content = fingerprint(self.content(output)) if self.content else ""
        return Stamp(version, self.code_version, output.num_rows, failed, facts_of(output), content), verdicts

    def _stored_output(self, work: Work, stamp: Stamp) -> pa.Table | Facts:
        if not self.is_table:
            return Facts(stamp.rows, stamp.facts)
        return work.read(self.name, self._looked_at)

    @property
    def _looked_at(self) -> list[str]:
        """The columns that checks and metadata are made of."""
        return [name for name in schema_of(self.name).names if name != "image"]

    def _verdicts(self, work: Work, output: pa.Table | Facts) -> dict[str, Verdict]:
        return {check.name: check.run(work, output) for check in self.checks}

    def _metadata(
        self, work: Work, stored: StoredPartition, output: pa.Table | Facts, *, seconds: float, reused: bool
    ) -> Mapping[str, Any]:
        return {
            **(self.metadata(work, output) if self.metadata else {}),
            **({"shards_left_out": list(work.left_out)} if work.left_out else {}),
            "dagster/row_count": stored.stamp.rows,
            "path": dg.MetadataValue.path(stored.path),
            "bytes": stored.bytes,
            "seconds": round(seconds, 3),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **_peak_gpu_memory(),
            "reused": reused,
            "fingerprint": stored.stamp.fingerprint,
        }

    def definition(self, settings: Settings) -> dg.AssetsDefinition:
        """The Dagster asset, with its checks."""
        with warnings.catch_warnings():
            # Backfill policies are beta: what changes in them, the test of a backfill will say.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return self._definition(settings)

    def _definition(self, settings: Settings) -> dg.AssetsDefinition:
        @dg.asset(
            key=self.key,
            deps=[dg.AssetKey(name.split("/")) for name in (*self.inputs, *self.corpus_inputs)],
            partitions_def=SHARDS if self.partitioned else None,
            backfill_policy=(
                dg.BackfillPolicy.multi_run(max_partitions_per_run=settings.shards_per_run)
                if self.partitioned
                else None
            ),
            group_name=self.group,
            kinds=set(self.kinds),
            code_version=self.code_version,
            description=self.description,
            pool=self.pool,
            metadata={"dagster/column_schema": _column_schema(self.name)} if self.is_table else None,
            required_resource_keys={"settings", *self.resources.values()},
            check_specs=[
                dg.AssetCheckSpec(check.name, asset=self.key, description=check.description, blocking=check.blocking)
                for check in self.checks
            ],
        )
        def compute(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
            return self._execute(context)

        return compute

    def _execute(self, context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        # A plain pass over the keys, and not a run for each: one load of a model then serves all of them, and each
        # partition is in the store before the next one begins.
        settings: Settings = context.resources.settings
        components = self.components({key: getattr(context.resources, key) for key in self.resources.values()})
        force = context.run.tags.get(FORCE_TAG) == "true"
        shards = registered_shards(context.instance)
        keys: list[str | None] = sorted(context.partition_keys) if self.partitioned else [None]
        verdicts: dict[str | None, dict[str, Verdict]] = {}
        metadata: Mapping[str, Any] = {}
        version = ""
        for key in keys:
            work = self.work(settings, key, shards, context.log.info)
            stored, metadata, verdicts[key] = self.make(work, components, force=force)
            version = stored.stamp.identity
            if key is not None:
                context.add_asset_metadata(metadata, asset_key=self.key, partition_key=key)
        return dg.MaterializeResult(
            metadata=None if self.partitioned else metadata,
            data_version=dg.DataVersion(version) if len(keys) == 1 else None,
            check_results=[
                _check_result(self.key, check, {key: found[check.name] for key, found in verdicts.items()})
                for check in self.checks
                if dg.AssetCheckKey(self.key, check.name) in context.selected_asset_check_keys
            ],
        )


def stage(  # noqa: PLR0913
    *,
    group: str,
    kinds: Iterable[str],
    code_version: str,
    inputs: Iterable[str] = (),
    corpus_inputs: Iterable[str] = (),
    name: str | None = None,
    partitioned: bool = True,
    is_table: bool = True,
    checks: Iterable[Check] = (),
    resources: Mapping[str, str] | None = None,
    metadata: Callable[[Work, Any], Mapping[str, Any]] | None = None,
    pool: str | None = None,
    signature: Callable[[Work], Any] | None = None,
    intact: Callable[[Work, Stamp], bool] | None = None,
    content: Callable[[pa.Table], Any] | None = None,
) -> Callable[[Callable[..., pa.Table | Batches | Facts]], Stage]:
    """Make a stage of a function ``(work, **resources) -> table, batches of a large table, or Facts``.

    Args:
        group: asset group.
        kinds: what it is made with, shown in the UI (at most three).
        code_version: to be raised when the function would give another output for the same inputs.
        inputs: per-shard assets that it reads.
        corpus_inputs: assets over all shards that it reads.
        name: of the asset; by default the function's.
        partitioned: made for each shard, or once over all of them.
        is_table: whether the function returns a table (of the schema in ``schemas``) or Facts.
        checks: what must hold for each partition.
        resources: resource key for a parameter of the function; by default the parameter's own name.
        metadata: metadata for people, from the output without images.
        pool: Dagster pool.
        signature: whatever else goes into a partition: settings, the state of a source.
        intact: whether what a manifest speaks of is still there.
        content: what else of a table, without images, what is downstream depends on: where the same inputs can give
            another output.
    """

    def decorate(function: Callable[..., pa.Table | Batches | Facts]) -> Stage:
        parameters = list(inspect.signature(function).parameters)[1:]
        return Stage(
            name=name or function.__name__,
            function=function,
            inputs=tuple(inputs),
            group=group,
            kinds=frozenset(kinds),
            code_version=code_version,
            description=inspect.getdoc(function) or "",
            partitioned=partitioned,
            is_table=is_table,
            checks=tuple(checks),
            resources={parameter: (resources or {}).get(parameter, parameter) for parameter in parameters},
            corpus_inputs=tuple(corpus_inputs),
            metadata=metadata,
            pool=pool,
            signature=signature,
            intact=intact,
            content=content,
        )

    return decorate


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is there already: Dagster's objects alone are hundreds of thousands.

    What is made meanwhile is collected, but more rarely: hardly any of it is part of a cycle.
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
    """The most that torch has held on a GPU in this process; nothing where it was not used."""
    torch = sys.modules.get("torch")
    used = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_initialized() else 0
    return {"peak_gpu_memory_mib": round(used / 2**20)} if used else {}


def _check_result(asset: dg.AssetKey, check: Check, verdicts: Mapping[str | None, Verdict]) -> dg.AssetCheckResult:
    """One result for the run; a run of many partitions says which of them failed."""
    failed = {key: verdict for key, verdict in verdicts.items() if not verdict.passed}
    shown = failed or dict(list(verdicts.items())[:1])
    message = "; ".join(f"{key}: {verdict.message}" if key else verdict.message for key, verdict in shown.items())
    values = dict(next(iter(shown.values())).values)
    if not failed and len(verdicts) > 1:
        message, values = f"holds for all {len(verdicts)} shards", {"shards": len(verdicts)}
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=check.name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
        description=message,
        metadata=values,
    )


def _column_schema(asset: str) -> dg.TableSchema:
    columns = []
    for column in schema_of(asset):
        metadata = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
        unit = f" [{metadata['unit']}]" if "unit" in metadata else ""
        columns.append(
            dg.TableColumn(
                column.name,
                str(column.type),
                description=metadata["description"] + unit,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
        )
    return dg.TableSchema(columns=columns)
