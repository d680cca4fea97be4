"""Pools of samples, streamed column by column: DataComp's metadata folders, and anything that has the same columns.

A pool is cut into parts, such as files or shards. A part gives batches of just the columns that are asked for, by
DataComp's names; an embedding is a column too, of lists of one length.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import fsspec
    from numpy.typing import NDArray

UID = "uid"
TEXT = "text"
WIDTH = "original_width"
HEIGHT = "original_height"
SCORES = {"b32": "clip_b32_similarity_score", "l14": "clip_l14_similarity_score"}
"""Column of the cosine of caption and image by each of OpenAI's CLIP models, by its architecture."""

EMBEDDINGS = ("b32_img", "b32_txt", "l14_img", "l14_txt")
"""Columns of embeddings of images and captions by the same models: in DataComp's folders, arrays of the .npz next to
each Parquet."""

BATCH_ROWS = 131_072
EMBEDDING_BATCH_ROWS = 8_192

_COLUMN_BYTES_AHEAD = 4 << 20
_TORN = (zipfile.BadZipFile, zlib.error, OSError, EOFError)
_STRINGS = frozenset({UID, TEXT})
_NUMBERS = frozenset({WIDTH, HEIGHT, *SCORES.values()})


class PoolError(DataQualityError):
    """A pool cannot be read: says which file, which row or column, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a subset was made from.

    Attributes:
        path: relative to its pool.
        bytes: its size.
        digest: ``sha256:<hex>`` of its content, or for our own store ``fingerprint:<hex>`` of all that went into it.
    """

    path: str
    bytes: int
    digest: str


