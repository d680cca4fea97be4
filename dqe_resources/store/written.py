"""Files that assets write outside the store: what was written, and whether it is still there as it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from dqe_resources.store.atomic import StorageError, replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LARGE = 64 << 20
"""From so many bytes on, it is remembered that a file was found to be whole."""


def what_is_written(path: Path) -> dict[str, Any]:
    """Facts about a file for a manifest: its size, and the SHA-256 of its content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}


def is_as_written(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a file is there with the content that a manifest tells of.

    It is read to its end; a large one only if it may have changed since it was last found to be whole.
    """
    try:
        if path.stat().st_size != facts.get("bytes"):
            return False
        state = [facts.get("sha256"), *_state(path)]
        memory = path.with_name(f".{path.name}.whole")
        if _remembered(memory) == state:
            return True
        is_whole = what_is_written(path)["sha256"] == facts.get("sha256")
    except OSError:
        return False
    if is_whole and path.stat().st_size >= _LARGE:
        with contextlib.suppress(StorageError):
            replace_file(memory, lambda target: target.write(json.dumps(state).encode()))
    return is_whole


def _state(path: Path) -> list[int]:
    # The time of the last change to the inode too: unlike that of the content, nobody can set it.
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]


def _remembered(memory: Path) -> Any:
    try:
        return json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return None
