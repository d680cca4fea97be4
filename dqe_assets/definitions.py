"""The code location: what Dagster loads, put together from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.core.asset import asset
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.jobs import jobs
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.sensors import automation, sensors
from dqe_assets.orchestration.settings import load_settings

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


def definitions(settings: Settings) -> dg.Definitions:
    """The Definitions that the settings call for."""
    stages = graph.stages(settings)
    when = automation(settings)
    # A step has all workers of this machine for itself.
    steps = 1 if settings.cluster and settings.cluster.is_here else settings.concurrency.steps
    return dg.Definitions(
        assets=[asset(stage, shards_per_run=settings.shards_per_run, automation=when) for stage in stages],
        resources=dagster_resources(settings),
        jobs=jobs(stages),
        sensors=sensors(settings),
        # Steps are forked from a process that has imported all this once: each starts seconds sooner.
        executor=dg.multiprocess_executor.configured(
            {
                "max_concurrent": steps,
                "start_method": {"forkserver": {"preload_modules": ["dqe_assets.definitions"]}},
            }
        ),
    )


defs = definitions(load_settings(sources_may_be_away=True))
