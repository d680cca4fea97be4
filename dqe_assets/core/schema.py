"""Columns with a meaning and a unit, and the Arrow schemas that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable


ORIGINAL = "original"
"""The caption source that every sample has: the caption it came with."""


IMAGE = "image"
"""The item of ``joint_embeddings`` that is the picture itself; the others are caption sources."""


REFINED = "refined"
"""The caption source of captions that were asked for again, and fit better than what was there."""


REVIEWED = "reviewed"
"""The caption source of captions that a person has written or chosen."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, meaning and, where it is a quantity, unit."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = True

    def field(self) -> pa.Field:
        """The Arrow field, its description and unit kept as field metadata."""
        metadata = {"description": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


def table_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a list of columns."""
    return pa.schema([column.field() for column in columns])


UID = Column("uid", pa.string(), "128-bit hex digest of the source's own key of the row", nullable=False)


FAULT = Column("fault", pa.string(), "what went wrong with the sample's image here; null if nothing did")
"""Of a table with a row for each image: one that cannot be worked on has this, and null in the other columns."""


EMBEDDING = pa.list_(pa.float16())


IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What Hugging Face datasets calls an Image feature."""


INTERVAL_ENDS = {"": "", "_low": "lower end", "_high": "upper end"}


SYNTHETIC_CAPTIONS_PREFIX = "synthetic_captions/"


def has_image(raw_samples: pa.Table) -> pa.ChunkedArray:
    """Which rows of ``raw_samples`` have an image, by their column ``status``: bool, without nulls."""
    return pc.equal(raw_samples["status"], "ok")