class Part(Protocol):
    """A piece of a pool that is read in one go, such as a file or a shard."""

    @property
    def name(self) -> str:
        """Its name, unique within the pool: what errors and manifests call it."""

    @property
    def rows(self) -> int:
        """How many samples it has."""

    def batches(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Its rows, in order, with these columns, and with the text what is known of its language.

        Raises:
            PoolError: a column is not there or cannot be read.
        """

    def files(self, columns: Sequence[str]) -> list[InputFile]:
        """What is read to give these columns."""


class Pool(Protocol):
    """Samples to choose from."""

    @property
    def name(self) -> str:
        """What errors, reports and manifests call it."""

    @property
    def parts(self) -> Sequence[Part]:
        """Its parts, always in the same order."""


def batch_rows(columns: Sequence[str]) -> int:
    """How many rows to read at once so that a batch takes some tens of megabytes."""
    return EMBEDDING_BATCH_ROWS if set(columns) & set(EMBEDDINGS) else BATCH_ROWS


def batches_of(pools: Sequence[Pool], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of all pools, batch by batch; columns and errors as of ``Part.batches``."""
    return (batch for pool in pools for part in pool.parts for batch in part.batches(columns, batch_rows(columns)))


@dataclass(frozen=True)
class TablePool:
    """A pool that is one table in memory, its own only part."""

    table: pa.Table | pa.RecordBatch
    name: str = "table"

    @property
    def parts(self) -> list[TablePool]:
        """Itself."""
        return [self]

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.table.num_rows

    def batches(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The table in batches.

        Raises:
            PoolError: it lacks a column.
        """
        for column in columns:
            _require(column, self.table.schema.names, self.name)
        table = pa.table(self.table) if isinstance(self.table, pa.RecordBatch) else self.table
        return iter(table.select(list(columns)).to_batches(max_chunksize=batch_rows))

    def files(self, columns: Sequence[str]) -> list[InputFile]:  # noqa: ARG002 - what every part answers
        """None: it is in memory."""
        return []


@dataclass(frozen=True)
class DataCompPool:
    """A folder or fsspec URL of DataComp metadata: Parquet files, and a .npz of embeddings next to each.

    Attributes:
        url: the folder.
        title: what to call the pool; by default its URL.
    """

    url: str
    title: str | None = None

    @property
    def name(self) -> str:
        """Its title, or the URL."""
        return self.title or self.url

    @cached_property
    def parts(self) -> list[MetadataFile]:
        """The Parquet files of the folder itself, sorted by name.

        Raises:
            PoolError: the folder cannot be listed, or there are none.
        """
        import fsspec

        try:
            filesystem, folder = fsspec.core.url_to_fs(self.url)
            found = sorted(path for path in filesystem.ls(folder, detail=False) if path.endswith(".parquet"))
        except (OSError, ValueError, ImportError) as error:
            raise PoolError(f"{self.url}: cannot be listed ({one_line(error)}); name a folder of metadata") from error
        if not found:
            raise PoolError(f"{self.url}: there is no .parquet file; name the folder that holds DataComp's metadata")
        return [MetadataFile(filesystem, path) for path in found]


@dataclass(frozen=True)
class MetadataFile:
    """One Parquet file of a DataComp pool and the .npz next to it."""

    filesystem: fsspec.AbstractFileSystem
    path: str

    @property
    def name(self) -> str:
        """Name of the Parquet file."""
        return self.path.rpartition("/")[2]

    @property
    def arrays_path(self) -> str:
        """Path of the .npz next to it."""
        return self.path.removesuffix(".parquet") + ".npz"

    @cached_property
    def rows(self) -> int:
        """Rows of the Parquet file, from its footer."""
        with self._parquet() as file:
            return file.metadata.num_rows

    def batches(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """As ``Part.batches``; text is checked to be UTF-8, embeddings to have a row for each of the Parquet's.

        Raises:
            PoolError: says the file and, where it is a row's fault, the row, counting from 0.
        """
        arrays = {name: _Embedding(self, name) for name in columns if name in EMBEDDINGS}
        try:
            first = 0
            for batch in self._table_batches([name for name in columns if name not in EMBEDDINGS], batch_rows):
                rows = batch.num_rows
                found = {
                    name: arrays[name].read(rows) if name in arrays else self._column(batch, name, first)
                    for name in columns
                }
                yield pa.RecordBatch.from_arrays(list(found.values()), names=list(found))
                first += rows
        finally:
            for array in arrays.values():
                array.close()

    def files(self, columns: Sequence[str]) -> list[InputFile]:
        """The Parquet file, and the .npz if an embedding is asked for."""
        paths = [self.path, self.arrays_path] if set(columns) & set(EMBEDDINGS) else [self.path]
        return [self._hashed(path) for path in paths]

    def _table_batches(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        with self._parquet() as file:
            for column in columns:
                _require(column, file.schema_arrow.names, self.path)
            # Without a column of the file's own, one is read for the number of rows.
            wanted = columns or file.schema_arrow.names[:1]
            try:
                yield from file.iter_batches(batch_rows, columns=wanted)
            except (OSError, pa.ArrowException) as error:
                raise PoolError(f"{self.path}: damaged ({one_line(error)}); fetch it again") from error

    def _column(self, batch: pa.RecordBatch, name: str, first: int) -> pa.Array:
        column, where = batch.column(name), f"{self.path}: column {name}"
        if name in _NUMBERS and pa.types.is_null(column.type):
            return column.cast(pa.float64())
        if name in _NUMBERS and not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise PoolError(f"{where} is {column.type}; expected numbers")
        if name in _STRINGS:
            try:
                column = column.cast(pa.string())
                column.validate(full=True)
            except pa.ArrowNotImplementedError as error:
                raise PoolError(f"{where} is {column.type}; expected text") from error
            except pa.ArrowInvalid as error:
                row = first + _first_not_utf8(column)
                raise PoolError(f"{where}, row {row} (counting from 0): not UTF-8; fix the row") from error
        return column

    def _parquet(self) -> pq.ParquetFile:
        try:
            # Arrow's own files read without the interpreter's lock.
            local = "file" in self.filesystem.protocol
            source = self.path if local else self.filesystem.open(self.path, "rb")
            return pq.ParquetFile(source, buffer_size=_COLUMN_BYTES_AHEAD, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise PoolError(
                f"{self.path}: torn or not Parquet ({one_line(error)}); fetch it again, or take it out of the folder"
            ) from error

    def _hashed(self, path: str) -> InputFile:
        try:
            with self.filesystem.open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                return InputFile(path.rpartition("/")[2], file.tell(), f"sha256:{digest.hexdigest()}")
        except OSError as error:
            raise PoolError(f"{path}: cannot be read ({one_line(error)})") from error


class _Embedding:
    """An array of a .npz, read a few rows at a time: the whole may be larger than memory."""

    def __init__(self, part: MetadataFile, name: str) -> None:
        self._where = f"{part.arrays_path}: {name}"
        try:
            self._file = part.filesystem.open(part.arrays_path, "rb")
        except OSError as error:
            raise PoolError(
                f"{part.arrays_path}: cannot be read ({one_line(error)}); "
                f"it must be in the same folder as {part.name} and hold the array {name}"
            ) from error
        try:
            self._member = self._opened(f"{name}.npy")
            self._width, self._dtype = self._shaped(part)
        except BaseException:
            self.close()
            raise

    def _opened(self, entry: str) -> IO[bytes]:
        try:
            archive = zipfile.ZipFile(self._file)
            there = archive.namelist()
            if entry in there:
                return archive.open(entry)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise PoolError(f"{self._where}: torn or not an archive ({one_line(error)}); fetch it again") from error
        arrays = ", ".join(found.removesuffix(".npy") for found in there)
        raise PoolError(f"{self._where} is missing; there are: {arrays or 'no arrays'}")

    def _shaped(self, part: MetadataFile) -> tuple[int, np.dtype]:
        """The numbers to a row, and their type, from the array's header."""
        try:
            version = np.lib.format.read_magic(self._member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = header(self._member)
        except (ValueError, *_TORN) as error:
            raise PoolError(f"{self._where}: torn or not an array ({one_line(error)}); fetch it again") from error
        if len(shape) != 2 or by_columns or dtype.kind != "f":
            found = f"{dtype} {list(shape)}{' by columns' if by_columns else ''}"
            raise PoolError(f"{self._where} is {found}; expected floating-point numbers [rows, d], row by row")
        rows, width = shape
        if rows != part.rows:
            raise PoolError(
                f"{self._where} has {rows:,} rows and {part.name} has {part.rows:,}: row {min(rows, part.rows)} "
                f"(counting from 0) is in only one of them; fetch both files again"
            )
        return width, dtype

    def read(self, rows: int) -> pa.FixedSizeListArray:
        """The next rows."""
        size = rows * self._width * self._dtype.itemsize
        try:
            data = self._member.read(size)
        except _TORN as error:
            raise PoolError(f"{self._where}: damaged ({one_line(error)}); fetch it again") from error
        if len(data) != size:
            raise PoolError(f"{self._where}: ends before its last row; fetch it again")
        values = np.frombuffer(data, self._dtype).astype(self._dtype.newbyteorder("="), copy=False)
        return pa.FixedSizeListArray.from_arrays(pa.array(values), self._width)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.number]:
    """A column of numbers as NumPy has it, null as NaN: [n], floating if there is a null, else of the column's type."""
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _first_not_utf8(texts: pa.StringArray) -> int:
    for row, text in enumerate(texts.cast(pa.binary()).to_pylist()):
        try:
            (text or b"").decode()
        except UnicodeDecodeError:
            return row
    raise AssertionError("every text is UTF-8")


def _require(column: str, there: Sequence[str], where: str) -> None:
    if column not in there:
        raise PoolError(f"{where}: column {column} is missing; there are: {', '.join(there)}")
