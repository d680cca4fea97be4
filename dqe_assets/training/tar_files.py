"""The tars that samples are written to: plain files with short names, in the form that POSIX calls ustar.

``tarfile`` of the standard library makes and parses an object for each file, which costs more than the small pictures
of toy scales. What is written has the very bytes that it writes, and anything can read it.
"""

from __future__ import annotations

import mmap
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_NAME, _SIZE, _CHECKSUM, _TYPE = slice(0, 100), slice(124, 136), slice(148, 156), slice(156, 157)
_PLAIN = (b"0", b"\0")
_LARGEST = 8**11 - 1


class TarError(DataQualityError):
    """A tar is not of the kind that is written here: says which, and what to do."""


class Writable(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes, /) -> int:
        """Write all of it; returns how much that was."""


def write_files(target: Writable, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files, each with its name, as a tar.

    They have neither a time nor an owner: so the same files give the same bytes.

    Raises:
        ValueError: a name has more than 100 bytes, or a file 8 GiB.
    """
    template = bytearray(_header("", 0))
    written = 0
    for name, data in files:
        encoded = name.encode()
        if len(encoded) > 100 or len(data) > _LARGEST:
            raise ValueError(f"{name}: a name of {len(encoded)} and contents of {len(data):,} bytes are too long")
        header = template.copy()
        header[_NAME] = encoded.ljust(100, b"\0")
        header[_SIZE] = b"%011o\0" % len(data)
        header[_CHECKSUM] = b" " * 8
        header[_CHECKSUM] = b"%06o\0 " % sum(header)
        target.write(bytes(header))
        target.write(data)
        padding = -len(data) % _BLOCK
        target.write(bytes(padding))
        written += _BLOCK + len(data) + padding
    end = 2 * _BLOCK
    target.write(bytes(end + -(written + end) % _RECORD))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


@contextmanager
def opened(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a tar, mapped: what is not read takes no memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def files_of(data: mmap.mmap, path: Path) -> Iterator[tuple[str, slice]]:
    """The name of each file of a tar that ``write_files`` wrote, and where in it the contents are.

    Raises:
        TarError: something else is in it.
    """
    at = 0
    while (header := data[at : at + _BLOCK]).strip(b"\0"):
        try:
            size = int(header[_SIZE].rstrip(b"\0 "), 8)
        except ValueError:
            size = -1
        if header[_TYPE] not in _PLAIN or size < 0 or len(header) < _BLOCK or at + _BLOCK + size > len(data):
            raise TarError(
                f"{path}: at byte {at:,} there is no plain file of a tar as this platform writes it; remove "
                f"{path.parent}, and make it again"
            )
        begin = at + _BLOCK
        yield header[_NAME].partition(b"\0")[0].decode(), slice(begin, begin + size)
        at = begin + size + -size % _BLOCK
