"""What each pool of Dagster takes at once, over all runs on all machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.orchestration import graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dagster as dg

    from dqe_assets.orchestration.settings import Settings


def pool_limits(settings: Settings) -> dict[str, int]:
    """How many steps each pool takes, by its name: what the settings say of it, and else 1."""
    used = {stage.pool for stage in graph.stages(settings) if stage.pool}
    return dict.fromkeys(sorted(used), 1) | settings.concurrency.pools


def limit_pools(instance: dg.DagsterInstance, limits: Mapping[str, int]) -> None:
    """Give each pool its limit, where it is another one, or none but Dagster's default.

    Of a pool that was first used without a limit, Dagster keeps its default. Should that ever change in dagster.yaml,
    PostgreSQL refuses what Dagster then does for such a pool, and no run leaves the queue any more.
    """
    storage = instance.event_log_storage
    found = {limit.name: limit for limit in storage.get_pool_limits()}
    for pool, limit in limits.items():
        if pool not in found or found[pool].from_default or found[pool].limit != limit:
            storage.set_concurrency_slots(pool, limit)
