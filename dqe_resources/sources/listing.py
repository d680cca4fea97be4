"""Lists of URLs with their captions, as tables laid end to end and an index of their rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dqe_resources import progress
from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.index import RowIndex, build_index, cached, digest64
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.parts import ParquetPart, Part, read_rows, rows_of, shards_of, values_of
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.text_lists import LIST_SCHEMA, Columns, ListRow, write_rows
from dqe_resources.web_url import separated, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dqe_resources.sources.protocol import Shard

_FORM = f"3 {LIST_SCHEMA.to_string()}"
"""Goes into the names of cached files: those of another form are made again."""

_LONGEST_NAME = 80
_REPORT_ROWS = 20_000
_APART = "//@"
"""Stands in a URL whose credentials have been left out: a user without a name."""


@dataclass(frozen=True)
class Listing:
    """The rows of a source that is a list of URLs.

    A row is named by the last part of its URL and a digest of URL and caption, or by the list's own key. Equal rows
    are numbered. So a row keeps its name whatever stands around it and however large the shards are.

    Attributes:
        name: of the source.
        parts: the tables.
        columns: which of their columns are what; a ``ConvertedList`` has those of ``LIST_SCHEMA``.
        left_out: what stands next to the tables and is none.
    """

    name: str
    parts: Sequence[Part]
    columns: Columns
    left_out: LeftOut = field(default_factory=LeftOut)

    @cached_property
    def index(self) -> RowIndex:
        """The index, made in one pass over all rows unless it is in the cache."""
        state = [_FORM, str(self.columns), [(part.name, part.state) for part in self.parts]]
        return build_index(f"{self.name}-index", state, self._digests)

    def shards(self, shard_size: int, first: int) -> Iterator[Shard]:
        """As ``Source.shards``. The digests are of what is in the rows: a file may be renamed, touched or added to."""
        rows_of(self.parts)
        return shards_of(self.index.rows, shard_size, first, self.index.digest, self.left_out)

    def rows(self, first: int, count: int) -> Iterator[SourceRow]:
        """The rows from ``first`` on."""
        for key, row in self.named_rows(first, count):
            yield SourceRow(key, row.caption, None, row.url, None, None, row.fault, row.metadata, row.captions)

    def named_rows(self, first: int, count: int) -> Iterator[tuple[str, ListRow]]:
        """The rows from ``first`` on as the list has them, each with its name."""
        last = min(first + count, self.index.rows)
        identities, numbers = self.index.columns(first, last, ("identity", "number"))
        rows = self._rows(first, last - first)
        for row, identity, number in zip(rows, identities.tolist(), numbers.tolist(), strict=True):
            yield _key(row, identity, number), row

    def _digests(self) -> Iterator[tuple[int, int]]:
        rows = self._rows(0, sum(part.rows for part in self.parts))
        # Whoever is given a new password has the same rows as before.
        rows = (row._replace(url=row.url and separated(row.url)[0]) for row in rows)
        for row in _reported(rows, f"index of {self.name}"):
            *texts, captions = row
            is_plain = not any(text is not None for text in (row.key, row.metadata, row.fault, captions))
            yield _identity(row), 0 if is_plain else digest64(*texts, *(captions or ()))

    def _rows(self, first: int, count: int) -> Iterator[ListRow]:
        texts: dict[Part, Iterator[tuple[int, ListRow]]] = {}
        for part, number, batch in read_rows(self.parts, self._names, first, count):
            values = zip(*map(values_of, batch.columns), strict=True)
            if isinstance(part, ConvertedList):
                if part not in texts:
                    texts[part] = enumerate(part.text_rows())
                yield from (_as_written(ListRow(*one), row, texts[part]) for row, one in enumerate(values, number))
                continue
            for row, record in enumerate(values, number + 1):
                yield self.columns.row(dict(zip(batch.schema.names, record, strict=True)), f"{part.location}, row", row)

    def _names(self, part: Part) -> list[str]:
        return LIST_SCHEMA.names if isinstance(part, ConvertedList) else self.columns.names


@dataclass(frozen=True)
class ConvertedList(ParquetPart):
    """A list that is kept as text, as a Parquet file without the credentials in its URLs: they stay in the list alone.

    Attributes:
        text_rows: reads the list.
    """

    text_rows: Callable[[], Iterator[ListRow]] = field(compare=False, kw_only=True)


def _as_written(row: ListRow, number: int, texts: Iterator[tuple[int, ListRow]]) -> ListRow:
    """A row of a converted list; one whose URL has credentials is read from the list, after the rows before it."""
    if _APART not in (row.url or ""):
        return row
    return next((one for place, one in texts if place == number), row)


def converted_list(
    source: str, name: str, state: tuple[Any, ...], rows: Callable[[], Iterator[ListRow]]
) -> ConvertedList:
    """The rows of a list that is kept as text, as a Parquet file in data/cache, which is made unless it is there.

    Args:
        source: name of the source.
        name: of the list within it.
        state: whatever the rows depend on, JSON-like.
        rows: reads them.
    """

    def build(target: Path) -> None:
        write_rows(map(_concealed, _reported(rows(), f"{source}: {name}")), target)

    path = cached(f"{source}-list-{fingerprint(name)}", [_FORM, state], build)
    return ConvertedList(name, str(path), state, path, text_rows=rows)


def _concealed(row: ListRow) -> ListRow:
    """The row without credentials, whose URL shows that it has had some."""
    url = separated(row.url or "")[0]
    if url != (row.url or ""):
        row = row._replace(url=url.replace("//", _APART, 1))
    return row._replace(metadata=row.metadata and without_credentials(row.metadata))


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
    path = separated(row.url or "")[0].partition("?")[0].partition("#")[0].rstrip("/")
    name = row.key or path.rpartition("/")[2][:_LONGEST_NAME] or "row"
    return f"{name}:{identity:016x}" + (f"#{number}" if number > 1 else "")
