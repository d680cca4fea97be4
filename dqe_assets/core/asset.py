"""A stage as a Dagster asset: the only place where the two meet."""

# Dagster reads the annotations of an asset's function as they are, so they cannot be postponed in this module.

import inspect
import socket
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NoReturn

import dagster as dg
import pyarrow as pa

from dqe_assets.core.metadata import Markdown
from dqe_assets.core.partitions import PARTITION_SETS, registered
from dqe_assets.core.resource import RUN_OPTIONS, WORKERS
from dqe_assets.core.shard_workers import Made, Making, ShardWorkers
from dqe_assets.core.stage import SHARDS, TRAINING_RUNS, Stage
from dqe_assets.core.work import Check, CheckResult
from dqe_resources import progress
from dqe_resources.errors import DataQualityError, WholeRunError, WholeSourceError
from dqe_resources.sources.protocol import source_of
from dqe_resources.store import Store, StoreAwayError, StoredPartition

OWNER = "team:data-quality"

_SAID = 3

FORCE_TAG = "dqe/force"
"""Run tag: ``true`` makes again what is current."""

HOST_TAG = "dqe/host"
"""Run tag: the machine that its process is on."""

_OVER = {SHARDS: "shard", TRAINING_RUNS: "training_run", None: "all_shards"}
"""What an asset is made for, as its tag ``dqe/over`` says."""

# Dagster gives all partitions of a run one data version. An output with this mark records no event, so that each
# partition's own event is the only one.
_NO_EVENT = {"__source_asset_observation__": True}

_AWAY: dict[str, str] = {}
"""By the run's number, why a step of it, in this process, could not use the store: the next ones do not try again."""


class PartitionsError(DataQualityError):
    """Some of the partitions of a run could not be made; the others are."""


def asset_key(name: str) -> dg.AssetKey:
    """The key of the asset of this name."""
    return dg.AssetKey(name.split("/"))


def asset(
    stage: Stage,
    *,
    shards_per_run: int,
    automation: dg.AutomationCondition[Any] | None = None,
    in_pool: bool = True,
) -> dg.AssetsDefinition:
    """The Dagster asset of a stage, with its checks.

    Args:
        stage: the stage.
        shards_per_run: the most partitions that a run of a backfill makes.
        automation: when Dagster makes it by itself.
        in_pool: whether its step waits for its turn in its pool.
    """
    with warnings.catch_warnings():
        # Backfill policies and code references are beta: what changes in them, the tests will say.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _asset(stage, shards_per_run, automation, stage.pool if in_pool else None)


def _asset(
    stage: Stage, shards_per_run: int, automation: dg.AutomationCondition[Any] | None, pool: str | None
) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(stage.name),
        deps=[asset_key(name) for name in (*stage.inputs, *stage.unpartitioned_inputs, *stage.run_inputs)],
        partitions_def=PARTITION_SETS[stage.partition_set] if stage.partition_set else None,
        backfill_policy=dg.BackfillPolicy.multi_run(shards_per_run if stage.partitioned else 1)
        if stage.partition_set
        else None,
        automation_condition=automation,
        group_name=stage.group,
        kinds=set(stage.kinds),
        owners=[OWNER],
        tags={"dqe/over": _OVER[stage.partition_set]},
        code_version=stage.code_version,
        description=stage.description,
        pool=pool,
        metadata=_definition_metadata(stage),
        required_resource_keys=_resource_keys(stage),
        check_specs=[
            dg.AssetCheckSpec(
                check.name, asset=asset_key(stage.name), description=check.description, blocking=check.blocking
            )
            for check in stage.checks
        ],
    )
    def compute(context: dg.AssetExecutionContext) -> Iterator[Any]:
        if away := _AWAY.get(context.run.run_id):
            raise StoreAwayError(away)
        try:
            yield from _execute(stage, context)
        except StoreAwayError as error:
            _AWAY[context.run.run_id] = str(error)
            raise

    return compute


def _resource_keys(stage: Stage) -> set[str]:
    return {"store", RUN_OPTIONS, WORKERS, *(path.split(".")[0] for path in stage.resources.values())}


def _say_machine(context: dg.AssetExecutionContext) -> None:
    """Have the run say which machine it is on: of a process that Dagster began, only its number is known."""
    if HOST_TAG not in context.run.tags:
        context.instance.add_run_tags(context.run.run_id, {HOST_TAG: socket.gethostname()})


