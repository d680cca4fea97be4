"""Signals: values of samples that expressions, the table ``samples`` and the gallery know by names of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.relations import meaning

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dqe_assets.core.stage import Stage

_SQL_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
}


@dataclass(frozen=True, slots=True)
class Signal:
    """A column of a per-shard table, which has a row for each row of ``raw_samples``, in their order.

    Attributes:
        name: what expressions and the table ``samples`` call it.
        asset: the asset.
        column: its column: of truth values, whole numbers or floating ones of 32 or 64 bits, or texts.
        schema: the asset's.
        item: of a table with a row for each item of a sample, as ``joint_embeddings`` is, the item; such a column may
            be an embedding, which expressions alone know.
    """

    name: str
    asset: str
    column: str
    schema: pa.Schema
    item: str | None = None

    @property
    def type(self) -> pa.DataType:
        """Type of the column."""
        return self.schema.field(self.column).type

    @property
    def sql_type(self) -> str:
        """The same in SQL."""
        return _SQL_TYPES[self.type]

    @property
    def meaning(self) -> str:
        """What its values mean, with their unit."""
        return meaning(self.schema, self.column)


def signals_of(stages: Iterable[Stage]) -> dict[str, Signal]:
    """The signals that stages make, by their names.

    Raises:
        ValueError: two signals have one name, or one of them is of a type that no signal has.
    """
    found: dict[str, Signal] = {}
    for one in stages:
        for name, column in one.signals.items():
            if one.schema is None or one.schema.field(column).type not in _SQL_TYPES:
                msg = f"{one.name}: {column} is no column that can be the signal {name}"
                raise ValueError(msg)
            if name in found:
                msg = f"{found[name].asset} and {one.name} have one name, {name}, for their signals"
                raise ValueError(msg)
            found[name] = Signal(name, one.name, column, one.schema)
    return found
