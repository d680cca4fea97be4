"""Files that data names: a path in a table, a link in a folder. None is opened that could be something else."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dqe_resources.errors import DataQualityError
from dqe_resources.sources.texts import readable, shortened

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Neither a link that was put there meanwhile is followed nor a pipe waited for."""

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FileError(DataQualityError):
    """A file that is not read.

    Attributes:
        reason: missing, refused_path or too_large.
        detail: what was found; never what is in the file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = shortened(readable(detail), 10_000)
        super().__init__(f"{reason}: {self.detail}")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a source, by a path that its data gives.

    Attributes:
        path: the path.
        inside: the folder that it must lead into once links are followed; None for anywhere.
    """

    path: Path
    inside: Path | None

    def read(self, most: int) -> bytes:
        """All of the file.

        Args:
            most: the most bytes that it may have; no more are read.

        Raises:
            FileError: it is not there, leads out of the folder, is no regular file, or too large.
        """
        descriptor = self._opened()
        try:
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
                size = os.fstat(descriptor).st_size
                data = file.read(size + 1) if size <= most else b""
        except OSError as error:
            raise self._missing(error) from error
        if max(size, len(data)) > most:
            raise FileError("too_large", f"{max(size, len(data)):,} bytes, at most {most:,} are allowed")
        return data

    def state(self) -> tuple[int, int]:
        """Size and time, which show whether it has changed.

        Raises:
            FileError: as ``read``, but for its size.
        """
        descriptor = self._opened()
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return found.st_size, found.st_mtime_ns

    def _opened(self) -> int:
        try:
            path, base = os.path.realpath(self.path), os.path.realpath(self.inside or "/")
        except ValueError as error:
            raise FileError("missing", f"{str(self.path)!r} is no path") from error
        if os.path.commonpath([path, base]) != base:
            found = f"{self.path} leads out of the source's folder {self.inside}"
            raise FileError("refused_path", f"{found}; if that is right, set allow_outside: true")
        try:
            return self._beneath(base, Path(path).relative_to(base).parts)
        except OSError as error:
            raise self._missing(error) from error

    def _beneath(self, base: str, parts: tuple[str, ...]) -> int:
        """Open it, one folder after another, none of which is a link: what is opened lies where it was looked up."""
        *folders, name = parts or (".",)
        folder = os.open(base, _FOLDER)
        try:
            for one in folders:
                below = os.open(one, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            # A device is not even opened: that alone can have an effect.
            self._check(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            descriptor = os.open(name, _FILE, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            self._check(os.fstat(descriptor).st_mode)
        except (FileError, OSError):
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, mode: int) -> None:
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise FileError("refused_path", f"{self.path} is no regular file")

    def _missing(self, error: OSError) -> FileError:
        return FileError("missing", f"{self.path}: {error.strerror or error}")
