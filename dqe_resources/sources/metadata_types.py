"""The types of what a source says of its rows besides URL and caption."""

from __future__ import annotations

import json
import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MetadataType = Literal["number", "text", "boolean"]

LOOKED_AT = 1000
"""Rows by which the types of a text file are told."""

_NO_VALUE = frozenset({"", "na", "n/a", "nan", "#n/a", "null", "none"})
_TRUTH_VALUES = {"true": True, "false": False}


def as_type(value: Any, kind: MetadataType) -> float | str | bool | None:
    """A value of ``source_metadata`` as one of a type; None if it stands for no value.

    Args:
        value: as JSON has it: CSV has numbers as texts.
        kind: the type.

    Raises:
        ValueError: it is none of that type.
    """
    if isinstance(value, str) and kind != "text":
        value = value.strip()
        if value.lower() in _NO_VALUE:
            return None
    if value is None or value == "":
        return None
    if kind == "text":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if kind == "boolean":
        if isinstance(value, str):
            value = _TRUTH_VALUES.get(value.lower())
        if isinstance(value, bool):
            return value
        raise ValueError
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    if not is_number:
        raise ValueError
    number = float(value)
    return None if math.isnan(number) else number


def types_of_rows(metadata: Iterable[str | None], names: Sequence[str]) -> dict[str, MetadataType]:
    """The types of some values, as the first rows have them; of a name without a value, text.

    Args:
        metadata: ``source_metadata`` of rows, of which the first ``LOOKED_AT`` are looked at.
        names: of the values.
    """
    rows = [json.loads(text) for text in islice(metadata, LOOKED_AT) if text]
    return {name: _type_of([row.get(name) for row in rows]) for name in names}


def _type_of(values: Sequence[Any]) -> MetadataType:
    kinds: tuple[MetadataType, ...] = ("boolean", "number")
    for kind in kinds:
        try:
            if any(as_type(value, kind) is not None for value in values):
                return kind
        except ValueError:
            continue
    return "text"


def types_of_columns(schema: pa.Schema, names: Sequence[str]) -> dict[str, MetadataType]:
    """The types of columns of a Parquet file; what is neither a number nor true or false is text."""
    return {name: _type_of_column(schema.field(name).type) for name in names}


def _type_of_column(data_type: pa.DataType) -> MetadataType:
    if pa.types.is_boolean(data_type):
        return "boolean"
    is_number = pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal(data_type)
    return "number" if is_number else "text"


def merged(types: Iterable[Mapping[str, MetadataType]]) -> dict[str, MetadataType]:
    """The types of the values of several sources: what two of them have in different types is text."""
    found: dict[str, MetadataType] = {}
    for one in types:
        for name, kind in one.items():
            found[name] = kind if found.get(name, kind) == kind else "text"
    return found
