"""Fingerprints: digests of everything that a result was made from."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def fingerprint(*parts: Any) -> str:
    """Hex digest (128 bits) of JSON-like parts."""
    # The names of files need not be Unicode.
    encoded = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()
