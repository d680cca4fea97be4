"""The tables that hold a source's rows, laid end to end: read in batches, starting at any row."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.errors import one_line
from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.protocol import NoRowsError, Shard, SourceError
from dqe_resources.sources.texts import readable, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import fsspec

_BATCH_ROWS = 256

_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises at a damaged file: where it holds names that are not UTF-8, Python's own errors."""


class Part(Protocol):
    """A table of a source."""

    @property
    def name(self) -> str:
        """Its name within the source."""

    @property
    def location(self) -> str:
        """Its path or URL, for messages."""

    @property
    def state(self) -> tuple[Any, ...]:
        """JSON-like; changes whenever the rows may have changed."""

    @property
    def rows(self) -> int:
        """Its number of rows."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""

    @property
    def folder(self) -> Path | None:
        """Where paths in it count from; None if they mean nothing here."""

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[pa.RecordBatch]:
        """Some columns of the rows from ``first`` on, in small batches.

        Raises:
            SourceError: it is damaged.
        """


@dataclass(frozen=True)
class ParquetPart:
    """A Parquet file, local or on an fsspec file system, of which no more is read than the row groups in question."""

    name: str
    location: str
    state: tuple[Any, ...]
    path: Path | None = None
    filesystem: fsspec.AbstractFileSystem | None = field(default=None, compare=False)

    @classmethod
    def of(cls, path: Path, name: str) -> ParquetPart:
        """A local file."""
        return cls(name, readable(str(path)), file_state(path), path)

    @property
    def rows(self) -> int:
        """As ``Part.rows``."""
        return _footer(self)[0]

    @property
    def schema(self) -> pa.Schema:
        """As ``Part.schema``."""
        return _footer(self)[1]

    @property
    def folder(self) -> Path | None:
        """As ``Part.folder``."""
        return None if self.path is None else self.path.parent

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[pa.RecordBatch]:
        """As ``Part.read``."""
        with self.open() as file:
            number, groups = 0, []
            begin = None
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if number < first + count and number + rows > first:
                    groups.append(group)
                    begin = number if begin is None else begin
                number += rows
            at = begin or 0
            try:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=list(columns)):
                    start, stop = max(first - at, 0), min(first + count - at, batch.num_rows)
                    if start < stop:
                        yield batch.slice(start, stop - start)
                    at += batch.num_rows
            except _UNREADABLE as error:
                raise SourceError(f"{self.location}, after row {at:,}: damaged ({one_line(error)})") from error

    def open(self) -> pq.ParquetFile:
        """The file.

        Raises:
            SourceError: it is not Parquet.
        """
        try:
            if self.filesystem is None:
                file = pa.OSFile(os.fsencode(self.path or self.location))
                return pq.ParquetFile(file, page_checksum_verification=True)
            # Parquet knows exactly which bytes it wants: reading ahead would fetch the file's neighbouring images.
            handle = self.filesystem.open(self.location, cache_type="none")
            return pq.ParquetFile(handle, page_checksum_verification=True)
        except _UNREADABLE as error:
            raise SourceError(f"{self.location}: not a Parquet file ({one_line(error)})") from error


@lru_cache(maxsize=4096)
def _footer(part: ParquetPart) -> tuple[int, pa.Schema]:
    with part.open() as file:
        try:
            return file.metadata.num_rows, file.schema_arrow
        except _UNREADABLE as error:
            raise SourceError(f"{part.location}: its columns cannot be read ({one_line(error)})") from error


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of a file: they show whether it has changed."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def read_rows(
    parts: Iterable[Part], columns: Callable[[Part], Sequence[str]], first: int, count: int
) -> Iterator[tuple[Part, int, pa.RecordBatch]]:
    """The rows from ``first`` on of tables laid end to end: part, number of a batch's first row in it, batch."""
    offset = 0
    for part in parts:
        begin, end = max(first - offset, 0), min(first + count - offset, part.rows)
        if begin < end:
            number = begin
            for batch in part.read(columns(part), begin, end - begin):
                yield part, number, batch
                number += batch.num_rows
        offset += part.rows
        if offset >= first + count:
            return


