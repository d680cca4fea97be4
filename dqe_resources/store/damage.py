"""Which files of the store were found to be damaged by whoever read them, until they are written again.

What damage there is within a table shows only when that part is read; that it is there, the next command is to know.
"""

from __future__ import annotations

import contextlib
import json
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.store.atomic import StorageError, replace_file

if TYPE_CHECKING:
    from pathlib import Path

MARKS = ".damaged"
"""Folder of an asset that holds a file for each of its partitions that is damaged."""


def mark_damaged(path: Path) -> None:
    """Remember that a file is damaged, as it is now."""
    # Where nothing can be written, it is found again when it is read again.
    with contextlib.suppress(StorageError, OSError):
        text = json.dumps(_state(path)).encode()
        replace_file(_mark(path), lambda target: target.write(text))


def is_marked_damaged(path: Path) -> bool:
    """Whether a file was found to be damaged, and still is; if it is another file by now, the mark goes."""
    mark = _mark(path)
    try:
        marked = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return False
    state = _state(path)
    if marked == state and not _is_whole(path, *state):
        return True
    mark.unlink(missing_ok=True)
    return False


def _mark(path: Path) -> Path:
    return path.parent / MARKS / path.stem


def _state(path: Path) -> list[int]:
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ino]


@cache
def _is_whole(path: Path, *_: int) -> bool:
    """Whether a file can be read to its end after all: a disk, or memory, may have failed in passing."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (pa.ArrowException, OSError):
        return False
    return True
