"""An index of a source's rows, made in one pass and kept in data/cache: which are equal, and which have changed.

Memory while an index is built: some 45 bytes for each row (10 million rows: 450 MB), and 10 bytes on disk.
"""

from __future__ import annotations

import hashlib
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.cache import cached_file, data_directory
from dqe_resources.errors import one_line
from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.protocol import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_GROUP_ROWS = 1 << 16
_CHUNK = 1 << 20

_SCHEMA = pa.schema([("identity", pa.uint64()), ("content", pa.uint64()), ("number", pa.uint32())])


def digest64(*texts: str | None) -> int:
    """A 64-bit digest of some texts; None and an empty text differ."""
    joined = "\0".join(["\x01" if text is None else text for text in texts])
    return int.from_bytes(hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def occurrences(identities: np.ndarray) -> np.ndarray:
    """The number of each row among its equals, from 1.

    Args:
        identities: digests of the rows, uint64 [n].

    Returns:
        uint32 [n].
    """
    numbers = np.ones(len(identities), np.uint32)
    ordered = np.sort(identities)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(repeated):
        return numbers
    rows = np.concatenate(
        [
            start + np.flatnonzero(_is_in(identities[start : start + _CHUNK], repeated))
            for start in range(0, len(identities), _CHUNK)
        ]
    )
    order = np.argsort(identities[rows], kind="stable")
    equal = identities[rows][order]
    starts = np.flatnonzero(np.concatenate([[True], equal[1:] != equal[:-1]]))
    lengths = np.diff(np.append(starts, len(equal)))
    numbers[rows[order]] = np.arange(len(equal)) - np.repeat(starts, lengths) + 1
    return numbers


def _is_in(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values


@dataclass(frozen=True)
class RowIndex:
    """The index of a source's rows, or of one of its tables.

    Its columns: ``identity``, the digest of what makes a row the same row; ``content``, that of what else is in it, or
    0; ``number``, its number among the rows of that identity.
    """

    path: Path

    @cached_property
    def rows(self) -> int:
        """Rows in the index."""
        with self._whole():
            return pq.read_metadata(self.path).num_rows

    def columns(self, first: int, last: int, names: Iterable[str]) -> list[np.ndarray]:
        """Some columns, of the rows from ``first`` up to ``last``."""
        groups = range(first // _GROUP_ROWS, -(-last // _GROUP_ROWS))
        with self._whole(), pq.ParquetFile(self.path, page_checksum_verification=True) as file:
            table = file.read_row_groups(list(groups), columns=list(names))
        offset = first - groups.start * _GROUP_ROWS
        return [table[name].to_numpy()[offset : offset + last - first] for name in names]

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{self.path}: damaged ({one_line(error)}); delete it, and run the same command again, which makes it"
            ) from error

    def digest(self, first: int, last: int) -> str:
        """Digest of the rows from ``first`` up to ``last``: of what is in them, wherever they stand in which file."""
        columns = self.columns(first, last, _SCHEMA.names)
        return hashlib.blake2b(b"".join(column.tobytes() for column in columns), digest_size=16).hexdigest()


def build_index(name: str, state: Any, digests: Callable[[], Iterable[tuple[int, int]]]) -> RowIndex:
    """The index of that name and state, from the cache, or else made.

    Args:
        name: what it is the index of: another index of that name, of another state, goes when this one is made.
        state: whatever the rows depend on, JSON-like.
        digests: gives identity and content (see ``RowIndex``) of every row, in order.
    """

    def build(path: Path) -> None:
        identities, contents = array("Q"), array("Q")
        for identity, content in digests():
            identities.append(identity)
            contents.append(content)
        identity_array, content_array = np.frombuffer(identities, np.uint64), np.frombuffer(contents, np.uint64)
        columns = [identity_array, content_array, occurrences(identity_array)]
        options = {"row_group_size": _GROUP_ROWS, "compression": "zstd", "write_page_checksum": True}
        pq.write_table(pa.table(columns, schema=_SCHEMA), path, **options)

    return RowIndex(cached(name, state, build))


def cached(name: str, state: Any, build: Callable[[Path], None], suffix: str = ".parquet") -> Path:
    """A file of the cache, of that name and state; those of the name's former states are removed."""
    file = f"{name}-{fingerprint(state)}{suffix}"
    is_new = not (data_directory() / "cache" / file).is_file()
    path = cached_file(file, build)
    if is_new:
        for other in path.parent.glob(f"{name}-{'?' * 32}{suffix}"):
            if other != path:
                other.unlink(missing_ok=True)
                other.with_name(f".{other.name}.lock").unlink(missing_ok=True)
    return path
