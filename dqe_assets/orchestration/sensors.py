"""Keeping Dagster's partitions in step with the sources and the training runs of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from dqe_assets.core.asset import asset_key
from dqe_assets.core.partitions import registered_shards
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.dead_runs import end_dead_runs
from dqe_assets.orchestration.pools import limit_pools, pool_limits
from dqe_assets.orchestration.sync import plan_sync
from dqe_assets.reviews import log

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


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
    """The sensor of the shards; and where assets are made by themselves, what launches that."""
    conditions = dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Launches what is missing or out of date (automation: eager in data/dqe.yaml).",
    )
    return [shard_sensor(settings), *([conditions, review_sensor(settings)] if settings.automation == "eager" else [])]


def shard_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor ``shards``, which does what ``dqe sync`` does, limits the pools, and ends runs that were killed."""

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
        limit_pools(context.instance, pool_limits(settings))
        plan = plan_sync(settings, context.instance).cleaned(settings)
        for line in (*plan.removed_in_words, *plan.failures):
            context.log.warning(line)
        if not plan.changes:
            runs = f" and {plan.runs.total} training runs" if plan.runs.total else ""
            return dg.SkipReason(f"All {plan.shards.total} shards{runs} are registered.")
        return dg.SensorResult(dynamic_partitions_requests=plan.requests())

    return shards


def review_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor ``reviews``, which has decisions of people taken up: no asset that Dagster could look at has them."""
    (stage,) = (one for one in graph.stages(settings) if one.name == "reviews")
    key = asset_key(stage.name)

    @dg.sensor(
        name="reviews",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches the asset reviews for the shards whose samples people have decided about since "
        "(automation: eager in data/dqe.yaml).",
    )
    def reviews(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        new = [one for one in log.entries() if one.number > int(context.cursor or 0)]
        if not new:
            return dg.SkipReason("No decision is new.")
        shards = registered_shards(context.instance)
        about = {shard for one in new for shard in one.shards}.intersection(shards)
        # What is missing yet is made by its condition.
        due = [shard for shard in sorted(about) if runner.state(settings, stage, shard, shards) == "stale"]
        requests = [dg.RunRequest(partition_key=shard, asset_selection=[key]) for shard in due]
        return dg.SensorResult(run_requests=requests, cursor=str(new[-1].number))

    return reviews
