"""Writes files completely or not at all, and removes what killed writers leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dqe_resources.errors import DataQualityError, WholeRunError
from dqe_resources.locks import hold_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import BinaryIO

_YOUNG_SECONDS = 60


class StorageError(DataQualityError):
    """A file of the store cannot be read or written: says which and what to do."""


class StoreAwayError(WholeRunError):
    """No file of the store can be read or written: it cannot be reached, refuses, or has no bucket; says what to do.

    It is no ``StorageError``: who goes on without a file that cannot be read does not go on without the store.
    """

    @classmethod
    def told_in(cls, message: str) -> StoreAwayError | None:
        """The error that another library's message tells of: DuckDB passes on in words what it reads through us."""
        found = re.search(rf"{cls.__name__}: (.+)", message)
        return cls(found[1]) if found else None


class TornError(StorageError):
    """A file of the store is not as it was written. To make its partition again mends it.

    Attributes:
        fault: what is wrong with which file, without what to do.
    """

    def __init__(self, fault: str, fix: str = "") -> None:
        super().__init__(f"{fault}; {fix}" if fix else fault)
        self.fault = fault


class ReplacedError(StorageError):
    """A file was replaced by another while it was read."""


def replace_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that its path always holds either the complete old file or the complete new one.

    Raises:
        StorageError: it cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as target:
            with contextlib.suppress(OSError):
                # As long as this process lives, and where the file system can: see _is_abandoned.
                hold_open(target)
            write(target)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); nothing was changed. "
            f"Free space or allow writing in {path.parent}, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path, pattern: str) -> int:
    """Remove the temporary files of killed writers that match a pattern below a folder; returns how many."""
    left = [path for path in folder.glob(pattern) if _is_abandoned(path)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def remove_all(paths: Iterable[Path]) -> None:
    """Remove files, and folders with all that is in them."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_abandoned(temporary: Path) -> bool:
    """Whether a temporary file's writer is dead: a live writer locks the file soon after it creates it."""
    try:
        with temporary.open("rb") as file:
            if datetime.now(UTC).timestamp() - os.fstat(file.fileno()).st_mtime < _YOUNG_SECONDS:
                return False
            return hold_open(file)
    except OSError:
        return False
