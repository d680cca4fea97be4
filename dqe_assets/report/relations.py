"""What a table and a view of the warehouse are: their columns, each with its meaning, and the query that fills them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the warehouse."""

    name: str
    comment: str
    columns: dict[str, tuple[str, str]]
    """SQL type and meaning of each column."""
    select: str
    """The rows, columns in the order of ``columns``."""


@dataclass(frozen=True, slots=True)
class View:
    """A view of the warehouse."""

    name: str
    comment: str
    select: str
    columns: dict[str, str] = field(default_factory=dict)
    """Meaning of the columns that no table has under the same name."""


def meaning(schema: pa.Schema, name: str) -> str:
    """What a column of the store means, with its unit."""
    metadata: dict[bytes, bytes] = schema.field(name).metadata
    unit = metadata.get(b"unit")
    return metadata[b"description"].decode() + (f" [{unit.decode()}]" if unit else "")


def columns(schema: pa.Schema, **types: str) -> dict[str, tuple[str, str]]:
    """Columns that mean what they mean in the store."""
    return {name: (sql_type, meaning(schema, name)) for name, sql_type in types.items()}
