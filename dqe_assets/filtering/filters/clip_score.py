"""DataComp's CLIP score filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dqe_assets.filtering.filters.no_filter import NoFilter
from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.filters.top_fraction import at_least, top_threshold
from dqe_assets.filtering.pool import SCORES, TablePool

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.filtering.pool import Pool


class ClipScore(Filter):
    """Captions that fit their images, by the cosine of CLIP's embeddings.

    A row without a score is not kept, except by a fraction of 1.0, which keeps every row.

    Attributes:
        arch: The CLIP model: ``b32`` or ``l14``.
        threshold: The least score to keep.
        fraction: The share of best scores to keep, by the rule of ``top_threshold``; in place of threshold.
    """

    name: ClassVar[str] = "clip_score"
    meaning: ClassVar[str] = "a CLIP score of at least a threshold, or among the best fraction"
    arch: Literal["b32", "l14"]
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.threshold is None) == (self.fraction is None):
            raise ValueError("give either threshold= or fraction=")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The score."""
        return (SCORES[self.arch],)

    @property
    def facts(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the threshold that the fraction comes to."""
        if self.fraction is None:
            return self
        threshold = top_threshold(pools, SCORES[self.arch], self.fraction)
        return NoFilter() if threshold is None else ClipScore(arch=self.arch, threshold=threshold)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the score reaches the threshold."""
        if self.threshold is None:
            return self.fit([TablePool(table)]).mask(table)
        return at_least(table.column(SCORES[self.arch]), self.threshold)
