"""Captions of a given quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dqe_assets.filtering.filters.protocol import Filter, Mask, as_mask
from dqe_assets.filtering.filters.top_fraction import at_least, top_threshold
from dqe_assets.filtering.pool import TablePool, numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.filtering.pool import Pool


class CaptionQuality(Filter):
    """Captions within bounds of what the asset caption_scores measures of them.

    A caption that was not measured is not kept where a bound asks for the measure.

    Attributes:
        fraction: Share of the pool's most similar captions to keep, by the rule of clip_score; 1.0 sets no bound.
        min_similarity: Least cosine of caption and image in the scorer's space, -1 to 1.
        min_tokens: Fewest tokens, special ones included.
        max_tokens: Most tokens.
        allow_truncated: Whether to keep captions that are longer than the encoder reads.
    """

    name: ClassVar[str] = "caption_quality"
    meaning: ClassVar[str] = "captions within bounds of similarity and length"
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    allow_truncated: bool = True

    @model_validator(mode="after")
    def _one_bound_on_similarity(self) -> Self:
        if self.fraction is not None and self.min_similarity is not None:
            raise ValueError("give either fraction= or min_similarity=")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The measures that a bound is given for."""
        asked = {
            "similarity": self.fraction is not None or self.min_similarity is not None,
            "tokens": self.min_tokens is not None or self.max_tokens is not None,
            "truncated": not self.allow_truncated,
        }
        return tuple(column for column, is_asked in asked.items() if is_asked)

    @property
    def facts(self) -> dict[str, Any]:
        """The least similarity."""
        return {} if self.min_similarity is None else {"threshold": self.min_similarity}

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the least similarity that the fraction comes to."""
        if self.fraction is None:
            return self
        threshold = top_threshold(pools, "similarity", self.fraction)
        return self.model_copy(update={"fraction": None, "min_similarity": threshold})

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where every bound holds."""
        if self.fraction is not None:
            return self.fit([TablePool(table)]).mask(table)
        kept = np.ones(table.num_rows, bool)
        if self.min_similarity is not None:
            kept &= at_least(table.column("similarity"), self.min_similarity)
        if self.min_tokens is not None:
            kept &= at_least(table.column("tokens"), self.min_tokens)
        if self.max_tokens is not None:
            kept &= numbers(table.column("tokens")) <= self.max_tokens
        if not self.allow_truncated:
            kept &= as_mask(pc.invert(table.column("truncated")))
        return kept
