"""The jobs: everything of a shard, everything over all shards, and everything of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.core.asset import asset_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from dqe_assets.core.stage import Stage


def jobs(stages: Sequence[Stage]) -> Sequence[UnresolvedAssetJobDefinition]:
    """The jobs ``shards`` and ``reports``, and ``training`` where there are training runs."""
    made = [
        dg.define_asset_job(
            "shards",
            selection=dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages if stage.partitioned)),
            description="Everything that is made for each shard, from raw samples to the collection.",
        ),
        dg.define_asset_job(
            "reports",
            selection=dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages if not stage.partition_set)),
            description="Everything over all shards: duplicates, filters and subsets, warehouse, gallery.",
        ),
    ]
    of_runs = [asset_key(stage.name) for stage in stages if stage.of_runs]
    if of_runs:
        made.append(
            dg.define_asset_job(
                "training",
                selection=dg.AssetSelection.assets(*of_runs),
                description="Everything that is made for each training run.",
            )
        )
    return made
