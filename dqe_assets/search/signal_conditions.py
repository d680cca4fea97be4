"""Conditions of a search on signals: the collection does not know them, the warehouse does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_resources.vectors import split_where, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dqe_resources.vectors import Index
    from dqe_resources.warehouse import Warehouse

_SQL = {"=": "=", "==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_FEW = 10_000
"""Samples of which the collection is told the uids; of more, what it finds is looked up."""


@dataclass(frozen=True)
class SignalConditions:
    """Conditions that must all hold of the signals of a sample; null meets none.

    Attributes:
        names: of the signals.
        sql: the conditions, with ? for each value.
        values: the values.
    """

    names: tuple[str, ...] = ()
    sql: str = ""
    values: tuple[Any, ...] = ()

    def few(self, warehouse: Warehouse) -> frozenset[str] | None:
        """The uids of the samples that meet them, or None if there are too many to name.

        Raises:
            ValueError: the warehouse does not have the signals yet.
            WarehouseError: there is no warehouse.
        """
        with warehouse.connect() as connection:
            there = connection.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = 'samples'")
            missing = sorted({*self.names} - {name for (name,) in there.fetchall()})
            if missing:
                msg = f"the warehouse does not have the signal {missing[0]} yet; run: dqe materialize"
                raise ValueError(msg)
            query = f"SELECT uid FROM samples WHERE {self.sql} LIMIT {_FEW + 1}"  # noqa: S608 - names of signals
            found = connection.execute(query, self.values).fetchall()
        return frozenset(uid for (uid,) in found) if len(found) <= _FEW else None

    def unmet(self, warehouse: Warehouse, uids: Iterable[str]) -> set[str]:
        """Those of some samples that do not meet them."""
        asked = list(uids)
        query = f"SELECT uid FROM samples WHERE uid IN (SELECT unnest(?)) AND {self.sql}"  # noqa: S608
        with warehouse.connect() as connection:
            met = connection.execute(query, [asked, *self.values]).fetchall()
        return {*asked} - {uid for (uid,) in met}


def take_signals(
    where: Iterable[str], signals: Mapping[str, pa.DataType]
) -> tuple[list[str], SignalConditions, dict[str, Index]]:
    """The conditions on signals, and the others.

    Args:
        where: conditions as people type them: ``nsfw<0.1``, ``lang!=en``, ``licensed=true``.
        signals: type of each signal; of a list of texts one of them is compared: ``review_tags=blurry``.

    Returns:
        The other conditions, those on signals, and the kind of each signal.

    Raises:
        ValueError: a value is not of its signal's type.
    """
    others, names, clauses, values = [], [], [], []
    for condition, field, operator, text in split_where(where):
        if field not in signals:
            others.append(condition)
            continue
        kind = _kind(signals[field])
        if kind != "float" and operator not in {"=", "==", "!="}:
            msg = f"'{field}' is not a number, so the only operators for it are = and !="
            raise ValueError(msg)
        # A number is compared in the column's own type, as filters do.
        if pa.types.is_list(signals[field]):
            # Of a sample without a list nothing is known: it meets neither.
            clauses.append(f'{"NOT " if operator == "!=" else ""}list_contains("{field}", ?)')
        else:
            clauses.append(f'"{field}" {_SQL[operator]} ?{"::FLOAT" if signals[field] == pa.float32() else ""}')
        names.append(field)
        values.append(value_of(field, text, kind))
    kinds = {name: _kind(kind) for name, kind in signals.items()}
    return others, SignalConditions(tuple(names), " AND ".join(clauses), tuple(values)), kinds


def _kind(data_type: pa.DataType) -> Index:
    if pa.types.is_boolean(data_type):
        return "bool"
    return "keyword" if pa.types.is_string(data_type) or pa.types.is_list(data_type) else "float"
