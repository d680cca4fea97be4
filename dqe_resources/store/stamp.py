"""The stamp: facts about a stored partition, in the metadata of its file."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHECKSUM = re.compile(rb',\n "checksum": "([0-9a-f]{8})"\n}\Z')


class ChecksumError(ValueError):
    """A stamp is not as it was written."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Facts about a stored partition.

    Attributes:
        fingerprint: hex digest of everything that went into it.
        code_version: of the asset that made it.
        rows: rows of the table, or points, files ... that a manifest counts.
        failed_checks: blocking checks that it failed: people may look at it, but nothing is built from it.
        facts: everything else in a manifest; empty for most tables.
        content: digest of the output itself, if the same inputs can give another one; else empty.
    """

    fingerprint: str
    code_version: str
    rows: int
    failed_checks: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""

    @property
    def identity(self) -> str:
        """What later assets depend on: equal for equal partitions."""
        return fingerprint(self.fingerprint, self.content) if self.content else self.fingerprint

    def to_json(self) -> bytes:
        """Deterministic JSON, with a checksum of itself."""
        names = ("fingerprint", "code_version", "rows", "failed_checks", "facts", "content")
        record = {name: getattr(self, name) for name in names}
        text = json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False).encode()
        return text[:-2] + f',\n "checksum": "{zlib.crc32(text):08x}"\n}}'.encode()

    @classmethod
    def from_json(cls, data: bytes) -> Stamp:
        """The reverse of ``to_json``; raises ValueError or KeyError on anything else.

        Raises:
            ChecksumError: it is not as it was written.
        """
        # An earlier version of this project wrote none.
        if (found := _CHECKSUM.search(data)) and int(found[1], 16) != zlib.crc32(data[: found.start()] + b"\n}"):
            raise ChecksumError
        record = json.loads(data)
        return cls(
            fingerprint=record["fingerprint"],
            code_version=record["code_version"],
            rows=record["rows"],
            failed_checks=tuple(record["failed_checks"]),
            facts=record["facts"],
            content=record.get("content", ""),
        )
