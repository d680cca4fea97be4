"""Finished rows of a partition, saved while the rest is still being made, so that a kill loses little."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa

from dqe_resources.store.remote import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from dqe_resources.store.storage import Store

UNFINISHED = ".unfinished"
"""Folder of an asset that holds the finished rows of partitions that are still being made."""

_SUFFIX = ".arrow"
_IN_MEMORY_BYTES = 64 << 20
_CHECKSUM_BYTES = 4


def remove_finished(store: Path) -> int:
    """Remove the rows of partitions whose tables were written after them; returns how many files.

    A kill came between the two. The next time that the partition is made, they would be taken for its rows.
    """
    removed = 0
    for folder in store.glob(f"**/{UNFINISHED}/*"):
        kept = list(folder.rglob(f"*{_SUFFIX}"))
        table = folder.parent.parent / f"{folder.name}.parquet"
        with contextlib.suppress(FileNotFoundError):
            written = table.stat().st_mtime_ns
            if all(path.stat().st_mtime_ns <= written for path in kept):
                shutil.rmtree(folder)
                removed += len(kept)
    return removed


class _Latest:
    """The latest of a checkpoint's tables, by the paths of their files, as many as memory may hold."""

    def __init__(self) -> None:
        self.tables: dict[str, pa.Table] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, path: str, table: pa.Table) -> None:
        """Add one in place of the oldest."""
        with self._lock:
            self.tables[path] = table
            self._bytes += table.nbytes
            while self._bytes > _IN_MEMORY_BYTES:
                self._bytes -= self.tables.pop(next(iter(self.tables))).nbytes


class _Summed:
    """A file that is written, and the CRC-32 of what has been."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.crc, self.length = 0, 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """As ``BinaryIO.write``."""
        self.crc = zlib.crc32(data, self.crc)
        self.length += len(data)
        return self._target.write(data)

    def tell(self) -> int:
        """As ``BinaryIO.tell``."""
        return self.length

    def flush(self) -> None:
        """As ``BinaryIO.flush``."""


@dataclass(frozen=True)
class Checkpoint:
    """Finished rows of a partition, in files next to the asset's tables, until the partition itself is written.

    They are Arrow files, which cost little to write and nothing to decode: they are soon read again and removed. A
    checksum stands behind each, since Arrow has none, and is verified when a file of this machine is first read; object
    stores verify their own. The latest rows are read from memory. Rows belong to one version, the fingerprint of what
    goes into the partition: those of another version are never mixed in. Several writers may append at once.

    Attributes:
        store: the store that the partition belongs to.
        asset: name of the asset.
        partition: the shard.
        version: fingerprint of everything that goes into the partition.
    """

    store: Store
    asset: str
    partition: str
    version: str
    _latest: _Latest = field(default_factory=_Latest, init=False, repr=False, compare=False)
    _whole: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def rows(self, schema: pa.Schema) -> pa.Table:
        """All appended rows, in no particular order; a file that cannot be read is left out."""
        tables = []
        for path in self.files():
            # A kill on a file system without atomic renames can leave a torn file; its rows are made again.
            with contextlib.suppress(pa.ArrowException, OSError):
                tables.append(self.read(path, schema))
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def files(self) -> list[str]:
        """The files that hold the rows, one for each time that some were appended."""
        folder = f"{self._folder}/{self.version}"
        return sorted(f"{folder}/{name}" for name in self.store.place.entries(folder) if name.endswith(_SUFFIX))

    def read(self, path: str, schema: pa.Schema, rows: Sequence[int] | None = None) -> pa.Table:
        """The rows of one file: all, or those at some ascending positions; and of them the schema's columns.

        Raises:
            ArrowException, OSError: it is torn or damaged, or not there.
            StorageError, StoreAwayError: the store cannot be read.
        """
        table = self._latest.tables.get(path)
        if table is None:
            with self._opened(path) as source:
                end = source.seek(0, os.SEEK_END) - _CHECKSUM_BYTES
                names = pa.ipc.open_file(source, footer_offset=end).schema.names
                included = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in schema.names])
                table = pa.ipc.open_file(source, footer_offset=end, options=included).read_all()
                table.validate(full=True)
        found = table.select(schema.names)
        return (found if rows is None else found.take(pa.array(rows, pa.int64()))).cast(schema)

    def read_all(self, path: str) -> pa.Table:
        """All rows and columns of one file; raises as ``read``."""
        with self._opened(path) as source:
            end = source.seek(0, os.SEEK_END) - _CHECKSUM_BYTES
            return pa.ipc.open_file(source, footer_offset=end).read_all()

    def append(self, rows: pa.Table) -> None:
        """Keep finished rows: once this returns, a kill does not lose them.

        Raises:
            StorageError: they cannot be written.
        """

        def write(target: BinaryIO) -> None:
            summed = _Summed(target)
            with pa.ipc.new_file(summed, rows.schema) as writer:
                writer.write_table(rows)
            target.write(summed.crc.to_bytes(_CHECKSUM_BYTES, "little"))

        path = f"{self._folder}/{self.version}/{uuid4().hex}{_SUFFIX}"
        self.store.write_file(path, write)
        self._latest.add(path, rows)
        if self.store.is_local and hasattr(os, "posix_fadvise"):
            # Hardly ever read but after a kill: memory has better uses than to cache the file.
            with Path(path).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def clear(self) -> None:
        """Remove the rows of every version."""
        above, _, name = self._folder.rpartition("/")
        try:
            if self.store.is_local:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self._folder)
            elif paths := self.store.place.find(above, prefix=f"{name}/"):
                self.store.filesystem.rm([path for path in paths if path.startswith(f"{self._folder}/")])
        except storage_errors() as error:
            raise self.store.place.unremovable(self._folder, error) from error

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[pa.NativeFile | BinaryIO]:
        """A file; a local one is mapped, so that only the wanted parts are read once it is known to be whole.

        Raises:
            ArrowInvalid: its checksum is wrong.
            StorageError, StoreAwayError: the store cannot be read.
        """
        if not self.store.is_local:
            with self.store.place.reading(path), self.store.place.open(path) as source:
                yield source
            return
        file = pa.memory_map(path)
        if path not in self._whole:
            content = memoryview(file.read_buffer())
            if int.from_bytes(content[-_CHECKSUM_BYTES:], "little") != zlib.crc32(content[:-_CHECKSUM_BYTES]):
                raise pa.ArrowInvalid(f"{path}: its checksum is wrong")
            self._whole.add(path)
        with file:
            yield file

    @property
    def _folder(self) -> str:
        return self.store.path(self.asset, f"{UNFINISHED}/{self.partition}", suffix="")
