"""Lists kept as text: CSV, TSV, JSON Lines and plain lines, also compressed, read from beginning to end.

A fault in one line of a list from the web affects only that line: it becomes a row with a fault, and reading goes on
with the next line. Only a fault of the whole file is an error.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.sources.protocol import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Compression by the end of a file's name."""

LONGEST_LINE = 1 << 20
"""Characters of a line; of a longer one no more is read, and its row has a fault."""

_CUT = "\udfff"
"""Ends a line that was cut off there. No byte is decoded to it, so no other text can hold it."""

_BATCH_ROWS = 10_000
_BATCH_CHARACTERS = 1 << 24

_TOO_LONG = f"in a line of more than {LONGEST_LINE:,} characters"

_SURROGATE = re.compile("[\ud800-\udfff]")

_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class ListRow(NamedTuple):
    """A row of a list of URLs.

    Attributes:
        url: as found, without white space around it; None if there is none.
        caption: as found.
        key: what names the row for good, where the list has it.
        metadata: the other columns that are kept, or the line of a faulty row: a JSON object, as text.
        fault: why the row cannot be used.
    """

    url: str | None
    caption: str | None
    key: str | None = None
    metadata: str | None = None
    fault: str | None = None


LIST_SCHEMA = pa.schema([(name, pa.string()) for name in ListRow._fields])


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a list are what."""

    url: str
    caption: str
    key: str | None = None
    metadata: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        named = [self.url, self.caption, *([self.key] if self.key else []), *self.metadata]
        return list(dict.fromkeys(named))

    def row(self, values: dict[str, Any], where: str, number: int) -> ListRow:
        """The row of a record, which stands at a number (of a line, of a row) in a place, as faults then say."""
        url, caption, key = values.get(self.url), values.get(self.caption), values.get(self.key) if self.key else None
        if isinstance(key, int):
            key = str(key)
        if not (is_storable(url) and is_storable(caption) and is_storable(key)):
            column = next(
                name for name in (self.url, self.caption, self.key) if name and not is_storable(values.get(name))
            )
            value = values[column]
            found = type(value).__name__
            if isinstance(value, str):
                found = _TOO_LONG if value.endswith(_CUT) else "not in UTF-8"
            return _faulty(values, f"{where} {number:,}: column '{column}' is {found}, expected text")
        kept = as_json({name: values.get(name) for name in self.metadata}) if self.metadata else None
        if self.key and not key:
            fault = f"{where} {number:,}: column '{self.key}' is empty, and it is to name the row"
            return ListRow(url, caption, None, kept, fault)
        if not url or not (url := url.strip()):
            return ListRow(None, caption, key, kept, f"{where} {number:,}: column '{self.url}' is empty")
        return ListRow(url, caption, key, kept)


def as_json(values: dict[str, Any]) -> str:
    """A JSON object; what JSON has no word for is null (a number that is none) or text."""
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(values), ensure_ascii=False, default=str)
    # Half a surrogate pair is spelt out: as an escape it would be JSON that many a parser refuses.
    return text if text.isascii() else _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


class Lines:
    """The lines of a text file in UTF-8, with their numbers; bytes that are not UTF-8 become surrogates.

    Attributes:
        number: of the line last given, from 1.
        taken: the lines given since ``mark``.
    """

    def __init__(self, path: Path, newline: str) -> None:
        """Open a file.

        Args:
            path: the file; the end of its name says how it is compressed.
            newline: as for ``open``.
        """
        self.path = path
        self.number = 0
        self.taken: list[str] = []
        self._again: deque[str] = deque()
        try:
            with path.open("rb") as file:
                encoding = _OTHER_ENCODINGS.get(file.read(2))
            stream = pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix.lower()))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error
        if encoding is not None:
            raise SourceError(f"{path}: is {encoding}, expected UTF-8: save it as UTF-8")
        self._text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline)

    def close(self) -> None:
        """Close the file."""
        self._text.close()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        self.number += 1
        self.taken.append(line)
        return line

    def mark(self) -> None:
        """Forget the lines taken so far."""
        self.taken.clear()

    def give_back(self) -> str:
        """Give back all lines taken since the mark, but for the first of them, which is returned."""
        first, *rest = self.taken
        self._again.extendleft(reversed(rest))
        self.number -= len(rest)
        return first

    def _read(self) -> str:
        try:
            line = self._text.readline(LONGEST_LINE)
            rest = line
            while len(rest) == LONGEST_LINE and not rest.endswith("\n"):
                rest = self._text.readline(LONGEST_LINE)
        except OSError as error:
            raise SourceError(
                f"{self.path}, after line {self.number:,}: damaged or cut off ({error}); get the file again"
            ) from error
        if not line:
            raise StopIteration
        return line if rest is line else line + _CUT


def csv_rows(
    path: Path, columns: Columns, *, delimiter: str, quoted: bool, header: tuple[str, ...] | None
) -> Iterator[ListRow]:
    """The rows of a CSV or TSV file. Blank lines are none.

    Args:
        path: the file.
        columns: which columns are what.
        delimiter: between two fields.
        quoted: whether fields can stand in double quotes, with delimiters and line ends inside.
        header: the columns' names; None if the first line gives them.

    Raises:
        SourceError: the file as a whole is no such list: says what was expected.
    """
    with closing(Lines(path, newline="")) as lines:
        records = _csv_records(lines, delimiter, quoted=quoted)
        if header is None:
            fields, fault = next(records, (None, None))
            if fault or not fields:
                raise SourceError(f"{path}: {fault or 'empty'}; expected a first line with the names of the columns")
            header = tuple(fields)
        _check_header(path, header, columns)
        for fields, fault in records:
            number = lines.number - len(lines.taken) + 1
            if fields is None:
                yield _faulty_line(lines.taken[0], f"{path}, line {number:,}: {fault}")
            elif len(fields) != len(header):
                found = f"{len(fields)} field{'s' if len(fields) != 1 else ''}, expected {len(header)}"
                where = f"{path}, line {number:,}"
                yield _faulty_line("".join(lines.taken), f"{where}: {found} ({', '.join(header)})")
            else:
                yield columns.row(dict(zip(header, fields, strict=True)), f"{path}, line", number)


def _csv_records(lines: Lines, delimiter: str, *, quoted: bool) -> Iterator[tuple[list[str] | None, str | None]]:
    """Fields of each record, or what is wrong with its line."""
    reader = csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    while True:
        lines.mark()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is never closed swallows the lines after it: they are read again, as lines of their own.
            is_one_line = len(lines.taken) == 1
            lines.taken[:] = [lines.give_back()]
            yield None, str(error) if is_one_line else f"a quote that is not closed ({error})"
        else:
            if fields:
                yield fields, None


def _check_header(path: Path, header: tuple[str, ...], columns: Columns) -> None:
    for column in columns.names:
        if header.count(column) != 1:
            found = f"{header.count(column)} columns" if column in header else "no column"
            raise SourceError(f"{path}: {found} '{column}'; there are: {readable(', '.join(header))}")


def jsonl_rows(path: Path, columns: Columns) -> Iterator[ListRow]:
    """The rows of a JSON Lines file, an object a line. Blank lines are none.

    Raises:
        SourceError: the first object has not all the columns, or the file cannot be read.
    """
    is_first = True
    with closing(Lines(path, newline="\n")) as lines:
        for line in lines:
            lines.mark()
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                found = _TOO_LONG if line.endswith(_CUT) else f"not JSON ({error})"
                yield _faulty_line(line, f"{path}, line {lines.number:,}: {found}")
                continue
            if not isinstance(record, dict):
                found = type(record).__name__
                yield _faulty_line(line, f"{path}, line {lines.number:,}: expected an object, found {found}")
                continue
            if is_first:
                _check_header(path, tuple(record), columns)
                is_first = False
            yield columns.row(record, f"{path}, line", lines.number)


def paired_rows(urls: Path, captions: Path) -> Iterator[ListRow]:
    """The rows of two files, one with a URL and the other with a caption in each line.

    Raises:
        SourceError: one has more lines than the other; names both and their lines.
    """
    with closing(Lines(urls, newline="\n")) as url_lines, closing(Lines(captions, newline="\n")) as caption_lines:
        columns = Columns("url", "caption")
        for url in url_lines:
            caption = next(caption_lines, None)
            if caption is None:
                break
            url_lines.mark()
            caption_lines.mark()
            values = {"url": url.rstrip("\r\n"), "caption": caption.rstrip("\r\n")}
            yield columns.row(values, f"{urls}, line", url_lines.number)
        counts = []
        for lines in (url_lines, caption_lines):
            for _ in lines:
                lines.mark()
            counts.append(lines.number)
    if counts[0] != counts[1]:
        raise SourceError(
            f"{urls} has {counts[0]:,} lines and {captions} has {counts[1]:,}: expected one "
            "caption for each URL; get both files again"
        )


def write_rows(rows: Iterable[ListRow], path: Path) -> None:
    """Write rows as Parquet, in bounded memory."""
    with pq.ParquetWriter(path, LIST_SCHEMA, compression="zstd") as writer:
        batch: list[ListRow] = []
        characters = 0
        for row in rows:
            batch.append(row)
            characters += len(row.caption or "") + len(row.metadata or "")
            if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
                writer.write_batch(_batch(batch))
                batch, characters = [], 0
        if batch:
            writer.write_batch(_batch(batch))


def _batch(rows: list[ListRow]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], LIST_SCHEMA)


def is_storable(value: Any) -> bool:
    """Whether it is text, all of it Unicode, or nothing."""
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(text: str) -> str:
    """Text with its surrogates written out, so that it can be shown and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def _faulty(record: dict[str, Any], fault: str) -> ListRow:
    """The row of a record that cannot be used; all that it holds is kept."""
    return ListRow(None, None, metadata=as_json(record), fault=readable(fault))


def _faulty_line(line: str, fault: str) -> ListRow:
    return _faulty({"line": line.rstrip("\r\n").replace(_CUT, "…")}, fault)
