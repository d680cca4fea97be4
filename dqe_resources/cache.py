"""Files that are made once and kept: converted models, embedded vocabularies."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from dqe_resources.errors import WholeRunError
from dqe_resources.locks import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FOLDER: ContextVar[Path | None] = ContextVar("data_folder", default=None)


class CacheError(WholeRunError):
    """A derived file cannot be written or read; says which and what to do."""


def data_directory() -> Path:
    """The folder that holds the configuration and everything made from it: ``DQE_DATA``, or ``./data``.

    Within ``data_folder`` it is the one that was given there.
    """
    return _FOLDER.get() or Path(os.environ.get("DQE_DATA") or "data").absolute()


@contextmanager
def data_folder(folder: Path) -> Iterator[None]:
    """Work on another data folder here: in this thread, and in those of ``ordered_map``, and nowhere else."""
    token = _FOLDER.set(folder.absolute())
    try:
        yield
    finally:
        _FOLDER.reset(token)


def in_data_directory(path: str | Path) -> Path:
    """A path of the settings: a relative one counts from the data folder, where dqe.yaml is."""
    return data_directory() / Path(path).expanduser()


def scratch_file() -> IO[bytes]:
    """An empty file without a name on the disk of the data folder: it is gone when it is closed or the process ends.

    Raises:
        CacheError: the folder cannot be written.
    """
    folder = data_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return TemporaryFile(dir=folder)
    except OSError as error:
        raise CacheError(f"cannot write to {folder}: {error}; allow it, or set DQE_DATA to another folder") from error


def cached_file(name: str, build: Callable[[Path], None]) -> Path:
    """A file of the cache, built if it is not there.

    Of several processes that ask for it at once one builds, under a lock that the system releases should that process
    die, and the others wait. The file appears under its name whole or not at all.

    Args:
        name: file name; holds whatever the content depends on, since a file that is there is never built again.
        build: writes the file to the path that it is given, which has the same suffix as ``name``.

    Returns:
        Absolute path of the file.

    Raises:
        CacheError: the folder cannot be written, or the disk is full.
    """
    target = data_directory() / "cache" / name
    if target.is_file():
        return target
    partial = target.with_name(f".partial-{name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_name(f".{name}.lock")):
            if not target.is_file():
                try:
                    build(partial)
                    _flush(partial)
                    partial.replace(target)
                    _flush(target.parent)
                finally:
                    partial.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"cannot make {target}: {error}; free space or allow writing there, or set DQE_DATA to another folder"
        ) from error
    return target


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
