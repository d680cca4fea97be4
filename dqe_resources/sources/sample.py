"""The embedded sample as a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from dqe_resources.sources.parts import shards_of
from dqe_resources.sources.protocol import Name, Shard, ShardSize, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.sources.rows import SourceRow


class SampleSource(Source):
    """Real photos that come inside Python packages, with captions and planted faults."""

    kind: ClassVar[str] = "sample"
    name: Name = "sample"
    shard_size: ShardSize = 64
    license: Annotated[str | None, Field(exclude=True)] = "each photo its own"

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``."""
        from dqe_resources.sources.sample_images import SAMPLE_SIZE, sample_digest

        digest = sample_digest()
        return shards_of(SAMPLE_SIZE, self.shard_size, first, lambda _begin, _end: digest)

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        from dqe_resources.sources.sample_images import SAMPLE_SIZE, sample_rows

        start = index * self.shard_size
        return sample_rows(start, min(start + self.shard_size, SAMPLE_SIZE))
