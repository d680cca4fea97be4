"""A random share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.pool import UID
from dqe_assets.filtering.subset import parse_uids, uniform_draws

if TYPE_CHECKING:
    import pyarrow as pa


class RandomSubset(Filter):
    """Keeps a sample by a hash of its uid and the seed.

    The same samples whatever the order, the batches and the pools that they come in, and a larger fraction keeps all
    that a smaller one does. What np.random.choice gives, as in the paper's random subsets, depends on the order of the
    rows, and needs all of them at once, but has exactly int(N * fraction) of them: here that is the expected number,
    with a standard deviation of sqrt(N * fraction * (1 - fraction)).

    Attributes:
        fraction: Share to keep.
        seed: Another seed keeps other samples.
    """

    name: ClassVar[str] = "random_subset"
    meaning: ClassVar[str] = "a random share, by a hash of the uid"
    fraction: Annotated[float, Field(ge=0, le=1)]
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The uid."""
        return (UID,)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the hash lies in the lowest ``fraction`` of its range; raises UidError."""
        return uniform_draws(parse_uids(table.column(UID)), self.seed) < self.fraction
