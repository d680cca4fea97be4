"""The Dagster resources that the settings call for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.core.resource import RUN_OPTIONS, WORKERS, RunOptions, StoreResource, as_resource
from dqe_assets.core.shard_workers import ShardWorkers
from dqe_assets.orchestration import graph

if TYPE_CHECKING:
    from dqe_assets.core.shard_workers import Problems
    from dqe_assets.orchestration.settings import Settings


def shard_workers(settings: Settings, problems: Problems | None = None) -> ShardWorkers | None:
    """The workers that shards are given to; None where the process of the run makes them.

    Args:
        settings: the settings.
        problems: is told what goes wrong with shards.
    """
    if settings.cluster is None:
        return None
    return ShardWorkers(settings.cluster, partial(graph.stages, settings), {} if problems is None else problems)


def dagster_resources(
    settings: Settings, *, force: bool = False, problems: Problems | None = None
) -> dict[str, dg.ResourceDefinition | dg.ConfigurableResource]:  # type: ignore[type-arg]
    """The resources by key: the store, what holds for one run, the workers, and what stages are handed.

    Args:
        settings: the settings.
        force: make again what is current.
        problems: is told what goes wrong with shards that workers make.
    """
    return {
        "store": StoreResource(root=settings.opened_store.root),
        RUN_OPTIONS: RunOptions(force=force),
        WORKERS: dg.ResourceDefinition.hardcoded_resource(shard_workers(settings, problems), "who makes the shards"),
        **{key: as_resource(value) for key, value in graph.resources(settings).items()},
    }
