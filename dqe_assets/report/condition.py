"""A condition on rows of the warehouse that a person wrote, checked before it stands in a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.filtering.filters.sql import syntax
from dqe_resources.errors import one_line
from dqe_resources.warehouse import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    Query = Callable[[str], pa.Table]
    """Runs one SELECT on the warehouse, confined: ``Warehouse.session``."""


def checked_condition(query: Query, condition: str, table: str = "samples") -> Any:
    """The syntax tree of one condition on the rows of a table; it may ask other tables in subqueries.

    In brackets of its own, before which a line ends, the condition can then stand in a query as it is.

    Args:
        query: runs one SELECT on the warehouse, confined.
        condition: the condition.
        table: a table or view of the warehouse.

    Raises:
        ValueError: it is not one condition, is neither true nor false, or names a column that is not there.
    """
    try:
        (tree,) = syntax(condition)
    except ValueError as error:
        raise ValueError(one_line(error)) from error
    try:
        # Inside brackets of another kind, an unmatched closing bracket is an error: true) OR (true
        syntax(f"[{condition}\n]")
    except ValueError as error:
        raise ValueError(f"brackets do not match: {' '.join(condition.split())}") from error
    try:
        kind = query(f"SELECT ({condition}\n) AS kept FROM {table} LIMIT 0").schema.field("kept").type  # noqa: S608
    except QueryError as error:
        columns = query(f"SELECT * FROM {table} LIMIT 0").column_names  # noqa: S608
        raise ValueError(f"{error}; the columns of {table} are: {', '.join(columns)}") from error
    if not pa.types.is_boolean(kind):
        raise ValueError(f"expected a condition that is true or false, this gives {kind}: {condition}")
    return tree
