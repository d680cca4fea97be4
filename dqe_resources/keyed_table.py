"""Users' tables with a row for each sample: Parquet, CSV, TSV or JSON Lines, joined by a key."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.configurable import ExistingPath, Strict
from dqe_resources.errors import DataQualityError, WholeRunError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

_BLOCK_BYTES = 8 << 20
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (".parquet", *_SEPARATORS, *_JSON_LINES)


def column_types(path: Path) -> dict[str, pa.DataType]:
    """The columns of a file of ``TABLE_SUFFIXES``, with their types; of text as the first rows look.

    Raises:
        ArrowException, OSError: it cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        schema = pq.read_schema(path)
    else:
        with _reader(path, {}) as reader:
            schema = reader.schema
    return dict(zip(schema.names, schema.types, strict=True))


def column_batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """Some columns of a file of ``TABLE_SUFFIXES``, block by block; those of text are read as these types.

    Raises:
        ArrowException, OSError: it cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(columns=list(types))
    else:
        with _reader(path, types) as reader:
            for batch in reader:
                yield batch.select(list(types))


def _reader(path: Path, types: Mapping[str, pa.DataType]) -> Any:
    """A reader that is told the types of some columns: as a key, 007 is no number, and 2009-01-01 no moment."""
    suffix = path.suffix.lower()
    if suffix in _JSON_LINES:
        from pyarrow import json

        schema = pa.schema(list(types.items())) if types else None
        return json.open_json(
            path,
            json.ReadOptions(block_size=_BLOCK_BYTES),
            json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore" if types else "infer"),
        )
    from pyarrow import csv

    return csv.open_csv(
        path,
        csv.ReadOptions(block_size=_BLOCK_BYTES),
        csv.ParseOptions(delimiter=_SEPARATORS[suffix], newlines_in_values=True),
        csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""]),
    )


class TableError(DataQualityError):
    """A table cannot be read, or contradicts itself; says the file and the rows."""


class UnreadableTableError(TableError, WholeRunError):
    """A table cannot be read: so it is for every shard."""


class KeyedTable(Strict):
    """Settings that name a table, and its reader, which reads blocks and holds only the requested rows.

    Attributes:
        path: The file: .parquet, .csv, .tsv, .jsonl or .ndjson.
        key: Column of ``raw_samples`` that the table is joined by.
        key_column: Column of the table that holds the keys; by default it is called as ``key`` says.
    """

    holds: ClassVar[str]
    """What its first column of values holds, in the plural."""
    values_type: ClassVar[pa.DataType] = pa.string()
    """The type of the values."""

    path: ExistingPath
    key: Literal["uid", "url", "image_name"] = "uid"
    key_column: str | None = None

    @property
    @abstractmethod
    def value_columns(self) -> list[str]:
        """The columns that are read with the key; a row whose first one is empty counts as absent."""

    @model_validator(mode="after")
    def _columns_are_there(self) -> Self:
        if self.path.suffix.lower() not in TABLE_SUFFIXES or not self.path.is_file():
            raise PydanticCustomError(
                "table",
                "{path}: expected a file ending in {suffixes}",
                {"path": str(self.path), "suffixes": _listed(TABLE_SUFFIXES)},
            )
        try:
            found = list(column_types(self.path))
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise PydanticCustomError("table", "{error}", {"error": self._unreadable(error)}) from error
        for column in self._types:
            if column not in found:
                raise PydanticCustomError(
                    "table",
                    "{path} has no column '{column}'; it has: {found}",
                    {"path": str(self.path), "column": column, "found": _listed(found)},
                )
        return self

    @property
    def key_name(self) -> str:
        """What the key is called in the table."""
        return self.key_column or self.key

    def state(self) -> dict[str, Any]:
        """A state that changes whenever the file changes."""
        stat = self.path.stat()
        return {"bytes": stat.st_size, "modified": stat.st_mtime_ns}

    def find(self, keys: Sequence[str | None]) -> dict[str, tuple[int, dict[str, Any]]]:
        """Row number, from 1, and values by column, of each key that has a row.

        Raises:
            TableError: the file cannot be read, or has rows of one key that differ in the first column of values.
        """
        try:
            return self._find(keys)
        except (pa.ArrowException, OSError) as error:
            raise UnreadableTableError(self._unreadable(error)) from error

    def _find(self, keys: Sequence[str | None]) -> dict[str, tuple[int, dict[str, Any]]]:
        wanted = pa.array({key for key in keys if key is not None}, pa.string())
        first_value = self.value_columns[0]
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        first = 1
        for batch in column_batches(self.path, self._types):
            read = pa.table({name: batch.column(name).cast(kind) for name, kind in self._types.items()})
            inside = pc.and_(pc.is_in(read[self.key_name], value_set=wanted), pc.is_valid(read[first_value]))
            rows = pc.indices_nonzero(inside)
            for row, values in zip(rows.to_pylist(), read.take(rows).to_pylist(), strict=True):
                key = values[self.key_name]
                earlier, known = found.setdefault(key, (first + row, values))
                if known[first_value] != values[first_value]:
                    raise TableError(
                        f"{self.path}: rows {earlier:,} and {first + row:,} have the same {self.key_name} '{key}' and "
                        f"different {self.holds}; leave one of them, or join by another key"
                    )
            first += batch.num_rows
        return found

    @property
    def _types(self) -> dict[str, pa.DataType]:
        """The columns that are read, each with its type."""
        return dict.fromkeys(self.value_columns, self.values_type) | {self.key_name: pa.string()}

    def _unreadable(self, error: Exception) -> str:
        return f"{self.path}: cannot be read as {self.path.suffix} ({one_line(error)})"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
