"""What every place of a publication can do."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint
from dqe_resources.locks import HeldError, file_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class File:
    """A file to write.

    Attributes:
        name: path in the place.
        samples: how many it holds.
        write: writes it: always the same bytes.
        beside: gives name and content of files that are written before it, and that no record lists.
        folder: of those files, of which there are as many as samples.
    """

    name: str
    samples: int
    write: Callable[[BinaryIO], Any]
    beside: Callable[[], Iterable[tuple[str, bytes]]] = tuple
    folder: str = ""

    def is_whole(self, sizes: Mapping[str, int]) -> bool:
        """Whether what is written before it is there, by the bytes of each file that is."""
        return not self.folder or sum(name.startswith(f"{self.folder}/") for name in sizes) >= self.samples


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written.

    Attributes:
        name: path in the place.
        samples: how many it holds.
        bytes: its size.
        sha256: hex digest of its bytes.
    """

    name: str
    samples: int
    bytes: int
    sha256: str


class Place(Protocol):
    """Where the files of a publication are written, each whole or not at all.

    All methods raise StorageError, which names the place and what to do, if it cannot be read or written.
    """

    @property
    def name(self) -> str:
        """What a person calls it."""

    def alone(self) -> AbstractContextManager[None]:
        """Make the place if it is not there, and keep other runs of this machine from writing to it meanwhile."""

    def record(self, name: str) -> dict[str, Any] | None:
        """The JSON object of a file; None if there is none."""

    def sizes(self) -> dict[str, int]:
        """The bytes of each file that is there, by name."""

    def write(self, file: File) -> Written:
        """Write a file."""

    def keep(self, name: str, record: dict[str, Any]) -> None:
        """Write a JSON object that says how far the work is; a place may do so less often than it is told."""

    def finish(self, name: str, record: dict[str, Any], unfinished: str) -> None:
        """Write the JSON object that says that all is there, and remove the one that says how far the work is."""

    def reopen(self, name: str, unfinished: str, record: dict[str, Any]) -> None:
        """Write the JSON object that says how far the work is, and remove the one that says that all is there."""


@contextmanager
def url_alone(url: str) -> Iterator[None]:
    """Keep other runs of this machine from writing to a URL meanwhile.

    Runs of other machines that publish the same write the same bytes; those that publish something else are refused by
    what the place holds.
    """
    try:
        with file_alone(data_directory() / "published" / fingerprint(url)):
            yield
    except HeldError:
        raise HeldError(f"{url}: another run is writing to it; wait until it ends") from None
