"""The table of what each filter keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

from dqe_assets.core.schema import UID, Column, table_schema


def filter_masks_schema(filters: Mapping[str, str]) -> pa.Schema:
    """The schema of ``filter_masks``: a column for each filter.

    Args:
        filters: what each filter is, by its name.
    """
    return table_schema(
        [UID, *(Column(name, pa.bool_(), f"whether {text} keeps it", nullable=False) for name, text in filters.items())]
    )
