"""Shards: the one partitioning of the platform, a dynamic partition for each run of rows of a source."""

from __future__ import annotations

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
