"""The two jobs: everything of a shard, and everything over all shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.core.asset import asset_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from dqe_assets.core.stage import Stage


def jobs(stages: Sequence[Stage]) -> Sequence[UnresolvedAssetJobDefinition]:
    """The jobs ``shards`` (partitioned) and ``reports``."""
    return [
        dg.define_asset_job(
            "shards",
            selection=dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages if stage.partitioned)),
            description="Everything that is made for each shard, from raw samples to the collection.",
        ),
        dg.define_asset_job(
            "reports",
            selection=dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages if not stage.partitioned)),
            description="Everything over all shards: duplicates, filters and subsets, warehouse, gallery.",
        ),
    ]
