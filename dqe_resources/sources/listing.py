"""Lists of URLs with their captions, as tables laid end to end and an index of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dqe_resources import progress
from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.index import RowIndex, build_index, cached, digest64
from dqe_resources.sources.parts import ParquetPart, Part, read_rows, shards_of, values_of
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.text_lists import LIST_SCHEMA, Columns, ListRow, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dqe_resources.sources.protocol import Shard

_LONGEST_NAME = 80
_REPORT_ROWS = 20_000


@dataclass(frozen=True)
class Listing:
    """The rows of a source that is a list of URLs.

    A row is named by the last part of its URL and a digest of URL and caption, or by the list's own key. Equal rows
    are numbered. So a row keeps its name whatever stands around it and however large the shards are.

    Attributes:
        name: of the source.
        parts: the tables.
        columns: which of their columns are what.
        converted: those of the tables that have the columns of ``LIST_SCHEMA`` instead.
    """

    name: str
    parts: Sequence[Part]
    columns: Columns
    converted: frozenset[Part] = frozenset()

    @cached_property
    def index(self) -> RowIndex:
        """The index, made in one pass over all rows unless it is in the cache."""
        state = [str(self.columns), [(part.name, part.state) for part in self.parts]]
        return build_index(f"{self.name}-index", state, self._digests)

    def shards(self, shard_size: int, first: int) -> Iterator[Shard]:
        """As ``Source.shards``. The digests are of what is in the rows: a file may be renamed, touched or added to."""
        return shards_of(self.index.rows, shard_size, first, self.index.digest)

    def rows(self, first: int, count: int) -> Iterator[SourceRow]:
        """The rows from ``first`` on."""
        last = min(first + count, self.index.rows)
        identities, numbers = self.index.columns(first, last, ("identity", "number"))
        rows = self._rows(first, last - first)
        for row, identity, number in zip(rows, identities.tolist(), numbers.tolist(), strict=True):
            key = _key(row, identity, number)
            yield SourceRow(key, row.caption, None, row.url, fault=row.fault, metadata=row.metadata)

    def _digests(self) -> Iterator[tuple[int, int]]:
        rows = self._rows(0, sum(part.rows for part in self.parts))
        for row in _reported(rows, f"index of {self.name}"):
            is_plain = row.key is None and row.metadata is None and row.fault is None
            yield _identity(row), 0 if is_plain else digest64(*row)

    def _rows(self, first: int, count: int) -> Iterator[ListRow]:
        for part, number, batch in read_rows(self.parts, self._names, first, count):
            values = zip(*map(values_of, batch.columns), strict=True)
            if part in self.converted:
                yield from map(ListRow._make, values)
                continue
            for row, record in enumerate(values, number + 1):
                yield self.columns.row(dict(zip(batch.schema.names, record, strict=True)), f"{part.location}, row", row)

    def _names(self, part: Part) -> list[str]:
        return LIST_SCHEMA.names if part in self.converted else self.columns.names


def converted_list(
    source: str, name: str, state: tuple[Any, ...], rows: Callable[[], Iterator[ListRow]]
) -> ParquetPart:
    """The rows of a list that is kept as text, as a Parquet file in data/cache, which is made unless it is there.

    Args:
        source: name of the source.
        name: of the list within it.
        state: whatever the rows depend on, JSON-like.
        rows: reads them.
    """

    def build(target: Path) -> None:
        write_rows(_reported(rows(), f"{source}: {name}"), target)

    return ParquetPart(name, str(cached(f"{source}-list-{fingerprint(name)}", state, build)), state)


def _reported(rows: Iterator[ListRow], what: str) -> Iterator[ListRow]:
    """The rows; listeners are told how many have been read."""
    count = 0
    for count, row in enumerate(rows, 1):
        yield row
        if count % _REPORT_ROWS == 0:
            progress.report(progress.Step(what, None, count, 0))
    progress.report(progress.Step(what, None, count, count, f"{count:,} rows read"))


def _identity(row: ListRow) -> int:
    if row.key is not None:
        return digest64(row.key)
    if row.url is None and row.caption is None:
        return digest64(row.metadata)
    return digest64(row.url, row.caption)


def _key(row: ListRow, identity: int, number: int) -> str:
    if row.key is not None and number == 1:
        return row.key
    path = (row.url or "").partition("?")[0].partition("#")[0].rstrip("/")
    name = row.key or path.rpartition("/")[2][:_LONGEST_NAME] or "row"
    return f"{name}:{identity:016x}" + (f"#{number}" if number > 1 else "")
