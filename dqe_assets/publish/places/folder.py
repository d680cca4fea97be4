"""A folder of this machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.places.protocol import Written
from dqe_assets.publish.selection import PublishError
from dqe_assets.training.reshard import read_record, write_record
from dqe_resources.locks import LOCK, folder_alone
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dqe_assets.publish.places.protocol import File

_TORN = ".*.tmp"


@dataclass(frozen=True)
class Folder:
    """A folder of this machine; its methods are those of ``Place``."""

    path: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def alone(self) -> AbstractContextManager[None]:
        """As ``Place.alone``."""
        if self.path.is_file():
            raise PublishError(f"{self.path}: this is a file; name an empty folder")
        return folder_alone(self.path)

    def record(self, name: str) -> dict[str, Any] | None:
        """As ``Place.record``."""
        return read_record(self.path / name)

    def sizes(self) -> dict[str, int]:
        """As ``Place.sizes``, without what killed runs left."""
        return {
            path.relative_to(self.path).as_posix(): path.stat().st_size
            for path in self.path.rglob("*")
            if path.is_file() and path.name != LOCK and not path.match(_TORN)
        }

    def write(self, file: File) -> Written:
        """As ``Place.write``."""
        path = self.path / file.name
        replace_file(path, file.write)
        with path.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        return Written(file.name, file.samples, path.stat().st_size, digest)

    def keep(self, name: str, record: dict[str, Any]) -> None:
        """As ``Place.keep``."""
        write_record(self.path / name, record)

    def finish(self, name: str, record: dict[str, Any], unfinished: str) -> None:
        """As ``Place.finish``."""
        for torn in self.path.rglob(_TORN):
            torn.unlink()
        if self.record(name) != record:
            write_record(self.path / name, record)
        (self.path / unfinished).unlink(missing_ok=True)

    def reopen(self, name: str, unfinished: str, record: dict[str, Any]) -> None:
        """As ``Place.reopen``."""
        self.keep(unfinished, record)
        (self.path / name).unlink(missing_ok=True)
