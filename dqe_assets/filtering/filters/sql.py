"""Rows by an SQL condition."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, as_mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb
    import pyarrow as pa

_TABLE = "samples"

_NOT_OF_A_ROW = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "LAMBDA": "a lambda",
    "PARAMETER": "a parameter",
}


class Sql(Filter):
    """Rows for which a DuckDB condition over the pool's columns is true; null is not.

    Over our own store the columns are those of the warehouse's table ``samples``. The condition speaks of one row at
    a time and always says the same of it: subqueries, aggregates, windows and functions such as ``random()`` and
    ``now()`` are refused. It reads nothing but the row.

    Attributes:
        condition: such as ``width > 300 and similarity > 0.2``; columns by their exact names.
    """

    name: ClassVar[str] = "sql"
    meaning: ClassVar[str] = "rows for which an SQL condition is true"
    condition: str

    @field_validator("condition")
    @classmethod
    def _speaks_of_a_row(cls, condition: str) -> str:
        with _connection() as connection:
            for node in _nodes(_syntax(connection, condition)):
                if node["class"] in _NOT_OF_A_ROW:
                    raise ValueError(f"{_NOT_OF_A_ROW[node['class']]} is not of one row: {condition}")
                if node["class"] == "FUNCTION":
                    _check_function(connection, node["function_name"])
        if not _columns(condition):
            raise ValueError(f"names no column: {condition}")
        return condition

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the condition names."""
        return _columns(self.condition)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the condition is true.

        Raises:
            FilterError: it cannot be computed, or is not a condition.
        """
        import duckdb
        import pyarrow as pa

        with _connection() as connection:
            connection.register(_TABLE, pa.table({name: table.column(name) for name in self.columns}))
            try:
                relation = connection.sql(f"SELECT ({self.condition}\n) FROM {_TABLE}")  # noqa: S608 - its syntax is checked
                if relation.types != ["BOOLEAN"]:
                    raise FilterError(f"sql: not a condition, but {relation.types[0]}: {self.condition}")
                return as_mask(relation.to_arrow_table().column(0))
            except duckdb.Error as error:
                raise FilterError(f"sql: {' '.join(str(error).split())}: {self.condition}") from error


@cache
def _columns(condition: str) -> tuple[str, ...]:
    with _connection() as connection:
        nodes = [node for node in _nodes(_syntax(connection, condition)) if node["class"] == "COLUMN_REF"]
    # samples.width, or a field of a struct: width.field
    paths = [node["column_names"] for node in nodes]
    return tuple(dict.fromkeys(path[1] if path[0] == _TABLE and len(path) > 1 else path[0] for path in paths))


def _connection() -> duckdb.DuckDBPyConnection:
    import duckdb

    confined = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    return duckdb.connect(":memory:", config=confined)


def _syntax(connection: duckdb.DuckDBPyConnection, condition: str) -> Any:
    """The condition's syntax tree; ValueError if it is more or less than one condition."""

    def parsed(text: str) -> dict[str, Any]:
        # The line feed ends a comment.
        query = f"SELECT ({text}\n) FROM {_TABLE}"  # noqa: S608 - it is only parsed
        return json.loads(connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])

    found, plain = parsed(condition), parsed("true")
    if found["error"]:
        raise ValueError(f"not an SQL condition: {found['error_message']}: {condition}")
    # A set operation has no list of its own, and brackets that close what is not theirs leave another statement.
    lists = [statement["node"].pop("select_list", []) for statement in (*found["statements"], *plain["statements"])]
    if _without_places(found) != _without_places(plain) or len(lists[0]) != 1:
        raise ValueError(f"not one SQL condition: {condition}")
    return lists[0]


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items() if not key.startswith("query_location")}
    return [_without_places(value) for value in tree] if isinstance(tree, list) else tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All expressions of a syntax tree."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _check_function(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    kinds = connection.execute(
        "SELECT DISTINCT function_type, stability FROM duckdb_functions() WHERE function_name = lower(?)", [name]
    ).fetchall()
    if any(kind in {"aggregate", "window"} for kind, _ in kinds):
        raise ValueError(f"{name}() is of many rows; a condition speaks of one")
    if any(stability not in {None, "CONSISTENT"} for _, stability in kinds):
        raise ValueError(f"{name}() does not always give the same; a condition must")
