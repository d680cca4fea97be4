"""The store: one Parquet file for each asset and partition, or a JSON manifest if the asset is not a table.

A file is written to a temporary name and renamed, so a file that exists is complete. Its metadata holds a fingerprint
of everything that went into it: the store alone tells what is current. The same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import glob
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.errors import one_line
from dqe_resources.store.atomic import (
    ReplacedError,
    StorageError,
    TornError,
    remove_abandoned,
    remove_all,
)
from dqe_resources.store.checkpoint import UNFINISHED, remove_finished
from dqe_resources.store.damage import MARKS, is_marked_damaged, mark_damaged
from dqe_resources.store.owner import owned
from dqe_resources.store.parquet_tables import (
    check_schema,
    column_options,
    conform,
    row_groups,
    rows_per_group,
    take_rows,
)
from dqe_resources.store.place import Place
from dqe_resources.store.remote import package_errors, storage_errors
from dqe_resources.store.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    import fsspec

    from dqe_resources.store.place import Entries

UNPARTITIONED = "all"
"""File name of the one partition of an asset that has no partitions."""

T = TypeVar("T")

_STAMP = b"dqe"

_SUFFIXES = (".parquet", ".json")

_FOOTER_BYTES = 64 << 10
"""Of the end of a table that are read first: nearly always, the whole footer."""

_READS = 20
"""How often a file is read that others replace meanwhile."""

ROW_GROUP_BYTES = 16 << 20
"""Of a table with images."""


class _OtherVersionError(ReplacedError):
    """A file is another one than it was when it was first looked at."""


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """A partition in the store: where, when, and its stamp."""

    asset: str
    partition: str | None
    path: str
    bytes: int
    written_at: datetime
    stamp: Stamp


@dataclass
class Seen:
    """What has been looked at of a store.

    Attributes:
        partitions: by asset and key; None if there is none.
        infos: what the file system told of each of their files, by its path.
        stamps: the stamp in each file that was read, or whose footer was, by its path.
        asked: assets of which a partition was asked for.
        listed: what is in the folder of an asset of which another one was, too.
        changed: the file names, without suffix, of partitions that are not as they were listed, by asset.
    """

    partitions: dict[tuple[str, str | None], StoredPartition | None] = field(default_factory=dict)
    infos: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    stamps: dict[str, bytes | None] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    listed: dict[str, Entries] = field(default_factory=dict)
    changed: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """Reads and writes the partitions of assets under a root folder or fsspec URL.

    All methods raise StorageError, which names the file and what to do, if the store cannot be read or written; and
    StoreAwayError if that is so of every file.

    Attributes:
        root: the folder or URL.
        seen: what has been looked at, for a store that is looked at once; None to look each time.
        require_owner: for a store that only the owner of something may write, raises StorageError if that has changed.
    """

    root: str
    seen: Seen | None = field(default=None, repr=False, compare=False)
    require_owner: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def as_it_is_now(self) -> Store:
        """The same store, which looks at each partition once, and gives one version of it ever after.

        It sees no later changes but its own. To read a partition that was replaced after it was first looked at raises
        ReplacedError, unless it is the same again.
        """
        return replace(self, seen=Seen())

    @property
    def looked_at_once(self) -> Store:
        """This store if it is looked at once; otherwise as it is now."""
        return self if self.seen is not None else self.as_it_is_now()

    @contextlib.contextmanager
    def owned(self, asset: str, say: Callable[[str], None]) -> Iterator[Store]:
        """Own an asset, alone among all machines, and give the store to write it to; waits for another owner.

        Args:
            asset: its name.
            say: is told of an owner that is waited for.
        """
        with owned(self.place, asset, say) as require:
            yield replace(self, require_owner=require)

    def forget(self, asset: str, partition: str | None) -> None:
        """Look at a partition again when it is next asked for."""
        if self.seen is None:
            return
        self.seen.partitions.pop((asset, partition), None)
        for suffix in _SUFFIXES:
            path = self.path(asset, partition, suffix)
            self.seen.infos.pop(path, None)
            self.seen.stamps.pop(path, None)
        if asset in self.seen.listed:
            self.seen.changed.setdefault(asset, set()).add(partition or UNPARTITIONED)

    def forget_all(self, asset: str) -> None:
        """Look at an asset again when a partition of it is next asked for."""
        if self.seen is not None:
            for key in [key for key in self.seen.partitions if key[0] == asset]:
                self.forget(*key)
            self.seen.listed.pop(asset, None)
            self.seen.changed.pop(asset, None)

    @cached_property
    def place(self) -> Place:
        """Where its files are."""
        return Place(self.root)

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The file system that the store is on."""
        return self.place.filesystem

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.place.is_local

    def path(self, asset: str, partition: str | None, suffix: str = ".parquet") -> str:
        """Path of a partition on the store's file system."""
        return f"{self.place.folder}/{asset}/{partition or UNPARTITIONED}{suffix}"

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
        return self._settled(lambda: self._read(asset, partition, schema, columns))

    def _read(self, asset: str, partition: str | None, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
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
        return self._settled(lambda: self._read_rows(asset, partition, schema, rows, columns))

    def _read_rows(
        self, asset: str, partition: str | None, schema: pa.Schema, rows: Sequence[int], columns: Sequence[str]
    ) -> pa.Table:
        with self._checked(asset, partition, schema, columns) as file:
            return take_rows(file, rows, columns).replace_schema_metadata(None)

    def _settled(self, read: Callable[[], T]) -> T:
        """What a read gives that no write came between; some are tried."""
        for _ in range(_READS - 1):
            try:
                return read()
            except _OtherVersionError:
                raise
            except ReplacedError:
                continue
        return read()

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
            for group in range(file.num_row_groups):
                yield from file.iter_batches(rows, row_groups=[group], columns=list(columns))

    def get(self, asset: str, partition: str | None) -> StoredPartition | None:
        """The stored partition, from the file's footer alone; None if there is none."""
        if self.seen is None:
            return self._get(asset, partition)
        key = asset, partition
        if key not in self.seen.partitions:
            self.seen.partitions[key] = self._get(asset, partition)
        return self.seen.partitions[key]

    def _get(self, asset: str, partition: str | None) -> StoredPartition | None:
        entries = self._entries_of(asset, partition)
        for suffix in _SUFFIXES:
            path = self.path(asset, partition, suffix)
            info = entries.get(path.rpartition("/")[2])
            if info is None:
                continue
            if self.is_local and MARKS in entries and is_marked_damaged(Path(path)):
                raise TornError(f"{path}: damaged, as who read it has found", _how_to_fix(asset, partition))
            if self.seen is not None:
                self.seen.infos[path] = info
            try:
                stamp = self._stamp(path, info["size"], asset, partition)
            except FileNotFoundError:
                continue  # it went meanwhile
            return StoredPartition(asset, partition, path, info["size"], _modified(info), stamp)
        return None

    def _entries_of(self, asset: str, partition: str | None) -> Entries:
        """What is in the folder of an asset and has to do with a partition."""
        if self.seen is not None and asset in self.seen.asked:
            return self._listed(asset)
        if self.seen is not None:
            self.seen.asked.add(asset)
        # Whether any partition is marked as damaged is not known.
        return {**self._of_stem(asset, partition or UNPARTITIONED), MARKS: {}}

    def _of_stem(self, asset: str, stem: str) -> Entries:
        return self.place.of_stem(f"{self.place.folder}/{asset}", stem, _SUFFIXES)

    def _listed(self, asset: str) -> Entries:
        """All that is in the folder of an asset; for a store that is looked at once, it is listed once."""
        if self.seen is None:
            return self.place.entries(f"{self.place.folder}/{asset}")
        if asset not in self.seen.listed:
            self.seen.listed[asset] = self.place.entries(f"{self.place.folder}/{asset}")
        there = self.seen.listed[asset]
        for stem in self.seen.changed.pop(asset, ()):
            for suffix in _SUFFIXES:
                there.pop(f"{stem}{suffix}", None)
            there |= self._of_stem(asset, stem)
        return there

    def require_as_seen(self) -> None:
        """Make sure that of all that was looked at, each file is still the one that it was.

        Raises:
            ReplacedError: one is not.
        """
        folders: dict[str, Entries] = {}
        for path, info in self.seen.infos.items() if self.seen is not None else ():
            folder, _, name = path.rpartition("/")
            if folder not in folders:
                folders[folder] = self.place.entries(folder)
            if _version(folders[folder].get(name, {})) != _version(info):
                raise _OtherVersionError(f"{path}: was replaced while it was used; run the same command again")

    def has_any(self, asset: str, prefix: str) -> bool:
        """Whether a partition of an asset is stored whose key begins so."""
        return any(key.startswith(prefix) for key in self._keys(asset))

    def partitions(self, asset: str) -> set[str]:
        """Keys of an asset's partitions that are stored, or begun."""
        begun = UNFINISHED in self._listed(asset)
        return self._keys(asset) | (self._keys(f"{asset}/{UNFINISHED}") if begun else set())

    def _keys(self, folder: str) -> set[str]:
        return {key for key in map(_key, self._listed(folder)) if not key.startswith(".")}

    def remove(self, keys: Collection[str], *, last: str) -> None:
        """Remove the partitions with these keys of every asset that the store holds, and what is begun of them.

        Killed at any moment, the next call goes on: the partitions of the asset ``last``, which go when all others are
        gone, tell that there is something left.

        Raises:
            StorageError: a file cannot be removed.
        """
        root = self.place.folder
        found: dict[bool, set[str]] = {False: set(), True: set()}
        for path in self.place.find(root, withdirs=self.is_local):
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
                    self.filesystem.rm(sorted(paths))
        except storage_errors() as error:
            raise self.place.unremovable(root, error) from error

    def all_files(self) -> list[tuple[str, str]]:
        """Every file of the store, in order: its path on the store's file system, and its path from the root."""
        return [
            (path, path.removeprefix(f"{self.place.folder}/")) for path in sorted(self.place.find(self.place.folder))
        ]

    def files(self, asset: str, partitions: Sequence[str | None]) -> list[str]:
        """Paths, on the store's file system, of those partitions of a table that are stored."""
        there = self._listed(asset)
        paths = [self.path(asset, partition) for partition in partitions]
        return [path for path in paths if path.rpartition("/")[2] in there]

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

    def _stamp(self, path: str, size: int, asset: str, partition: str | None) -> Stamp:
        """The stamp in a file; raises FileNotFoundError if it is there no more."""
        fix = _how_to_fix(asset, partition)
        try:
            data = self._in_footer(path, size) if path.endswith(".parquet") else self.place.content(path, size)
            if data is None:
                raise StorageError(f"{path}: this platform did not write it; move it away, or {fix} --force")
            stamp = Stamp.from_json(data)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, *storage_errors()) as error:
            if _is_of_the_connection(error):
                raise self.place.unreadable(path, error) from error
            raise TornError(f"{path}: torn or not Parquet ({one_line(error)})", fix) from error
        except (ValueError, KeyError, TypeError) as error:
            raise TornError(f"{path}: torn, its stamp cannot be read", fix) from error
        self._require_version(path, data)
        return stamp

    def _in_footer(self, path: str, size: int) -> bytes | None:
        """The stamp in the footer of a Parquet file; None if there is none."""
        length, needed = 0, _FOOTER_BYTES
        while length < needed <= size or not length:
            length, end = needed, self.place.tail(path, min(needed, size))
            # Its last bytes tell how long the footer is.
            needed = int.from_bytes(end[-8:-4], "little") + 8
        return (pq.read_metadata(pa.BufferReader(end)).metadata or {}).get(_STAMP)

    def _require_version(self, path: str, stamp: bytes | None) -> None:
        """Refuse a file with another stamp than the one that was first found in it."""
        if self.seen is not None and self.seen.stamps.setdefault(path, stamp) != stamp:
            raise _OtherVersionError(f"{path}: was replaced while it was used; run the same command again")

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
        known = self.seen and self.seen.partitions.get((asset, partition))
        try:
            handle = self.place.open(path, known.bytes if known else None)
        except FileNotFoundError as error:
            raise StorageError(f"{path}: not there; {fix}") from error
        except storage_errors() as error:
            raise self.place.unreadable(path, error) from error
        with handle:
            try:
                # Over the network, columns that lie side by side are read with one request.
                file = pq.ParquetFile(handle, page_checksum_verification=True, pre_buffer=not self.is_local)
            except (pa.ArrowException, *storage_errors()) as error:
                if _is_of_the_connection(error):
                    raise self.place.unreadable(path, error) from error
                raise TornError(f"{path}: torn or not Parquet ({one_line(error)})", fix) from error
            self._require_version(path, (file.metadata.metadata or {}).get(_STAMP))
            yield file

    @contextlib.contextmanager
    def _damage(self, path: str, asset: str, partition: str | None) -> Iterator[None]:
        """Damage that shows when a table is read is remembered, and raises TornError."""
        fix = _how_to_fix(asset, partition)
        try:
            yield
        except (pa.ArrowException, *storage_errors()) as error:
            if _is_of_the_connection(error):
                raise self.place.unreadable(path, error) from error
            # Elsewhere than on this machine nothing is remembered: there it must be forced.
            fix += "" if self.is_local else " --force"
            if self.is_local:
                mark_damaged(Path(path))
            raise TornError(f"{path}: damaged ({one_line(error)})", fix) from error

    def write_file(self, path: str, write: Callable[[BinaryIO], Any]) -> None:
        """Write a file atomically, at a path on the store's file system."""

        def write_as_owner(target: BinaryIO) -> None:
            write(target)
            if self.require_owner is not None:
                self.require_owner()

        self.place.write(path, write_as_owner)

    def sweep(self) -> int:
        """Remove what killed writers left behind, temporary files and rows of finished partitions; returns how many."""
        finished = remove_finished(Path(self.place.folder)) if self.is_local else 0
        return finished + self._sweep("**/.*.tmp")

    def _sweep(self, pattern: str) -> int:
        return remove_abandoned(Path(self.place.folder), pattern) if self.is_local else 0


def _key(path: str) -> str:
    """The key of the partition that a file holds, or that a folder of unfinished rows is for."""
    return path.rstrip("/").rpartition("/")[2].removesuffix(".parquet").removesuffix(".json")


def _how_to_fix(asset: str, partition: str | None) -> str:
    return f"run: dqe materialize {asset}" + (f" --shard {partition}" if partition else "")


def _is_of_the_connection(error: Exception) -> bool:
    """Whether a read failed before there was something to read: Arrow's own errors of damage have no number."""
    if isinstance(error, OSError):
        # s3fs gives some none.
        return error.errno is not None or isinstance(error, PermissionError | TimeoutError)
    return isinstance(error, package_errors())


def _version(info: Mapping[str, Any]) -> list[Any]:
    """What changes when a file is replaced."""
    return [info.get(name) for name in ("size", "ETag", "LastModified", "mtime", "ino", "created", "updated")]


def _modified(info: Mapping[str, Any]) -> datetime:
    value = info.get("mtime", info.get("LastModified", info.get("updated", info.get("created", 0))))
    return value if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)
