"""A folder of an object store, or of whatever else fsspec reaches."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.places.protocol import File, Written, url_alone
from dqe_assets.training.reshard import parse_record, record_bytes
from dqe_resources.errors import UsageError, one_line
from dqe_resources.store import StorageError, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import fsspec


@dataclass(frozen=True)
class Bucket:
    """A folder that an fsspec URL names; its methods are those of ``Place``.

    An object store shows an object only once it is whole, so a connection that ends leaves nothing half written.

    Attributes:
        url: the URL.
        filesystem: reaches it.
        root: its path there.
    """

    url: str
    filesystem: fsspec.AbstractFileSystem
    root: str

    @classmethod
    def at(cls, url: str) -> Bucket:
        """The folder of a URL.

        Raises:
            UsageError: nothing reaches such URLs, or a package for them is missing.
        """
        import fsspec

        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{url}: {one_line(error)}") from error
        if not root.strip("/"):
            raise UsageError(f"{url}: this names no folder; name one, such as {url.rstrip('/')}/NAME")
        return cls(url, filesystem, root.rstrip("/"))

    @property
    def name(self) -> str:
        """Its URL."""
        return self.url

    def alone(self) -> AbstractContextManager[None]:
        """As ``Place.alone``."""
        return url_alone(self.url)

    def record(self, name: str) -> dict[str, Any] | None:
        """As ``Place.record``."""
        with self._asking():
            try:
                return parse_record(self.filesystem.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def sizes(self) -> dict[str, int]:
        """As ``Place.sizes``."""
        with self._asking():
            self.filesystem.invalidate_cache()
            try:
                found = self.filesystem.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
        return {path.removeprefix(f"{self.root}/"): info["size"] for path, info in found.items()}

    def write(self, file: File) -> Written:
        """As ``Place.write``: made on this machine first, and sent once it is whole."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "object"
            written = write_locally(file, local)
            with self._asking():
                self.filesystem.put_file(str(local), self._path(file.name))
        return written

    def keep(self, name: str, record: dict[str, Any]) -> None:
        """As ``Place.keep``."""
        self.write(File(name, 0, lambda target: target.write(record_bytes(record))))

    def finish(self, name: str, record: dict[str, Any], unfinished: str) -> None:
        """As ``Place.finish``."""
        if self.record(name) != record:
            self.keep(name, record)
        self._remove(unfinished)

    def reopen(self, name: str, unfinished: str, record: dict[str, Any]) -> None:
        """As ``Place.reopen``."""
        self.keep(unfinished, record)
        self._remove(name)

    def _remove(self, name: str) -> None:
        with self._asking(), suppress(FileNotFoundError):
            self.filesystem.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say of what the store answers which place it is of, and what to do."""
        try:
            yield
        except storage_errors() as error:
            raise StorageError(
                f"{self.url}: {type(error).__name__}: {one_line(error)}; what is finished is kept: once that is mended "
                "(network, credentials, rights to write), run the same command again"
            ) from error


def write_locally(file: File, path: Path) -> Written:
    """Write a file of a publication to a path of this machine.

    Raises:
        StorageError: the disk is full, or something of the store cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w+b") as target:
            file.write(target)
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(
            f"{file.name}: cannot be made in {path.parent} ({error.strerror or error}); free space there, or set TMPDIR"
        ) from error
    return Written(file.name, file.samples, path.stat().st_size, digest)
