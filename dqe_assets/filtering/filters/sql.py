"""Rows by an SQL condition."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, as_mask
from dqe_resources.models.packages import package_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        condition: Such as ``width > 300 and similarity > 0.2``; columns by their exact names.
    """

    name: ClassVar[str] = "sql"
    meaning: ClassVar[str] = "rows for which an SQL condition is true"
    condition: str

    @field_validator("condition")
    @classmethod
    def _speaks_of_a_row(cls, condition: str) -> str:
        found = list(nodes(syntax(condition)))
        for node in found:
            if node["class"] in _NOT_OF_A_ROW:
                raise ValueError(f"{_NOT_OF_A_ROW[node['class']]} is not of one row: {condition}")
        for function in dict.fromkeys(node["function_name"] for node in found if node["class"] == "FUNCTION"):
            _check_function(function)
        if not _columns(condition):
            raise ValueError(f"names no column: {condition}")
        return condition

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the condition names."""
        return _columns(self.condition)

    @property
    def versions(self) -> dict[str, str]:
        """DuckDB's."""
        return {"duckdb": package_version("duckdb")}

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the condition is true.

        Raises:
            FilterError: it cannot be computed, or is not a condition.
        """
        import pyarrow as pa

        named = pa.table({name: table.column(name) for name in self.columns})
        try:
            values = _run(_query(self.condition), rows=named).column(0)
        except ValueError as error:
            raise FilterError(f"sql: {error}: {self.condition}") from error
        if not pa.types.is_boolean(values.type):
            raise FilterError(f"sql: not a condition, but {values.type}: {self.condition}")
        return as_mask(values)


def _query(condition: str) -> str:
    # The line feed ends a comment.
    return f"SELECT ({condition}\n) FROM {_TABLE}"  # noqa: S608 - it is parsed first, and confined


def _run(query: str, parameters: Sequence[Any] = (), rows: pa.Table | None = None) -> pa.Table:
    """What a query gives that can reach nothing but some rows; ValueError if DuckDB refuses it."""
    result = _tried(query, parameters, rows)
    if isinstance(result, Exception):
        raise ValueError(" ".join(str(result).split()))  # noqa: TRY004 - a fault of the condition
    return result


def _tried(query: str, parameters: Sequence[Any], rows: pa.Table | None) -> pa.Table | Exception:
    # An error raised from here would hold on to the connection, which DuckDB reports at length when the process ends.
    import duckdb

    confined = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    with duckdb.connect(":memory:", config=confined) as connection:
        if rows is not None:
            connection.register(_TABLE, rows)
        try:
            return connection.sql(query, params=list(parameters)).to_arrow_table()
        except duckdb.Error as error:
            return error.with_traceback(None)


@cache
def _columns(condition: str) -> tuple[str, ...]:
    # samples.width, or a field of a struct: width.field
    paths = [node["column_names"] for node in nodes(syntax(condition)) if node["class"] == "COLUMN_REF"]
    return tuple(dict.fromkeys(path[1] if path[0] == _TABLE and len(path) > 1 else path[0] for path in paths))


def syntax(condition: str) -> Any:
    """The condition's syntax tree; ValueError if it is more or less than one condition."""
    trees = _run("SELECT json_serialize_sql(unnest(?)) AS tree", [[_query(condition), _query("true")]])
    found, plain = (json.loads(tree) for tree in trees["tree"].to_pylist())
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


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All expressions of a syntax tree."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value)


@cache
def _check_function(name: str) -> None:
    query = "SELECT function_type, stability FROM duckdb_functions() WHERE function_name = lower(?)"
    kinds = _run(query, [name])
    if {"aggregate", "window"} & set(kinds["function_type"].to_pylist()):
        raise ValueError(f"{name}() works on many rows; a condition is about one row")
    if not {None, "CONSISTENT"} >= set(kinds["stability"].to_pylist()):
        raise ValueError(f"{name}() can give another value each time; a condition must always give the same")