def values_of(column: pa.Array, *, of_bytes: bool = False) -> list[Any]:
    """A column's values; bytes in a text that are not UTF-8 become surrogates, and what Python cannot hold is text.

    Bytes are texts too, as old writers of Parquet leave them without a word that they are: unless they are wanted.
    """
    if not of_bytes and _holds_bytes(column.type):
        return [_as_text(value) for value in values_of(column, of_bytes=True)]
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [_value_of(scalar) for scalar in column]


def _value_of(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        if isinstance(scalar, pa.DictionaryScalar):
            return _value_of(scalar.value)
        if isinstance(scalar, pa.StructScalar):
            return {name: _value_of(scalar[name]) for name in scalar}
        if isinstance(scalar, pa.ListScalar):
            return [_value_of(one) for one in scalar.values]
        if is_text(scalar.type):
            return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        return f"{scalar.type} {scalar.value}"


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def records_of(batch: pa.RecordBatch, of_bytes: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """A batch's rows, their values as ``values_of`` gives them: bytes only in the columns that are named."""
    columns = (
        values_of(column, of_bytes=name in of_bytes)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    )
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def shards_of(
    total: int, shard_size: int, first: int, digest: Callable[[int, int], str], left_out: LeftOut | None = None
) -> Iterator[Shard]:
    """``Source.shards`` of a source of ``total`` rows, given the digest of the rows from one up to another.

    What the source as a whole has left out is counted with its first shard.
    """
    for index in range(first, -(-total // shard_size)):
        start = index * shard_size
        stop = min(start + shard_size, total)
        yield Shard(index, stop - start, digest(start, stop), (left_out if index == 0 else None) or LeftOut())


def parts_digest(parts: Sequence[Part], first: int, last: int) -> str:
    """Digest of the rows from ``first`` up to ``last``: of the names and states of those tables that hold them."""
    held, offset = [], 0
    for part in parts:
        begin, end = max(first - offset, 0), min(last - offset, part.rows)
        if begin < end:
            held.append((part.name, part.state, begin, end))
        offset += part.rows
    return fingerprint(held)


def rows_of(parts: Sequence[Part]) -> int:
    """The rows of all tables.

    Raises:
        NoRowsError: there is none.
    """
    total = sum(part.rows for part in parts)
    if not total:
        also = f" and {len(parts) - 1:,} more" if len(parts) > 1 else ""
        raise NoRowsError(f"{(parts[0].name or parts[0].location) if parts else 'no table'}{also}: no rows in it")
    return total


def check_columns(part: Part, columns: Mapping[str, Callable[[pa.DataType], bool] | None], expected: str = "") -> None:
    """Refuse a table that lacks a column, has two of that name, or has one of another type than expected.

    Raises:
        SourceError: says the table, the column and what there is.
    """
    for column, accepts in columns.items():
        if (count := part.schema.names.count(column)) != 1:
            found = f"{count} columns" if count else "no column"
            msg = f"{part.location}: {found} '{column}'; there are: {shortened(', '.join(part.schema.names))}"
            raise SourceError(msg)
        kind = part.schema.field(column).type
        if accepts is not None and not accepts(kind):
            raise SourceError(f"{part.location}: column '{column}' is {kind}; expected {expected}")


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column holds text, or lists of texts."""
    return is_text(_member_of(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, or nothing at all."""
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(check(_plain(kind)) for check in checks)


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, or nothing at all."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null)
    return any(check(_plain(kind)) for check in checks)


def may_be_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, perhaps as bytes."""
    return is_text(kind) or is_binary(kind)


def may_be_texts(kind: pa.DataType) -> bool:
    """Whether a column holds text or lists of texts, perhaps as bytes, or lists of structs with a ``text``."""
    member = _member_of(kind)
    if member != kind and pa.types.is_struct(member):
        return any(child.name == "text" and may_be_text(child.type) for child in member)
    return may_be_text(member)


def _holds_bytes(kind: pa.DataType) -> bool:
    return is_binary(_member_of(kind))


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _member_of(kind: pa.DataType) -> pa.DataType:
    """The type of what a list holds, or the type itself."""
    checks = (
        *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        *(pa.types.is_list_view, pa.types.is_large_list_view),
    )
    return kind.value_type if any(check(kind) for check in checks) else kind
