"""What a table and a view of the warehouse are: their columns, each with its meaning, and the query that fills them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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


@dataclass(frozen=True, slots=True)
class Relations:
    """What a stage adds to the warehouse."""


def meaning(schema: pa.Schema, name: str) -> str:
    """What a column of the store means, with its unit."""
    metadata: dict[bytes, bytes] = schema.field(name).metadata
    unit = metadata.get(b"unit")
    return metadata[b"description"].decode() + (f" [{unit.decode()}]" if unit else "")


def columns(schema: pa.Schema, **types: str) -> dict[str, tuple[str, str]]:
    """Columns that mean what they mean in the store."""
    return {name: (sql_type, meaning(schema, name)) for name, sql_type in types.items()}


def literal(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def meaning_of(value: str, meanings: Mapping[str, str]) -> str:
    """SQL of what a value means, by the meanings of all that it can be."""
    return f"MAP {{{', '.join(f'{literal(name)}: {literal(means)}' for name, means in meanings.items())}}}[{value}]"


def occurrences(table: str, lists: str, name: str, meanings: Mapping[str, str]) -> str:
    """SQL of how many captions of each source have each value of a column of lists: its meaning, share and an example.

    Args:
        table: table or view with ``uid``, ``caption_source`` and the column.
        lists: the column; null where there is nothing to count.
        name: what one of its values is called.
        meanings: the meaning of each value.
    """
    return f"""
        SELECT o.caption_source, o.{name}, {meaning_of(f"o.{name}", meanings)} AS meaning, count(*) AS captions,
            count(*) / any_value(t.total) AS share, arg_min(c.caption, o.uid) AS example
        FROM (SELECT uid, caption_source, unnest({lists}) AS {name} FROM {table}) o
        JOIN (SELECT caption_source, count({lists}) AS total FROM {table} GROUP BY ALL) t USING (caption_source)
        JOIN captions c USING (uid, caption_source)
        GROUP BY o.caption_source, o.{name}
        ORDER BY o.caption_source <> 'original', o.caption_source, captions DESC, o.{name}
        """  # noqa: S608
