"""Writes files completely or not at all, and removes what killed writers leave behind."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dqe_resources.errors import DataQualityError
from dqe_resources.locks import hold_open

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

_YOUNG_SECONDS = 60


class StorageError(DataQualityError):
    """The store cannot be read or written: says which file and what to do."""


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


def _is_abandoned(temporary: Path) -> bool:
    """Whether a temporary file's writer is dead: a live writer locks the file soon after it creates it."""
    try:
        with temporary.open("rb") as file:
            if datetime.now(UTC).timestamp() - os.fstat(file.fileno()).st_mtime < _YOUNG_SECONDS:
                return False
            return hold_open(file)
    except OSError:
        return False
