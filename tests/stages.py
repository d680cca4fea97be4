"""What tests of stages share: a stage by its name, what it is handed, and what it has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.core.stage import _call
from dqe_assets.orchestration import graph

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.stage import Stage
    from dqe_assets.core.work import CheckResult, Manifest, Work
    from dqe_assets.orchestration.settings import Settings


def stage_named(settings: Settings, name: str) -> Stage:
    """The stage of this name."""
    return next(stage for stage in graph.stages(settings) if stage.name == name)


def handed(settings: Settings, stage: Stage) -> dict[str, Any]:
    """What the stage is handed of the settings and resources, by parameter."""
    return stage.arguments(graph.resources(settings))


def checked(settings: Settings, stage: Stage, check: str, work: Work, output: pa.Table | Manifest) -> CheckResult:
    """What a check of the stage finds, called as a run calls it."""
    run = next(one.run for one in stage.checks if one.name == check)
    return _call(run, handed(settings, stage), work, output)


def output_of(settings: Settings, stage: Stage, work: Work) -> Any:
    """What the stage's function gives, called as a run calls it."""
    return _call(stage.function, handed(settings, stage), work)


def table_of(settings: Settings, name: str, partition: str | None = None) -> pa.Table:
    """The stored table of an asset."""
    schema = stage_named(settings, name).schema
    assert schema is not None, f"{name} is no table"
    return settings.opened_store.read(name, partition, schema)
