"""Shards: the one partitioning of the platform, a dynamic partition for each run of rows of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARDS = dg.DynamicPartitionsDefinition(name="shards")


def registered_shards(instance: dg.DagsterInstance) -> Sequence[str]:
    """The partition keys that Dagster knows, in order."""
    return sorted(instance.get_dynamic_partitions(SHARDS.name or ""))
