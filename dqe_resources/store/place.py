"""Where a store is: the files below a folder of this machine, or the objects below a URL."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dqe_resources.errors import one_line
from dqe_resources.store.atomic import ReplacedError, StorageError, StoreAwayError, replace_file
from dqe_resources.store.remote import is_replaced, open_filesystem, package_errors, storage_errors, what_helps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import BinaryIO

    import fsspec

    from dqe_resources.errors import DataQualityError

Entries: TypeAlias = "dict[str, Mapping[str, Any]]"
"""The files and folders in a folder, by name, with what fsspec tells of each."""

_WHOLE = 8 << 20
"""An object of so many bytes, or fewer, is read with one request, whatever is wanted of it."""


@dataclass(frozen=True)
class Place:
    """Lists, reads and writes files, with as few requests as it can where each is one over the network.

    All methods raise StorageError, which names the file and what to do; ReplacedError if the file is another one by
    the time that it is read; StoreAwayError if it is not of the one file. What is not there yet is empty, a bucket too:
    some servers make it when something is first written, and others then refuse with StoreAwayError.

    Attributes:
        root: the folder or fsspec URL.
    """

    root: str

    @cached_property
    def _location(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            return open_filesystem(self.root)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"{self.root}: cannot be opened ({one_line(error)}); install what reaches it (for s3:// the extra: "
                "pip install '.[s3]'), or correct the key store of dqe.yaml, or DQE_STORE"
            ) from error

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The file system that it is on."""
        return self._location[0]

    @property
    def folder(self) -> str:
        """Its path there."""
        return self._location[1]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "file" in self.filesystem.protocol

    def entries(self, folder: str) -> Entries:
        """All that is in a folder; nothing if there is none."""
        try:
            found = self.filesystem.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}  # what is in the way is named by whoever reads or writes there
        except storage_errors() as error:
            raise self.unlistable(folder, error) from error
        return _by_name(found)

    def of_stem(self, folder: str, stem: str, suffixes: Iterable[str]) -> Entries:
        """The files in a folder that are called so, with some of these suffixes."""
        names = [f"{stem}{suffix}" for suffix in suffixes]
        if not self.is_local:
            found = _by_name(self.find(folder, maxdepth=1, prefix=f"{stem}.").values())
            return {name: info for name, info in found.items() if name in names}
        try:
            return _by_name(info for name in names if (info := self._info(f"{folder}/{name}")))
        except OSError as error:
            raise self.unreadable(f"{folder}/{names[0]}", error) from error

    def _info(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self.filesystem.info(path)
        except FileNotFoundError:
            return None

    def find(self, folder: str, **how: Any) -> Entries:
        """The files below a folder, by path.

        Args:
            folder: the folder.
            how: as ``find`` of fsspec's takes it.
        """
        try:
            return dict(self.filesystem.find(folder, detail=True, **how))
        except FileNotFoundError:
            return {}
        except storage_errors() as error:
            raise self.unlistable(folder, error) from error

    def open(self, path: str, size: int | None = None) -> BinaryIO:
        """A file to read from, which is one version of it to the end.

        Args:
            path: of the file.
            size: bytes that it has, if that is known.

        Raises:
            FileNotFoundError: it is not there.
            OSError, or what the file system's package raises: it cannot be read.
        """
        if self.is_local:
            return self.filesystem.open(path, "rb")
        if size and size <= _WHOLE:
            # One more is asked for, so that it shows if it has grown.
            content = self.filesystem.cat_file(path, start=0, end=size + 1)
            if len(content) == size:
                return BytesIO(content)
        file = self.filesystem.open(path, "rb", cache_type="none")
        if file.size > _WHOLE:
            return file
        with file:
            return BytesIO(file.read())

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """What the file system's package raises as a file is read, in our words; OSErrors as they are."""
        try:
            yield
        except package_errors() as error:
            raise self.unreadable(path, error) from error

    def tail(self, path: str, length: int) -> bytes:
        """The last bytes of a file, at most so many; raises as ``open``."""
        # No server gives nothing of something.
        return self.filesystem.cat_file(path, start=-length) if length else b""

    def content(self, path: str, size: int) -> bytes:
        """All of a small file, which is known to be empty or not; raises as ``open``."""
        return self.filesystem.cat_file(path, start=0) if size else b""

    def write(self, path: str, write: Callable[[BinaryIO], Any]) -> None:
        """Write a file atomically."""
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
        except storage_errors() as error:
            raise self.unwritable(path, error) from error

    def unreadable(self, path: str, error: Exception) -> DataQualityError:
        """What to raise if a file cannot be read."""
        if is_replaced(error):
            return ReplacedError(f"{path}: was replaced while it was read; run the same command again")
        return self._failed(path, "read", error)

    def unlistable(self, path: str, error: Exception) -> DataQualityError:
        """What to raise if a folder cannot be listed."""
        return self._failed(path, "listed", error)

    def unwritable(self, path: str, error: Exception) -> DataQualityError:
        """What to raise if a file cannot be written."""
        return self._failed(path, "written", error)

    def unremovable(self, path: str, error: Exception) -> DataQualityError:
        """What to raise if a file cannot be removed."""
        return self._failed(path, "removed", error)

    def _failed(self, path: str, what: str, error: Exception) -> DataQualityError:
        said = f"{path}: cannot be {what} ({one_line(error)})"
        if self.is_local:
            return StorageError(said)
        if (fix := what_helps(error)) is not None:
            return StoreAwayError(
                f"the store {self.root} cannot be used: {said}; {fix}, then run the same command again"
            )
        return StorageError(f"{said}; once that is mended, run the same command again")


def _by_name(found: Iterable[Mapping[str, Any]]) -> Entries:
    return {info["name"].rstrip("/").rpartition("/")[2]: info for info in found}
