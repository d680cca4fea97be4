"""Everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dqe_assets.filtering.filters.protocol import Filter, Mask

if TYPE_CHECKING:
    import pyarrow as pa


class NoFilter(Filter):
    """Keeps every sample: DataComp's baseline ``no_filter``."""

    name: ClassVar[str] = "no_filter"
    meaning: ClassVar[str] = "every sample"

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """All of them."""
        return np.ones(table.num_rows, bool)
