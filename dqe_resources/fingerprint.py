"""Fingerprints: digests of everything that a result was made from."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def fingerprint(*parts: Any) -> str:
    """Hex digest (128 bits) of JSON-like parts."""
    # The names of files need not be Unicode.
    encoded = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's content; read once as long as the file does not change.

    Raises:
        OSError: it cannot be read.
    """
    state = path.stat()
    return _file_digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_digest(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
