"""Tables as Parquet files: how they are written, which of their rows are read, and whether they fit their schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_resources.errors import one_line
from dqe_resources.store.atomic import StorageError, TornError
from dqe_resources.store.remote import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow.dataset as ds
    import pyarrow.parquet as pq
    from pyarrow import fs

    from dqe_resources.store.place import Place


def verified_dataset(
    paths: Sequence[str], schema: pa.Schema, columns: Sequence[str], place: Place | None = None
) -> ds.Dataset:
    """Columns of Parquet files as one table that is read as it is needed, its checksums verified each time.

    Args:
        paths: of the files.
        schema: of their table.
        columns: those to read.
        place: of the store that they are in; by default they are on this machine.

    Raises:
        StorageError: a file is torn, or lacks a column.
        StoreAwayError: the store cannot be reached, or refuses.
    """
    import pyarrow.dataset as ds
    from pyarrow import fs

    filesystem = fs.LocalFileSystem() if place is None or place.is_local else _as_needed(place)
    # Whoever reads a dataset need not know of checksums: DuckDB has no notion of them.
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    file_format = ds.ParquetFileFormat(default_fragment_scan_options=options)
    fragments = [file_format.make_fragment(path, filesystem) for path in paths]
    for path, fragment in zip(paths, fragments, strict=True):
        try:
            found = fragment.physical_schema
        except (pa.ArrowException, OSError) as error:
            raise TornError(f"{path}: torn or not Parquet ({one_line(error)})") from error
        # A column that is not there would be read as nulls.
        check_schema(found, schema, path, columns, "run: dqe materialize")
    read = pa.schema([schema.field(name).remove_metadata() for name in columns])
    return ds.FileSystemDataset(fragments, read, file_format, filesystem)


def _as_needed(place: Place) -> fs.FileSystem:
    """A place as Arrow's datasets read it: what is asked for, and nothing ahead of that."""
    from pyarrow import PythonFile, fs

    class Handler(fs.FSSpecHandler):  # type: ignore[misc]
        def open_input_file(self, path: str) -> PythonFile:
            try:
                return PythonFile(place.open(path), mode="r")
            except FileNotFoundError:
                raise
            except storage_errors() as error:
                raise place.unreadable(path, error) from error

    return fs.PyFileSystem(Handler(place.filesystem))


def rows_per_group(table: pa.Table, size: int) -> int:
    """Rows that make a row group of so many bytes: a few rows with images can then be read without all the others."""
    return max(1, table.num_rows * size // max(table.nbytes, 1))


def take_rows(file: pq.ParquetFile, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Some rows of a Parquet file, by ascending position, reading no more than the row groups that hold them."""
    empty = pa.schema([file.schema_arrow.field(name) for name in columns]).empty_table()
    return pa.concat_tables(list(row_groups(file, rows, columns)) or [empty])


def row_groups(file: pq.ParquetFile, rows: Sequence[int], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The same rows, those of one row group after another."""
    first, wanted = 0, np.asarray(rows, np.int64)
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        inside = wanted[(wanted >= first) & (wanted < first + count)] - first
        if inside.size:
            yield file.read_row_group(group, columns=list(columns)).take(pa.array(inside))
        first += count


def column_options(schema: pa.Schema) -> dict[str, Any]:
    """How each leaf column is written: bytes are images, which are compressed already, and hardly two of them equal."""
    leaves = dict(leaf for field in schema for leaf in _leaves(field, field.name))
    others = [path for path, kind in leaves.items() if not pa.types.is_binary(kind)]
    codecs = {path: "zstd" if path in others else "none" for path in leaves}
    return {"compression": codecs, "use_dictionary": others, "write_statistics": others}


def _leaves(field: pa.Field, path: str) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_struct(field.type):
        for child in field.type:
            yield from _leaves(child, f"{path}.{child.name}")
    elif pa.types.is_list(field.type):
        yield from _leaves(field.type.value_field, f"{path}.list.element")
    else:
        yield path, field.type


def conform(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """The table with exactly the schema's columns, types and order; ``path`` is for messages.

    Raises:
        StorageError: a column is missing, unknown, of another type, or has nulls that the schema does not allow.
    """
    expected, found = schema.names, table.column_names
    if set(expected) != set(found):
        raise StorageError(
            f"{path}: the columns of the table to write differ from the declared ones: "
            f"missing {sorted(set(expected) - set(found))}, unknown {sorted(set(found) - set(expected))}"
        )
    for column in schema:
        values = table.column(column.name)
        if values.type != column.type:
            raise StorageError(f"{path}: column {column.name} is {values.type}, declared {column.type}")
        if not column.nullable and values.null_count:
            raise StorageError(f"{path}: column {column.name} has {values.null_count} nulls and is declared without")
    return table.select(expected).cast(schema)


def check_schema(found: pa.Schema, expected: pa.Schema, path: str, columns: Sequence[str] | None, fix: str) -> None:
    """Refuse a file without the columns that are wanted, or with other types; None wants all that are expected.

    Raises:
        StorageError: names the file and the column, and says how to ``fix`` it.
        LookupError: a column is asked for that is not expected.
    """
    unknown = [name for name in columns or () if name not in expected.names]
    if unknown:
        raise LookupError(f"{path}: there is no column {unknown[0]}; there are: {', '.join(expected.names)}")
    for column in expected:
        if columns is not None and column.name not in columns:
            continue
        if column.name not in found.names:
            raise StorageError(f"{path}: column {column.name} is missing: written by another version; {fix}")
        if found.field(column.name).type != column.type:
            raise StorageError(
                f"{path}: column {column.name} is {found.field(column.name).type}, expected {column.type}: "
                f"written by another version; {fix}"
            )
