"""The quality report: the sections that stages contribute, read from a warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dqe_assets.core.relations import in_order, sql_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa

    from dqe_assets.core.relations import Relations


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a heading, as people read it.

    Attributes:
        title: its heading.
        description: what it says.
        table: its rows.
        upright: whether a row is shown as a field in each line, those that are null left out.
    """

    title: str
    description: str
    table: pa.Table
    upright: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether it has no row, or nothing but names in its rows."""
        return all(column.null_count == len(column) for column in self.table.columns[1:])


def quality_report(
    connection: duckdb.DuckDBPyConnection, relations: Sequence[Relations], *, everything: bool = False
) -> list[Section]:
    """The quality report, section by section.

    Args:
        connection: a connection to a warehouse.
        relations: what the stages contribute, the same as the warehouse was built from.
        everything: also the sections that are left out where there is nothing of their kind.
    """
    sections = []
    for section in in_order(section for one in relations for section in one.report_sections):
        if section.only_with and not everything and not connection.sql(f"FROM {section.only_with} LIMIT 1").fetchall():
            continue
        description = section.description
        sections.append(
            Section(
                section.title,
                description if isinstance(description, str) else description(connection),
                connection.sql(sql_of(section.query)).to_arrow_table(),
            )
        )
    return sections
