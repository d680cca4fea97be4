"""Samples that are in a set that nothing may be trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dqe_assets.contamination.tables import KINDS
from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, as_mask

if TYPE_CHECKING:
    import pyarrow as pa

ANY = "contaminated"

OF_REFERENCE_SETS = frozenset({ANY, *(f"{ANY}_{kind}" for kind in KINDS)})
"""Columns that say whether a sample is in a reference set, at all or in one way."""


class Contaminated(Filter):
    """Samples that are in a reference set; ``~contaminated`` is all others.

    Attributes:
        kind: By the picture: exact, perceptual or semantic. By the text: caption or image_text. Or any of these.
    """

    name: ClassVar[str] = "contaminated"
    meaning: ClassVar[str] = "samples that are in a reference set: one that models are evaluated on"
    kind: Literal["any", "exact", "perceptual", "semantic", "caption", "image_text"] = "any"

    @property
    def columns(self) -> tuple[str, ...]:
        """Whether it is in one."""
        return (ANY if self.kind == "any" else f"{ANY}_{self.kind}",)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where a sample is in a reference set.

        Raises:
            FilterError: some samples were compared with none.
        """
        column = table.column(*self.columns)
        if column.null_count:
            raise FilterError(
                f"{self.text}: {column.null_count:,} samples were compared with no reference set; list the sets under "
                "reference_sets in dqe.yaml, then run: dqe materialize contamination"
            )
        return as_mask(column)