def _execute(stage: Stage, context: dg.AssetExecutionContext) -> Iterator[Any]:
    # One pass over the keys, and not a run for each: one load of a model then serves all of them, and each partition is
    # in the store, and known to Dagster, as soon as it is made.
    _say_machine(context)
    arguments = stage.arguments({key: getattr(context.resources, key) for key in _resource_keys(stage)})
    options = getattr(context.resources, RUN_OPTIONS)
    force = options.force or context.run.tags.get(FORCE_TAG) == "true"
    shards, runs = (registered(context.instance, name) for name in (SHARDS, TRAINING_RUNS))
    keys: list[str | None] = sorted(context.partition_keys) if stage.partition_set else [None]
    results: dict[str | None, dict[str, CheckResult]] = {}
    failed: dict[str | None, Exception] = {}
    given_up: set[str] = set()

    def here(key: str | None) -> Made:
        with _store(context, stage) as store:
            work = stage.work(store.as_it_is_now(), key, shards, context.log.info, runs)
            return stage.make(work, arguments, force=force)

    making = Making(stage, arguments, context.resources.store, context.log.info, force, here)
    workers: ShardWorkers | None = getattr(context.resources, WORKERS)
    with closing(making.outcomes(keys, workers, lambda key: not key or source_of(key) not in given_up)) as outcomes:
        for key, made in outcomes:
            if isinstance(made, Exception):
                if len(keys) == 1 or isinstance(made, WholeRunError):
                    raise made
                # The others are made all the same.
                context.log.error("%s, %s: %s", stage.name, key, _in_the_log(made))
                failed[key] = made
                if isinstance(made, WholeSourceError):
                    given_up.add(source_of(key or ""))
                continue
            stored, metadata, results[key] = made
            shown = {name: _metadata_value(value) for name, value in metadata.items()}
            if len(keys) > 1:
                yield _materialization(stage, context.instance, stored, shown)
    if failed:
        _raise_for(failed, len(keys))
    checked = [
        _check_result(asset_key(stage.name), check, {key: found[check.name] for key, found in results.items()})
        for check in stage.checks
        if dg.AssetCheckKey(asset_key(stage.name), check.name) in context.selected_asset_check_keys
    ]
    if len(keys) > 1:
        yield dg.MaterializeResult(metadata=_NO_EVENT, check_results=checked)
    else:
        version = dg.DataVersion(stored.stamp.identity)
        yield dg.MaterializeResult(metadata=shown, data_version=version, check_results=checked)


@contextmanager
def _store(context: dg.AssetExecutionContext, stage: Stage) -> Iterator[Store]:
    """The store to make a partition in; what is made over all shards is made by one process at a time."""
    store: Store = context.resources.store
    if stage.partition_set:
        yield store
        return

    def say(who: str) -> None:
        context.log.info(who)
        progress.report(progress.Step(stage.name, None, 0, 0, note=who))

    with store.owned(stage.name, say) as mine:
        yield mine


def _in_the_log(error: Exception) -> str:
    """What is wrong with one of many partitions; Dagster keeps the text of what is logged, and no traceback beside."""
    return str(error) if isinstance(error, DataQualityError) else "".join(traceback.format_exception(error))


def _raise_for(failed: Mapping[str | None, Exception], total: int) -> NoReturn:
    """Fail for partitions that could not be made, with what each of the first of them says."""
    said = [f"{key}: {error if isinstance(error, DataQualityError) else repr(error)}" for key, error in failed.items()]
    more = f"; and {len(said) - _SAID:,} more" if len(said) > _SAID else ""
    first = next(iter(failed.values()))
    raise PartitionsError(f"{len(failed):,} of {total:,} failed: {'; '.join(said[:_SAID])}{more}") from first


def _materialization(
    stage: Stage, instance: dg.DagsterInstance, stored: StoredPartition, metadata: Mapping[str, Any]
) -> dg.AssetMaterialization:
    """The event of one partition of a run of many, with the tags by which Dagster tells what is stale."""
    tags = {
        "dagster/code_version": stage.code_version,
        "dagster/data_version": stored.stamp.identity,
        "dagster/data_version_is_user_provided": "true",
    }
    for name in (*stage.inputs, *stage.unpartitioned_inputs):
        key = asset_key(name)
        partitions = [stored.partition or ""] if name in stage.inputs else None
        found = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=partitions), limit=1)
        record = found.records[0] if found.records else None
        event = record.asset_materialization if record else None
        version = (event.tags or {}).get("dagster/data_version") if event else None
        tags[f"dagster/input_data_version/{key.to_user_string()}"] = version or "INITIAL"
        tags[f"dagster/input_event_pointer/{key.to_user_string()}"] = str(record.storage_id) if record else "NULL"
    return dg.AssetMaterialization(asset_key(stage.name), partition=stored.partition, metadata=metadata, tags=tags)


def _metadata_value(value: Any) -> Any:
    if isinstance(value, Markdown):
        return dg.MetadataValue.md(str(value))
    return dg.MetadataValue.json(value) if isinstance(value, dict | list) else value


def _check_result(key: dg.AssetKey, check: Check, results: Mapping[str | None, CheckResult]) -> dg.AssetCheckResult:
    """One result for the run; a run of many partitions says which of them failed."""
    failed = {partition: result for partition, result in results.items() if not result.passed}
    shown = failed or dict(list(results.items())[:1])
    description = "; ".join(f"{name}: {one.description}" if name else one.description for name, one in shown.items())
    metadata = dict(next(iter(shown.values())).metadata)
    if not failed and len(results) > 1:
        description, metadata = f"holds for all {len(results)} shards", {"shards": len(results)}
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=check.name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )


def _definition_metadata(stage: Stage) -> dict[str, Any]:
    """The columns of its table, and where its function is."""
    file, line = inspect.getsourcefile(stage.function), inspect.getsourcelines(stage.function)[1]
    source = dg.LocalFileCodeReference(file_path=file or "", line_number=line, label=stage.function.__name__)
    metadata: dict[str, Any] = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[source])}
    if stage.schema is not None:
        metadata["dagster/column_schema"] = dg.TableSchema(columns=[_column(field) for field in stage.schema])
    return metadata


def _column(field: pa.Field) -> dg.TableColumn:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    unit = f" [{metadata['unit']}]" if "unit" in metadata else ""
    return dg.TableColumn(
        field.name,
        str(field.type),
        description=metadata["description"] + unit,
        constraints=dg.TableColumnConstraints(nullable=field.nullable),
    )
