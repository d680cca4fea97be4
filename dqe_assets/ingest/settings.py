"""The settings of ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dqe_assets.ingest.fetch.settings import Fetching, Refetch
from dqe_assets.ingest.takedowns.settings import Takedowns
from dqe_resources.configurable import Strict
from dqe_resources.sources import AnySource, Source
from dqe_resources.sources.protocol import SourceError, source_of

if TYPE_CHECKING:
    from dqe_assets.ingest.takedowns.matching import Matcher
    from dqe_resources.store import Store


PROHIBITED = (
    "DMI-PROHIBITED",
    "DMI-PROHIBITED-AIMLTRAINING",
    "DMI-PROHIBITED-GENAIMLTRAINING",
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
    "DMI-PROHIBITED-SEECONSTRAINT",
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR",
    "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR",
)
"""PLUS's words for data mining that is prohibited, for all or for some uses: https://ns.useplus.org/LDF/."""


class ImageLimits(Strict):
    """What is refused before it is decoded, and what is made smaller.

    Attributes:
        max_bytes: A file of more bytes is not read.
        max_pixels: An image of more pixels is not decoded.
        disallowed_data_mining: What a file must not say of data mining in its XMP (PLUS, as IPTC recommends); an empty
            list ignores it.
        longest_side: Longest side in pixels: a larger image is resized to it. By default all are kept as found.
    """

    max_bytes: Annotated[int, Field(ge=1)] = 50_000_000
    max_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = 100_000_000
    disallowed_data_mining: tuple[str, ...] = PROHIBITED
    longest_side: Annotated[int, Field(ge=16)] | None = None


class IngestSettings(Strict):
    """The settings of ``raw_samples``.

    Attributes:
        sources: where image-caption pairs come from.
        images: what is refused before it is decoded, and what is made smaller.
        fetching: how images are fetched from the web.
        refetch: what of a shard is fetched again when it is made again.
        takedowns: what is taken down.
        max_distance: bits in which perceptual hashes of copies may differ.
        min_contrast: standard deviation of the luminance, 0 to 1, below which a perceptual hash says nothing.
    """

    sources: list[AnySource]
    images: ImageLimits = ImageLimits()
    fetching: Fetching = Fetching()
    refetch: Refetch = "transient"
    takedowns: Takedowns = Takedowns()
    max_distance: int = 8
    min_contrast: float = 0.02

    def signature(self) -> None:
        """Nothing: a shard depends only on its own source and on the present state of that source."""

    def matcher(self, store: Store) -> Matcher:
        """Says which rows are taken down; raises as ``matcher_of``."""
        from dqe_assets.ingest.takedowns.matching import matcher_of

        return matcher_of(self.takedowns, store, max_distance=self.max_distance, min_contrast=self.min_contrast)

    def source_of(self, shard: str) -> Source:
        """The source that a partition key belongs to.

        Raises:
            SourceError: no source of that name is configured.
        """
        name = source_of(shard)
        for source in self.sources:
            if source.name == name:
                return source
        names = ", ".join(source.name for source in self.sources)
        msg = f"data/dqe.yaml: shard {shard} belongs to no configured source; there are: {names}"
        raise SourceError(msg)
