"""Locks between processes, all of one kind: the system's own on a file, which end with the process that holds them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout, lock_descriptor

from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO


LOCK = ".lock"
"""Name of the lock file in a folder that one run at a time writes to."""


class LockError(DataQualityError):
    """What is to be locked cannot be; says which and why."""


class HeldError(LockError):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: Path, *, wait: float | None = None) -> Iterator[None]:
    """Hold a lock file, which is made, and gone once it is released.

    Args:
        path: the lock file; its folder is there.
        wait: seconds to wait for another process; None waits as long as that takes.

    Raises:
        HeldError: another process held it all the time.
        OSError: the file cannot be made, or its file system has no locks.
    """
    # A lock that is a mere file would outlive a killed process.
    lock = FileLock(path, timeout=-1 if wait is None else wait, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise HeldError(f"another process holds {path}; wait until it ends, or end it") from None
    try:
        yield
    finally:
        # Before it is released: who comes next makes a new one, and who waits sees that this one is gone.
        path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def folder_alone(folder: Path) -> Iterator[None]:
    """Make a folder if there is none, and keep other runs from writing to it meanwhile.

    Raises:
        HeldError: another run is writing to it.
        LockError: it cannot be written.
    """
    with _alone(folder, folder / LOCK):
        yield


@contextlib.contextmanager
def file_alone(path: Path) -> Iterator[None]:
    """Keep other runs from writing to a file meanwhile; raises as ``folder_alone`` does."""
    with _alone(path, path.with_name(f".{path.name}{LOCK}")):
        yield


@contextlib.contextmanager
def _alone(path: Path, lock: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(lock, wait=0))
        except HeldError:
            raise HeldError(f"{path}: another run is writing to it; wait until it ends") from None
        except OSError as error:
            raise LockError(f"{path}: cannot be written ({error.strerror or error})") from error
        yield


def hold_open(file: IO[bytes]) -> bool:
    """Hold a file that this process has open, until it is closed; returns False if another process does.

    Raises:
        OSError: its file system has no locks.
    """
    return lock_descriptor(file.fileno(), blocking=False)
