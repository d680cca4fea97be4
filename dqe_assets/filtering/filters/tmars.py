"""T-MARS: captions that fit what is left of an image once its text is masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dqe_assets.filtering.filters.no_filter import NoFilter
from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.filters.top_fraction import at_least, top_threshold
from dqe_assets.filtering.pool import TablePool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from dqe_assets.filtering.pool import Pool

MASKED_SIMILARITY = "masked_similarity"


def tmars_mask(masked_similarity: ArrayLike, keep_fraction: float = 0.5) -> Mask:
    """Which samples T-MARS keeps: the best fraction by masked similarity, ties at the threshold among them.

    Args:
        masked_similarity: [n]; what is not finite has none and is not kept, but counts for the fraction as in
            DataComp's clip_score.
        keep_fraction: 0 to 1; the paper's half by default.

    Returns:
        bool [n].
    """
    return Tmars(keep_fraction=keep_fraction).mask(
        pa.table({MASKED_SIMILARITY: np.asarray(masked_similarity, np.float32)})
    )


class Tmars(Filter):
    """The best fraction by the similarity of caption and image, measured with the text in the image masked.

    Maini et al. (T-MARS, arXiv 2307.03132) keep the best half. The pool has a column ``masked_similarity``.

    Attributes:
        keep_fraction: The share to keep, by the rule of clip_score.
        threshold: The least similarity to keep; in place of keep_fraction.
    """

    name: ClassVar[str] = "tmars"
    meaning: ClassVar[str] = "among the best fraction by similarity once text in the image is masked"
    keep_fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.threshold is None) == (self.keep_fraction is None):
            raise ValueError("give either keep_fraction= or threshold=")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The similarity."""
        return (MASKED_SIMILARITY,)

    @property
    def facts(self) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the threshold that the fraction comes to."""
        if self.keep_fraction is None:
            return self
        threshold = top_threshold(pools, MASKED_SIMILARITY, self.keep_fraction)
        return NoFilter() if threshold is None else Tmars(threshold=threshold)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the similarity reaches the threshold."""
        if self.threshold is None:
            return self.fit([TablePool(table)]).mask(table)
        return at_least(table.column(MASKED_SIMILARITY), self.threshold)
