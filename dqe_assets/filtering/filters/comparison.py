"""A column compared with a value, or with another column: ``nsfw < 0.1``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, as_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

Operator = Literal["<", "<=", ">", ">=", "==", "!=", "in", "not in"]
Value = StrictBool | StrictInt | StrictFloat | StrictStr
Kind = Literal["number", "text", "truth value"]

_FUNCTIONS = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
}
_LARGEST = 2**63 - 1


def kind_of(data_type: pa.DataType) -> Kind | None:
    """What a column of a type is compared as; None if it is not compared at all."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    if pa.types.is_boolean(data_type):
        return "truth value"
    if pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal(data_type):
        return "number"
    if pa.types.is_string(data_type) or pa.types.is_large_string(data_type):
        return "text"
    return None


class Comparison(Filter):
    """Rows whose value in a column compares so with a number, a text or a truth value, or with another column.

    A null, and a NaN, is kept by no comparison, ``!=`` and ``not in`` included. A number is compared in the column's
    own type, so that a score that was stored as 0.1 in 32 bits equals 0.1. Texts are compared by their code points.

    Attributes:
        column: The column.
        operator: How it is compared; ``in`` and ``not in`` with several values.
        value: With what: a value, or several.
        other: A column to compare with, in place of a value.
    """

    name: ClassVar[str] = "comparison"
    meaning: ClassVar[str] = "rows whose value in a column compares so"
    column: str
    operator: Operator
    value: Value | tuple[Value, ...] | None = None
    other: str | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        is_list = isinstance(self.value, tuple)
        if self.value == ():
            raise ValueError(f"{self.column} {self.operator} []: the list is empty")
        if self.operator in {"in", "not in"} and not is_list:
            raise ValueError(f"{self.operator} takes a list of values: {self.column} {self.operator} ['a', 'b']")
        if is_list and self.operator not in {"in", "not in"}:
            raise ValueError(f"{self.operator} takes one value; for several: {self.column} in [...]")
        if len(self._value_kinds) != 1 and self.other is None:
            raise ValueError(f"{self.operator} takes values of one kind: numbers, texts, or True and False")
        if self._value_kinds == {"truth value"}:
            self._check_order("truth value")
        if not all(math.isfinite(one) for one in self._values if not isinstance(one, str)):
            raise ValueError(f"{self.text}: a number is finite")
        return self

    @property
    def _values(self) -> tuple[Value, ...]:
        return self.value if isinstance(self.value, tuple) else () if self.value is None else (self.value,)

    @property
    def _value_kinds(self) -> set[Kind]:
        return {
            "truth value" if isinstance(one, bool) else "text" if isinstance(one, str) else "number"
            for one in self._values
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The column, and the other one."""
        return (self.column,) if self.other is None else tuple(dict.fromkeys((self.column, self.other)))

    @property
    def text(self) -> str:
        """As it is written in an expression."""
        value = f"[{', '.join(map(repr, self.value))}]" if isinstance(self.value, tuple) else repr(self.value)
        return f"{self.column} {self.operator} {value if self.other is None else self.other}"

    def check_types(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse to compare a text with a number, and what has no order by order.

        Args:
            types: of its columns.

        Raises:
            ValueError: says which column is what.
        """
        kinds: dict[str, Kind] = {}
        for name in self.columns:
            found = kind_of(types[name])
            if found is None:
                raise ValueError(f"{self.text}: {name} is {types[name]}, which is not compared; use sql('...')")
            kinds[name] = found
        kind = kinds[self.column]
        (with_kind,) = self._value_kinds if self.other is None else (kinds[self.other],)
        if kind != with_kind:
            advice = (
                "; text stands in quotes, and a value that is no number makes a column text" if kind == "text" else ""
            )
            raise ValueError(
                f"{self.text}: {self.column} is a {kind}, and what it is compared with a {with_kind}{advice}"
            )
        self._check_order(kind)

    def _check_order(self, kind: Kind) -> None:
        if kind == "truth value" and self.operator not in {"==", "!=", "in", "not in"}:
            raise ValueError(f"{self.text}: true and false are compared by == and !=")

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the comparison holds.

        Raises:
            FilterError: the column's type does not allow it.
        """
        try:
            self.check_types({name: table.column(name).type for name in self.columns})
        except ValueError as error:
            raise FilterError(str(error)) from error
        left = _plain(table.column(self.column))
        if self.other is not None:
            right = _plain(table.column(self.other))
            if left.type != right.type and kind_of(left.type) == "number":
                left, right = (one.cast(pa.float64(), safe=False) for one in (left, right))
            return as_mask(_FUNCTIONS[self.operator](left, right)) & _is_there(left) & _is_there(right)
        if pa.types.is_integer(left.type) and any(
            isinstance(one, float) or abs(one) > _LARGEST for one in self._values if not isinstance(one, str)
        ):
            left = left.cast(pa.float64(), safe=False)
        is_floating = pa.types.is_floating(left.type)
        compared = pa.array([float(one) if is_floating else one for one in self._values], left.type)
        if self.operator in _FUNCTIONS:
            return as_mask(_FUNCTIONS[self.operator](left, compared[0])) & _is_there(left)
        return (as_mask(pc.is_in(left, value_set=compared)) ^ (self.operator == "not in")) & _is_there(left)


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column in a type that Arrow compares: whole numbers as 64 bits, others as 32 or 64."""
    data_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(data_type):
        data_type = pa.int64() if data_type != pa.uint64() else pa.float64()
    elif pa.types.is_float16(data_type):
        data_type = pa.float32()
    elif pa.types.is_decimal(data_type):
        data_type = pa.float64()
    return column.cast(data_type, safe=False)


def _is_there(column: pa.Array | pa.ChunkedArray) -> Mask:
    """Where there is a value, bool [n]: neither null nor NaN."""
    return ~np.asarray(pc.is_null(column, nan_is_null=True))
