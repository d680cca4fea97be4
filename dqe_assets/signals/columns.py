"""Which columns of a user's table can be signals, of which type, and their values, checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_resources.errors import WholeRunError, one_line
from dqe_resources.keyed_table import TableError, column_batches, column_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NUMBER, TEXT, TRUTH_VALUE = pa.float64(), pa.string(), pa.bool_()

_TEXT_FILES = (".csv", ".tsv")
_NO_VALUE = ("", "na", "n/a", "nan", "-nan", "#n/a", "null", "none", "nil")
"""What stands in text files for no number and no truth value, in small letters."""
_TRUTH_VALUES = ("true", "false")
_WORDS = {NUMBER: "a number", TRUTH_VALUE: "true or false", TEXT: "text"}


class SignalsError(TableError, WholeRunError):
    """A table of signals cannot be used: so it is for every shard."""


def signal_types(path: Path) -> tuple[dict[str, pa.DataType], dict[str, str]]:
    """The columns of a file that can be signals, and the others.

    Numbers of Parquet keep their size, of 32 or 64 bits; dates and times are texts in ISO 8601. Numbers of text files
    are floating ones of 64 bits; what their columns hold is told by their first 8 MiB.

    Args:
        path: Parquet, CSV, TSV or JSON Lines.

    Returns:
        The type of each column that can be a signal, and for each other one why it cannot.

    Raises:
        ArrowException, OSError: it cannot be read.
    """
    found = column_types(path)
    if path.suffix.lower() in _TEXT_FILES:
        first = next(column_batches(path, dict.fromkeys(found, pa.string())), None)
        found = {name: _type_of_texts(first.column(name)) if first else pa.null() for name in found}
    elif path.suffix.lower() != ".parquet":
        found = {name: pa.float64() if pa.types.is_integer(one) else one for name, one in found.items()}
    types = {name: signal_type(one) for name, one in found.items()}
    refused = {
        name: "it has no value in its first rows" if pa.types.is_null(found[name]) else f"it is {found[name]}"
        for name, one in types.items()
        if one is None
    }
    return {name: one for name, one in types.items() if one is not None}, refused


def signal_type(data_type: pa.DataType) -> pa.DataType | None:
    """The type of a signal that is made of a column of a type; None if none is."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    if pa.types.is_boolean(data_type):
        return pa.bool_()
    if pa.types.is_float16(data_type) or pa.types.is_float32(data_type):
        return pa.float32()
    if pa.types.is_floating(data_type) or pa.types.is_decimal(data_type) or data_type == pa.uint64():
        return pa.float64()
    if pa.types.is_integer(data_type):
        return pa.int64()
    is_text = pa.types.is_string(data_type) or pa.types.is_large_string(data_type) or pa.types.is_temporal(data_type)
    return pa.string() if is_text else None


def _type_of_texts(texts: pa.Array) -> pa.DataType:
    """What the texts of a column stand for: numbers, truth values, or texts."""
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(texts.drop_null()))
    values = lowered.filter(pc.invert(pc.is_in(lowered, pa.array(_NO_VALUE))))
    if not len(values):
        return pa.null()
    if pc.all(pc.is_in(values, pa.array(_TRUTH_VALUES))).as_py():
        return TRUTH_VALUE
    try:
        values.cast(NUMBER)
    except pa.ArrowInvalid:
        return TEXT
    return NUMBER


def typed_batches(
    path: Path, key_column: str, columns: Mapping[str, tuple[str, pa.DataType]]
) -> Iterator[pa.RecordBatch]:
    """Keys and signals of all rows of a file, block by block.

    Args:
        path: the file.
        key_column: the column of keys.
        columns: of each signal, by its name: the column, and its type by ``signal_types``.

    Yields:
        ``key`` (string), ``table_row`` (int64, from 1), and each signal by its name; no number is NaN.

    Raises:
        SignalsError: a value is not of its column's type: says the row, the column and the value.
        ArrowException, OSError: it cannot be read.
    """
    is_text_file = path.suffix.lower() in _TEXT_FILES
    # As a key, 007 is no number.
    read = {column: TEXT if is_text_file else kind for column, kind in columns.values()} | {key_column: TEXT}
    first = 1
    try:
        for batch in column_batches(path, read):
            arrays = {
                name: _values(path, batch.column(column), column, kind, first)
                for name, (column, kind) in columns.items()
            }
            rows = pa.array(range(first, first + batch.num_rows), pa.int64())
            keys = batch.column(key_column).cast(TEXT)
            yield pa.RecordBatch.from_pydict({"key": keys, "table_row": rows, **arrays})
            first += batch.num_rows
    except pa.ArrowInvalid as error:
        raise first_wrong(path, dict(columns.values())) or error from error


def _values(path: Path, column: pa.Array, name: str, kind: pa.DataType, first: int) -> pa.Array:
    """The values of a block as signals."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type == kind == TEXT:
        return column
    if column.type == TEXT:
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        column = pc.if_else(pc.is_in(lowered, pa.array(_NO_VALUE)), None, lowered)
    try:
        values = column.cast(kind, safe=not pa.types.is_floating(kind) or column.type == TEXT)
    except pa.ArrowInvalid:
        for row, value in enumerate(column):
            try:
                value.cast(kind)
            except pa.ArrowInvalid:
                raise _wrong(path, first + row, name, value.as_py(), kind) from None
        raise
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), None, values)
    return values


def first_wrong(path: Path, kinds: Mapping[str, pa.DataType]) -> SignalsError | None:
    """The first value of JSON Lines that is not of its column's type; None of other files.

    Args:
        path: the file.
        kinds: type of each column; none for that of the values before it.
    """
    if path.suffix.lower() in {".parquet", *_TEXT_FILES}:
        return None
    known = dict(kinds)
    with path.open(encoding="utf-8", errors="replace") as lines:
        for row, line in enumerate((line for line in lines if line.strip()), 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                return SignalsError(f"{path}, row {row:,}: no JSON ({one_line(error)}); correct it")
            if not isinstance(record, dict):
                return SignalsError(f"{path}, row {row:,}: no JSON object; correct it")
            for name in record if not kinds else record.keys() & kinds.keys():
                kind = _type_of_json(record[name])
                if kind is not None and known.setdefault(name, kind) != kind:
                    return _wrong(path, row, name, record[name], known[name])
    return None


def _type_of_json(value: object) -> pa.DataType | None:
    """The type of a signal that a value is one of; None of no value."""
    if value is None:
        return None
    if isinstance(value, bool):
        return TRUTH_VALUE
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else pa.null()


def _wrong(path: Path, row: int, name: str, value: object, kind: pa.DataType) -> SignalsError:
    return SignalsError(
        f"{path}, row {row:,}: column {name} is {value!r:.80}, and {_WORDS.get(kind, kind)} by the rows before it; "
        "correct it, or leave the column out with columns: [...]"
    )
