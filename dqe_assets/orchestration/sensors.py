"""Keeping Dagster's partitions in step with the sources and the training runs of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dqe_assets.core.partitions import PARTITION_SETS
from dqe_assets.core.stage import SHARDS, TRAINING_RUNS
from dqe_assets.orchestration.dead_runs import end_dead_runs

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Which partitions of one set to add and which to remove. The files of a removed one stay on disk, unused."""

    name: str
    add: list[str]
    remove: list[str]
    total: int


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Which partitions to add and which to remove: shards, and training runs."""

    shards: SetPlan
    runs: SetPlan

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return any(one.add or one.remove for one in (self.shards, self.runs))

    def requests(self) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
        """What a sensor asks of Dagster."""
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        for one in (self.shards, self.runs):
            if one.add:
                requests.append(PARTITION_SETS[one.name].build_add_request(one.add))
            if one.remove:
                requests.append(PARTITION_SETS[one.name].build_delete_request(one.remove))
        return requests

    def apply(self, instance: dg.DagsterInstance) -> None:
        """Do it at once."""
        for one in (self.shards, self.runs):
            if one.add:
                instance.add_dynamic_partitions(one.name, one.add)
            for key in one.remove:
                instance.delete_dynamic_partition(one.name, key)


def plan_sync(settings: Settings, instance: dg.DagsterInstance) -> SyncPlan:
    """Compare the shards of every source, and the training runs, with the registered partitions.

    Raises:
        SourceError: a source cannot be read; nothing is changed then.
    """
    shards = {source.key(shard.index) for source in settings.sources for shard in source.shards()}
    return SyncPlan(_plan(SHARDS, shards, instance), _plan(TRAINING_RUNS, set(settings.training.keys), instance))


def _plan(name: str, wanted: set[str], instance: dg.DagsterInstance) -> SetPlan:
    registered = set(instance.get_dynamic_partitions(name))
    return SetPlan(name, add=sorted(wanted - registered), remove=sorted(registered - wanted), total=len(wanted))


def automation(settings: Settings) -> dg.AutomationCondition[Any] | None:
    """When Dagster makes an asset by itself: never, unless the settings say ``automation: eager``.

    Unlike Dagster's own ``eager``, it also makes what was missing before it was switched on. What fails is asked for
    again once something that it is made of has changed.
    """
    if settings.automation == "off":
        return None
    condition: Any = dg.AutomationCondition
    due = condition.newly_missing() | condition.any_deps_updated() | condition.code_version_changed()
    from_the_start = condition.missing() & condition.initial_evaluation()
    ready = ~condition.any_deps_missing() & ~condition.any_deps_in_progress() & ~condition.in_progress()
    return (due.since_last_handled() | from_the_start) & ready


def sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor of the shards, and that which launches what automation conditions ask for."""
    conditions = dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Launches what is missing or out of date (automation: eager in data/dqe.yaml).",
    )
    return [shard_sensor(settings), *([conditions] if settings.automation == "eager" else [])]


def shard_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor ``shards``, which does what ``dqe sync`` does, and ends runs whose process was killed."""

    @dg.sensor(
        name="shards",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Registers the shards of every source of data/dqe.yaml, and its training runs, as partitions, and "
        "removes those that went.",
    )
    def shards(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if dead := end_dead_runs(context.instance):
            context.log.warning("Marked as failed, since their process is gone: %s", ", ".join(dead))
        plan = plan_sync(settings, context.instance)
        if not plan.changes:
            runs = f" and {plan.runs.total} training runs" if plan.runs.total else ""
            return dg.SkipReason(f"All {plan.shards.total} shards{runs} are registered.")
        return dg.SensorResult(dynamic_partitions_requests=plan.requests())

    return shards
