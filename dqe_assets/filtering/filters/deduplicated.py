"""The sample that each cluster of duplicates chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dqe_assets.filtering.filters.protocol import Filter, Mask, as_mask

if TYPE_CHECKING:
    import pyarrow as pa


class Deduplicated(Filter):
    """Samples that are their cluster's representative, or in no cluster.

    Where another rule drops the representative, nothing of the cluster is left: ``unique`` keeps another one.

    Attributes:
        kind: Which clusters: exact, perceptual, semantic, or any. The pool has a column ``is_representative_<kind>``,
            null for a sample in no cluster.
    """

    name: ClassVar[str] = "deduplicated"
    meaning: ClassVar[str] = "the sample that each cluster of duplicates chose"
    kind: Literal["exact", "perceptual", "semantic", "any"] = "any"

    @property
    def columns(self) -> tuple[str, ...]:
        """Whether it is the representative."""
        return (f"is_representative_{self.kind}",)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where a sample is not a copy of another."""
        return as_mask(table.column(*self.columns), null=True)
