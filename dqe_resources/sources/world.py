"""The made world as a source."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import PIL
from pydantic import AfterValidator, Field

from dqe_resources.sources.parts import shards_of
from dqe_resources.sources.protocol import Name, Shard, ShardSize, Source
from dqe_resources.sources.world_scenes.scenes import CAPTION_KINDS, CaptionKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.sources.rows import SourceRow
    from dqe_resources.sources.world_scenes import World

_VERSION = "1"

Share = Annotated[float, Field(ge=0, le=1)]


def _whole(shares: dict[CaptionKind, float]) -> dict[CaptionKind, float]:
    total = math.fsum(shares.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ValueError(f"the shares sum to {total:g}, and must sum to 1")
    return shares


class WorldSource(Source):
    """Made scenes of drawings with web-like captions, of which everything is known: what `dqe study` trains on.

    The drawings are OpenMoji's (CC BY-SA 4.0), their names Unicode's. Needs the extra `study`.

    Attributes:
        rows_made: How many rows there are.
        seed: Decides everything: scenes, captions, and which concepts are frequent.
        concepts: How many concepts there are.
        side: Pixels of an image's side.
        zipf: Exponent of Zipf's law. The concept of rank r occurs in proportion to 1 / r ** zipf.
        near_copies: Share of rows that are near copies of an earlier row.
        caption_kinds: Share of rows whose caption is of each kind: right, partial, other_photo (0.25, 0.2 and 0.25 by
            default), generic, file_name and language (0.1 each). They sum to 1, and a kind that is left out has none.
    """

    kind: ClassVar[str] = "world"
    name: Name = "world"
    shard_size: ShardSize = 4_000
    license: Annotated[str | None, Field(exclude=True)] = "CC BY-SA 4.0 (drawings: OpenMoji)"
    rows_made: Annotated[int, Field(ge=1, le=100_000_000)] = 20_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    concepts: Annotated[int, Field(ge=2, le=149)] = 120
    side: Annotated[int, Field(ge=8, le=1024)] = 32
    zipf: Annotated[float, Field(ge=0, le=4)] = 1.0
    near_copies: Annotated[float, Field(ge=0, lt=1)] = 0.3
    caption_kinds: Annotated[dict[CaptionKind, Share], AfterValidator(_whole)] = Field(
        default_factory=CAPTION_KINDS.copy
    )

    @property
    def world(self) -> World:
        """The scenes and captions."""
        from dqe_resources.sources.world_scenes import World

        return World(self.seed, self.concepts, self.side, self.zipf, self.near_copies, self.caption_kinds)

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``."""
        made = f"{_VERSION} {PIL.__version__} {self.world!r}"
        digest = hashlib.sha256(made.encode()).hexdigest()
        return shards_of(self.rows_made, self.shard_size, first, lambda begin, end: f"{digest} {begin} {end}")

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        start = index * self.shard_size
        return map(self.world.row, range(start, min(start + self.shard_size, self.rows_made)))
