"""The partition sets of the platform: shards of samples, and training runs. Both are dynamic partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.core.stage import SHARDS, TRAINING_RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTITION_SETS = {name: dg.DynamicPartitionsDefinition(name=name) for name in (SHARDS, TRAINING_RUNS)}
"""The partition sets, by the names that stages give them."""


def registered_shards(instance: dg.DagsterInstance) -> Sequence[str]:
    """The shards that Dagster knows, in order."""
    return registered(instance, SHARDS)


def registered(instance: dg.DagsterInstance, name: str) -> Sequence[str]:
    """The keys of a partition set that Dagster knows, in order."""
    return sorted(instance.get_dynamic_partitions(name))
