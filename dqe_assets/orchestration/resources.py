"""The Dagster resources that the settings call for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.resource import RUN_OPTIONS, RunOptions, StoreResource, as_resource
from dqe_assets.orchestration import graph

if TYPE_CHECKING:
    import dagster as dg

    from dqe_assets.orchestration.settings import Settings


def dagster_resources(settings: Settings, *, force: bool = False) -> dict[str, dg.ConfigurableResource]:  # type: ignore[type-arg]
    """The resources by key: the store, what holds for one run, and what stages are handed.

    Args:
        settings: the settings.
        force: make again what is current.
    """
    return {
        "store": StoreResource(root=settings.opened_store.root),
        RUN_OPTIONS: RunOptions(force=force),
        **{key: as_resource(value) for key, value in graph.resources(settings).items()},
    }
