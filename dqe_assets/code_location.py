"""What Dagster loads, put together from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.orchestration import graph
from dqe_assets.orchestration.jobs import jobs
from dqe_assets.orchestration.sensors import shard_sensor

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


def definitions(settings: Settings) -> dg.Definitions:
    """The Definitions that the settings call for."""
    return dg.Definitions(
        assets=[stage.definition(settings) for stage in graph.stages(settings)],
        resources={key: _described(value) for key, value in graph.resources(settings).items()},
        jobs=jobs(settings),
        sensors=[shard_sensor(settings)],
        # Steps are forked from a process that has imported all this once: each starts seconds sooner.
        executor=dg.multiprocess_executor.configured(
            {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": ["dqe_assets.definitions"]}}}
        ),
    )


def _described(value: object) -> dg.ResourceDefinition:
    """A resource whose page in the UI shows its settings."""
    return dg.ResourceDefinition.hardcoded_resource(value, description=repr(value))
