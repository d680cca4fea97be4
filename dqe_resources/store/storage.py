"""The store: one Parquet file for each asset and partition, or a JSON manifest if the asset is not a table.

A file is written to a temporary name and renamed, so a file that exists is complete. Its metadata holds a fingerprint
of everything that went into it: the store alone tells what is current. The same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import glob
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.errors import one_line
from dqe_resources.store.atomic import StorageError, TornError, remove_abandoned, remove_all, replace_file
from dqe_resources.store.checkpoint import UNFINISHED, remove_finished
from dqe_resources.store.damage import is_marked_damaged, mark_damaged
from dqe_resources.store.parquet_tables import (
    check_schema,
    column_options,
    conform,
    row_groups,
    rows_per_group,
    take_rows,
)
from dqe_resources.store.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    import fsspec

UNPARTITIONED = "all"
"""File name of the one partition of an asset that has no partitions."""

_STAMP = b"dqe"

ROW_GROUP_BYTES = 16 << 20
"""Of a table with images."""


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """A partition in the store: where, when, and its stamp."""

    asset: str
    partition: str | None
    path: str
    bytes: int
    written_at: datetime
    stamp: Stamp


@dataclass(frozen=True)
class Store:
    """Reads and writes the partitions of assets under a root folder or fsspec URL.

    All methods raise StorageError, which names the file and what to do, if the store cannot be read or written.

    Attributes:
        root: the folder or URL.
        seen: the partitions that ``get`` has looked at; None to look at them each time.
    """

    root: str
    seen: dict[tuple[str, str | None], StoredPartition | None] | None = field(default=None, repr=False, compare=False)

    def as_it_is_now(self) -> Store:
        """The same store, which looks at the footer of each partition once. It sees no later changes but its own."""
        return Store(self.root, {})

    def forget(self, asset: str, partition: str | None) -> None:
        """Look at a partition again when it is next asked for."""
        if self.seen is not None:
            self.seen.pop((asset, partition), None)

    @cached_property
    def _location(self) -> tuple[fsspec.AbstractFileSystem, str]:
        import fsspec

        return fsspec.core.url_to_fs(self.root)

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The file system that the store is on."""
        return self._location[0]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "file" in self.filesystem.protocol

    def path(self, asset: str, partition: str | None, suffix: str = ".parquet") -> str:
        """Path of a partition on the store's file system."""
        return f"{self._location[1]}/{asset}/{partition or UNPARTITIONED}{suffix}"

    def write_table(self, asset: str, partition: str | None, table: pa.Table, schema: pa.Schema, stamp: Stamp) -> str:
        """Write a table atomically; its stamp goes into the file's metadata.

        Raises:
            StorageError: the table does not fit the schema, or the file cannot be written.
        """
        path = self.path(asset, partition)
        conformed = conform(table, schema, path).replace_schema_metadata({_STAMP: stamp.to_json()})
        rows = rows_per_group(conformed, ROW_GROUP_BYTES)
        options = {"compression": "zstd", "row_group_size": rows, "write_page_checksum": True}
        self.write_file(path, lambda target: pq.write_table(conformed, target, **options))
        self.forget(asset, partition)
        return path

    def write_batches(
        self,
        asset: str,
        partition: str | None,
        batches: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        stamp: Callable[[], Stamp],
    ) -> str:
        """Write a large table atomically, each batch as it comes and as a row group; its stamp is asked for in the end.

        Raises:
            StorageError: a batch does not fit the schema, or the file cannot be written.
        """
        path = self.path(asset, partition)
        # Writing a large table takes long: each run that was killed meanwhile has left a large file behind.
        self._sweep(f"{glob.escape(asset)}/{glob.escape(f'.{Path(path).name}.')}*.tmp")
        # What makes the first batch may take long, and its errors are none of the file's.
        rest = iter(batches)
        first = list(islice(rest, 1))

        def write(target: BinaryIO) -> None:
            with pq.ParquetWriter(target, schema, **column_options(schema), write_page_checksum=True) as writer:
                for batch in chain(first, rest):
                    table = conform(pa.Table.from_batches([batch]), schema, path)
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
                writer.add_key_value_metadata({_STAMP: stamp().to_json()})

        self.write_file(path, write)
        self.forget(asset, partition)
        return path

    def write_manifest(self, asset: str, partition: str | None, stamp: Stamp) -> str:
        """Write the manifest of an asset that is not a table, after its files are in place."""
        path = self.path(asset, partition, ".json")
        self.write_file(path, lambda target: target.write(stamp.to_json()))
        self.forget(asset, partition)
        return path

    def read(
        self, asset: str, partition: str | None, schema: pa.Schema, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Read a table, or only some of its columns.

        Raises:
            StorageError: nothing is stored there, the file is torn or foreign, or its schema is not the one expected.
        """
        with self._checked(asset, partition, schema, columns) as file:
            # Arrow cannot read more than 2 GiB of images at once: group after group it can.
            names = list(columns) if columns is not None else None
            groups = [file.read_row_group(group, columns=names) for group in range(file.num_row_groups)]
            table = pa.concat_tables(groups) if groups else file.read(columns=names)
        return table.replace_schema_metadata(None)

    def read_rows(
        self, asset: str, partition: str | None, schema: pa.Schema, rows: Sequence[int], columns: Sequence[str]
    ) -> pa.Table:
        """Some rows of a table, by position, reading no more of the file than the row groups that hold them.

        Raises:
            StorageError: as ``read``.
        """
        with self._checked(asset, partition, schema, columns) as file:
            return take_rows(file, rows, columns).replace_schema_metadata(None)

    def row_groups(
        self, asset: str, partition: str | None, schema: pa.Schema, rows: Sequence[int], columns: Sequence[str]
    ) -> Iterator[pa.Table]:
        """The same rows, those of one row group after another, holding no more than a row group in memory.

        Raises:
            StorageError: as ``read``.
        """
        with self._checked(asset, partition, schema, columns) as file:
            yield from row_groups(file, rows, columns)

    def batches(
        self, asset: str, partition: str | None, schema: pa.Schema, columns: Sequence[str], rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Some columns of a table, in batches of so many rows at most, holding no more than a row group in memory.

        Raises:
            StorageError: as ``read``.
        """
        with self._checked(asset, partition, schema, columns) as file:
            yield from file.iter_batches(rows, columns=list(columns))

    def get(self, asset: str, partition: str | None) -> StoredPartition | None:
        """The stored partition, from the file's footer alone; None if there is none."""
        if self.seen is None:
            return self._get(asset, partition)
        key = asset, partition
        if key not in self.seen:
            self.seen[key] = self._get(asset, partition)
        return self.seen[key]

    def _get(self, asset: str, partition: str | None) -> StoredPartition | None:
        for suffix in (".parquet", ".json"):
            path = self.path(asset, partition, suffix)
            try:
                info = self.filesystem.info(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"{path}: cannot be read ({error})") from error
            if self.is_local and is_marked_damaged(Path(path)):
                raise TornError(f"{path}: damaged, as who read it has found", _how_to_fix(asset, partition))
            return StoredPartition(
                asset=asset,
                partition=partition,
                path=path,
                bytes=info["size"],
                written_at=_modified(info),
                stamp=self._stamp(path, asset, partition),
            )
        return None

    def has_any(self, asset: str, prefix: str) -> bool:
        """Whether a partition of an asset is stored whose key begins so."""
        return any(key.startswith(prefix) for key in self._keys(asset))

    def partitions(self, asset: str) -> set[str]:
        """Keys of an asset's partitions that are stored, or begun."""
        return self._keys(asset) | self._keys(f"{asset}/{UNFINISHED}")

    def _keys(self, folder: str) -> set[str]:
        self.filesystem.invalidate_cache()
        try:
            paths = self.filesystem.ls(f"{self._location[1]}/{folder}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return set()  # what is in the way is named by whoever reads or writes there
        except OSError as error:
            raise StorageError(f"{folder}: cannot be listed ({error})") from error
        return {key for key in map(_key, paths) if not key.startswith(".")}

    def remove(self, keys: Collection[str], *, last: str) -> None:
        """Remove the partitions with these keys of every asset that the store holds, and what is begun of them.

        Killed at any moment, the next call goes on: the partitions of the asset ``last``, which go when all others are
        gone, tell that there is something left.

        Raises:
            StorageError: a file cannot be removed.
        """
        filesystem, root = self.filesystem, self._location[1]
        filesystem.invalidate_cache()
        found: dict[bool, set[str]] = {False: set(), True: set()}
        for path in filesystem.find(root, withdirs=self.is_local):
            asset, is_begun, name = path.removeprefix(f"{root}/").partition(f"/{UNFINISHED}/")
            key = name.partition("/")[0] if is_begun else _key(path)
            asset = asset if is_begun else asset.rpartition("/")[0]
            if key in keys:
                # Of a folder of unfinished rows the folder goes, where there are folders.
                is_whole = is_begun and self.is_local
                found[asset == last].add(f"{root}/{asset}/{UNFINISHED}/{key}" if is_whole else path)
        try:
            for paths in filter(None, (found[False], found[True])):
                if self.is_local:
                    remove_all(map(Path, sorted(paths)))
                else:
                    filesystem.rm(sorted(paths))
        except OSError as error:
            raise StorageError(f"{root}: cannot be removed from ({error}); run the same command again") from error

    def all_files(self) -> list[tuple[str, str]]:
        """Every file of the store, in order: its path on the store's file system, and its path from the root."""
        root = self._location[1]
        self.filesystem.invalidate_cache()
        try:
            return [(path, path.removeprefix(f"{root}/")) for path in sorted(self.filesystem.find(root))]
        except OSError as error:
            raise StorageError(f"{root}: cannot be listed ({error})") from error

    def files(self, asset: str, partitions: Sequence[str | None]) -> list[str]:
        """Paths, on the store's file system, of those partitions of a table that are stored."""
        paths = [self.path(asset, partition) for partition in partitions]
        return [path for path in paths if self.filesystem.exists(path)]

    def require_whole(self, partitions: Iterable[tuple[str, str | None, Sequence[str] | None]]) -> None:
        """Read partitions to their end, and find out whether they are as they were written.

        Args:
            partitions: asset, key, and which columns; None for all.

        Raises:
            TornError: some are not, with a line for each. This is remembered: they are torn until they are made again.
        """
        torn = []
        for asset, partition, columns in partitions:
            try:
                stored = self.get(asset, partition)
                if stored is not None and not stored.path.endswith(".json"):
                    self._read_through(stored, columns)
            except TornError as error:
                torn.append(str(error))
        if torn:
            raise TornError("\n".join(dict.fromkeys(torn)))

    def _read_through(self, stored: StoredPartition, columns: Sequence[str] | None) -> None:
        key = (stored.path, stored.asset, stored.partition)
        with self._parquet(*key) as file, self._damage(*key):
            for group in range(file.num_row_groups):
                file.read_row_group(group, columns=columns)

    def whole_rows(self, asset: str, partition: str, columns: Sequence[str]) -> list[int]:
        """The positions of a damaged table's rows whose row group is, in these columns, as it was written.

        Raises:
            TornError: the file cannot be opened.
        """
        whole: list[int] = []
        with self._parquet(self.path(asset, partition), asset, partition) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                with contextlib.suppress(pa.ArrowException, OSError):
                    file.read_row_group(group, columns=list(columns))
                    whole += range(first, first + rows)
                first += rows
        return whole

    def _stamp(self, path: str, asset: str, partition: str | None) -> Stamp:
        try:
            if path.endswith(".json"):
                data = self.filesystem.cat_file(path)
            else:
                with self._parquet(path, asset, partition) as file:
                    data = (file.metadata.metadata or {}).get(_STAMP)
            if data is None:
                raise StorageError(
                    f"{path}: this platform did not write it; move it away, or {_how_to_fix(asset, partition)} --force"
                )
            return Stamp.from_json(data)
        except (ValueError, KeyError, TypeError) as error:
            raise TornError(f"{path}: torn, its stamp cannot be read", _how_to_fix(asset, partition)) from error

    @contextlib.contextmanager
    def _checked(
        self, asset: str, partition: str | None, schema: pa.Schema, columns: Sequence[str] | None
    ) -> Iterator[pq.ParquetFile]:
        """A table's file, checked to hold the columns; reading damaged parts raises StorageError."""
        path = self.path(asset, partition)
        with self._parquet(path, asset, partition) as file:
            check_schema(file.schema_arrow, schema, path, columns, _how_to_fix(asset, partition))
            with self._damage(path, asset, partition):
                yield file

    @contextlib.contextmanager
    def _parquet(self, path: str, asset: str, partition: str | None) -> Iterator[pq.ParquetFile]:
        fix = _how_to_fix(asset, partition)
        try:
            handle = self.filesystem.open(path, "rb")
        except FileNotFoundError as error:
            raise StorageError(f"{path}: not there; {fix}") from error
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error})") from error
        with handle:
            try:
                file = pq.ParquetFile(handle, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                raise TornError(f"{path}: torn or not Parquet ({one_line(error)})", fix) from error
            yield file

    @contextlib.contextmanager
    def _damage(self, path: str, asset: str, partition: str | None) -> Iterator[None]:
        """Damage that shows when a table is read is remembered, and raises TornError."""
        fix = _how_to_fix(asset, partition)
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise StorageError(f"{path}: cannot be read ({one_line(error)})") from error
            # Elsewhere than on this machine nothing is remembered: there it must be forced.
            fix += "" if self.is_local else " --force"
            if self.is_local:
                mark_damaged(Path(path))
            raise TornError(f"{path}: damaged ({one_line(error)})", fix) from error

    def write_file(self, path: str, write: Callable[[BinaryIO], Any]) -> None:
        """Write a file atomically, at a path on the store's file system."""
        if self.is_local:
            replace_file(Path(path), write)
            return
        try:
            # First on this machine: an object then appears only once it is whole, whatever goes wrong before.
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / "object"
                with local.open("wb") as target:
                    write(target)
                self.filesystem.put_file(str(local), path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error})") from error

    def sweep(self) -> int:
        """Remove what killed writers left behind, temporary files and rows of finished partitions; returns how many."""
        finished = remove_finished(Path(self._location[1])) if self.is_local else 0
        return finished + self._sweep("**/.*.tmp")

    def _sweep(self, pattern: str) -> int:
        return remove_abandoned(Path(self._location[1]), pattern) if self.is_local else 0


def _key(path: str) -> str:
    """The key of the partition that a file holds, or that a folder of unfinished rows is for."""
    return path.rstrip("/").rpartition("/")[2].removesuffix(".parquet").removesuffix(".json")


def _how_to_fix(asset: str, partition: str | None) -> str:
    return f"run: dqe materialize {asset}" + (f" --shard {partition}" if partition else "")


def _modified(info: Mapping[str, Any]) -> datetime:
    value = info.get("mtime", info.get("LastModified", info.get("updated", info.get("created", 0))))
    return value if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)
