"""Samples that people gave a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow.compute as pc

from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.pool import whole

if TYPE_CHECKING:
    import pyarrow as pa


class Tagged(Filter):
    """Samples that people gave this tag with ``dqe review import``.

    Attributes:
        tag: The tag.
    """

    name: ClassVar[str] = "tagged"
    meaning: ClassVar[str] = "samples that people gave a tag"
    tag: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The tags of each sample."""
        return ("review_tags",)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the tag is among those of a sample."""
        tags = whole(table.column("review_tags"))
        has = np.zeros(len(tags), bool)
        found = pc.equal(pc.list_flatten(tags), self.tag)
        has[pc.list_parent_indices(tags).filter(found).to_numpy()] = True
        return has
