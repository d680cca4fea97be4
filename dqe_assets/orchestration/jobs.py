"""The two jobs: everything of a shard, and everything over all shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.orchestration.graph import stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from dqe_assets.orchestration.settings import Settings


def jobs(settings: Settings) -> Sequence[UnresolvedAssetJobDefinition]:
    """The jobs ``shards`` (partitioned) and ``reports``."""
    every = stages(settings)
    return [
        dg.define_asset_job(
            "shards",
            selection=dg.AssetSelection.assets(*(stage.key for stage in every if stage.partitioned)),
            description="Everything that is made for each shard, from raw samples to the collection.",
        ),
        dg.define_asset_job(
            "reports",
            selection=dg.AssetSelection.assets(*(stage.key for stage in every if not stage.partitioned)),
            description="Everything over all shards: duplicates, filters and subsets, warehouse, gallery.",
        ),
    ]
