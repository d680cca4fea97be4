"""The interface of a source."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr

from dqe_resources.configurable import Configurable, matching
from dqe_resources.errors import DataQualityError
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.metadata_types import MetadataType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from dqe_resources.sources.rows import SourceRow


class SourceError(DataQualityError):
    """A source cannot be read: says the file, the row or column, and what was expected."""


class NoRowsError(SourceError):
    """A source has no row: says where it looked, and for what."""


Name = Annotated[
    str,
    matching(r"^[a-z][a-z0-9_]{0,63}$", "a name: a small letter a to z, then up to 63 small letters, digits and _"),
]
"""A name that is safe as a partition key, an asset key, a file name and a column name."""

ShardSize = Annotated[int, Field(ge=1, le=1_000_000)]
"""Rows in a shard."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of consecutive rows of a source.

    Attributes:
        index: number of the shard in its source, from 0.
        rows: rows in it.
        digest: changes whenever the rows' content may have changed.
        left_out: what stands among them and is no row.
        uncaptioned: rows of which it is known, before they are read, that they have no caption.
    """

    index: int
    rows: int
    digest: str
    left_out: LeftOut = field(default_factory=LeftOut)
    uncaptioned: int = 0


def source_of(shard: str) -> str:
    """Name of the source that a partition key belongs to."""
    return shard.rpartition("-")[0]


class Source(Configurable):
    """Image-caption pairs from one place, cut into shards of ``shard_size`` rows.

    Attributes:
        name: Name of the source. It is the first part of each shard's name, such as holiday-00000.
        shard_size: Rows in a shard.
        min_success_rate: Share of a shard's rows that must have an image. Below it, the check of raw_samples fails.
        license: Licence of the samples. It is published with them and changes nothing but the asset rights.
        license_column: What of ``source_metadata`` is the licence of a row, where rows have licences of their own.
        attribution_column: What of ``source_metadata`` says whom to name for a row.
        metadata_types: Values of ``source_metadata`` that are columns of samples, by name, each number, text or
            boolean. Columns that ``metadata_columns`` names are too, with the types that their first rows have.
    """

    name: Name
    shard_size: ShardSize = 10_000
    min_success_rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    license: Annotated[str | None, Field(exclude=True)] = None
    license_column: Annotated[str | None, Field(exclude=True)] = None
    attribution_column: Annotated[str | None, Field(exclude=True)] = None
    # It changes nothing of the samples: they are not fetched again for it.
    metadata_types: Annotated[dict[str, MetadataType], Field(exclude=True)] = Field(default_factory=dict)

    @property
    def rights_columns(self) -> tuple[str, ...]:
        """What of ``source_metadata`` is needed for the rights of rows."""
        return tuple(dict.fromkeys(filter(None, (self.license_column, self.attribution_column))))

    def signature(self) -> dict[str, Any]:
        """As ``Configurable.signature``."""
        found = super().signature()
        return {**found, "rights_columns": self.rights_columns} if self.rights_columns else found

    _remembers: bool = PrivateAttr(default=False)
    _listed: dict[str, Shard] | None = PrivateAttr(None)

    @abstractmethod
    def shards(self, first: int = 0) -> Iterator[Shard]:
        """The shards from number ``first`` on, found without reading an image.

        Raises:
            SourceError: the source's own files cannot be read; ``NoRowsError``: there is no row.
        """

    @abstractmethod
    def rows(self, index: int) -> Iterator[SourceRow]:
        """The rows of a shard, in order.

        Raises:
            SourceError: the source's own files cannot be read. An image that cannot be read is no error: it is a row.
        """

    @property
    def fetches(self) -> bool:
        """Whether images of it may be fetched from the web: it has a column of URLs."""
        return getattr(self, "url_column", None) is not None

    @property
    def caption_places(self) -> str:
        """Where it looks for captions, for people."""
        return "what the source gives as captions"

    def typed_metadata(self) -> dict[str, MetadataType]:
        """The values of ``source_metadata`` that are columns of samples, with their types.

        Raises:
            SourceError: the source's own files are needed for that, and cannot be read.
        """
        return dict(self.metadata_types)

    def key(self, index: int) -> str:
        """Partition key of a shard."""
        return f"{self.name}-{index:05d}"

    def as_it_is_now(self) -> Self:
        """The same source, which is listed once, when it is first asked for its shards. It does not see later changes.

        To ask for every shard by its key then takes as long as to list them once.
        """
        copy = self.model_copy()
        copy._remembers = True  # noqa: SLF001 - its own class
        return copy

    def listed(self) -> dict[str, Shard]:
        """All shards in order, by their partition keys; raises as ``shards``."""
        if self._listed is not None:
            return self._listed
        found = {self.key(shard.index): shard for shard in self.shards()}
        if self._remembers:
            self._listed = found
        return found

    def shard(self, key: str) -> Shard:
        """The shard with a partition key.

        Raises:
            SourceError: the source has no such shard (any more).
        """
        if self._remembers and key in self.listed():
            return self.listed()[key]
        number = key.removeprefix(f"{self.name}-")
        shard = next(self.shards(int(number)), None) if number.isascii() and number.isdecimal() else None
        if shard is not None and self.key(shard.index) == key:
            return shard
        msg = f"source {self.name} has no shard {key}: it has become smaller; run: dqe sync"
        raise SourceError(msg)
