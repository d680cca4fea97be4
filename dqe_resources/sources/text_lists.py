"""Lists kept as text: CSV, TSV, JSON Lines and plain lines, also compressed, read from beginning to end.

A fault in one line of a list from the web affects only that line: it becomes a row with a fault, and reading goes on
with the next line. Only a fault of the whole file is an error.
"""

from __future__ import annotations

import csv
import json
import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.sources.lines import COMPRESSIONS, CUT, LONGEST_LINE, Lines
from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.texts import captions_of, is_storable, readable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TEXT_SUFFIXES = tuple(f"{kind}{end}" for kind in (".csv", ".tsv", ".jsonl", ".ndjson") for end in ("", *COMPRESSIONS))

_BATCH_ROWS = 10_000
_BATCH_CHARACTERS = 1 << 24

_HEAD_OBJECTS = 1000
"""Objects of a JSON Lines file that are looked at for its columns: what is null is often left out of an object."""

_TOO_LONG = f"in a line of more than {LONGEST_LINE:,} characters"

_SURROGATE = re.compile("[\ud800-\udfff]")


class ListRow(NamedTuple):
    """A row of a list.

    Attributes:
        url: as found, without white space around it; None if there is none.
        caption: as found; of several the first.
        key: what names the row for good, where the list has it.
        metadata: the other columns that are kept, or the line of a faulty row: a JSON object, as text.
        fault: why the row cannot be used.
        captions: all of them, if there are several.
    """

    url: str | None
    caption: str | None
    key: str | None = None
    metadata: str | None = None
    fault: str | None = None
    captions: list[str] | None = None


LIST_SCHEMA = pa.schema(
    [(name, pa.list_(pa.string()) if name == "captions" else pa.string()) for name in ListRow._fields]
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a list are what.

    Attributes:
        url: of the URL, or None.
        caption: of the caption: a text, or a list of texts.
        key: of what names the row, or None.
        metadata: of what else is kept.
        needs_url: whether a row without a URL is faulty.
    """

    url: str | None
    caption: str
    key: str | None = None
    metadata: tuple[str, ...] = ()
    needs_url: bool = True

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        named = [self.url, self.caption, self.key, *self.metadata]
        return list(dict.fromkeys(name for name in named if name is not None))

    def row(self, values: dict[str, Any], where: str, number: int) -> ListRow:
        """The row of a record, which stands at a number (of a line, of a row) in a place, as faults then say."""
        url, key = values.get(self.url or ""), values.get(self.key or "")
        captions = captions_of(values.get(self.caption))
        if isinstance(key, int):
            key = str(key)
        if captions is None or not (is_storable(url) and is_storable(key)):
            wrong = self.caption if captions is None else (self.key if is_storable(url) else self.url) or ""
            found = f"{where} {number:,}: column '{wrong}' is {_found(values[wrong])}, expected text"
            return _faulty(values, found, key if is_storable(key) else None)
        caption, several = captions
        kept = as_json({name: values.get(name) for name in self.metadata}) if self.metadata else None
        fault = None
        url = (url or "").strip() or None
        if self.key and not key:
            fault = f"{where} {number:,}: column '{self.key}' is empty, and it is to name the row"
        elif self.needs_url and url is None:
            fault = f"{where} {number:,}: column '{self.url}' is empty"
        return ListRow(url, caption, key or None, kept, fault, several)


def _found(value: Any) -> str:
    """What stands in the place of a text."""
    if isinstance(value, str):
        return _TOO_LONG if value.endswith(CUT) else "not in UTF-8"
    if isinstance(value, list):
        return "a list of something else than texts in UTF-8"
    return type(value).__name__


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


def text_rows(
    path: Path, columns: Columns, *, quoted: bool | None = None, header: tuple[str, ...] | None = None
) -> Iterator[ListRow]:
    """The rows of a file that is one of ``TEXT_SUFFIXES``, by the end of its name.

    Args:
        path: the file.
        columns: which columns are what.
        quoted: whether fields can stand in double quotes; by default they can in CSV and cannot in TSV.
        header: the columns' names in CSV and TSV; None if the first line gives them.

    Raises:
        SourceError: as ``csv_rows`` and ``jsonl_rows``.
    """
    kind = next(end for end in TEXT_SUFFIXES if path.name.lower().endswith(end))
    if kind.startswith((".jsonl", ".ndjson")):
        return jsonl_rows(path, columns)
    is_csv = kind.startswith(".csv")
    return csv_rows(
        path,
        columns,
        delimiter="," if is_csv else "\t",
        quoted=is_csv if quoted is None else quoted,
        header=header,
    )


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
        records, where = _csv_records(lines, delimiter, quoted=quoted), readable(str(path))
        if header is None:
            fields, fault = next(records, (None, None))
            if fault or not fields:
                raise SourceError(f"{where}: {fault or 'empty'}; expected a first line with the names of the columns")
            header = tuple(fields)
        _check_header(path, header, columns, _divided_otherwise(header, delimiter))
        for fields, fault in records:
            number = lines.number - len(lines.taken) + 1
            if fields is None:
                yield _faulty_line(lines.taken[0], f"{where}, line {number:,}: {fault}")
            elif len(fields) != len(header):
                found = f"{len(fields)} field{'s' if len(fields) != 1 else ''}, expected {len(header)}"
                found = f"{where}, line {number:,}: {found} ({shortened(', '.join(header))})"
                name = fields[0] if header[0] == columns.key and is_storable(fields[0]) else None
                yield _faulty_line("".join(lines.taken), found, name)
            else:
                yield columns.row(dict(zip(header, fields, strict=True)), f"{where}, line", number)


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


def _check_header(path: Path, header: tuple[str, ...], columns: Columns, hint: str = "") -> None:
    for column in columns.names:
        if header.count(column) != 1:
            found = f"{header.count(column)} columns" if column in header else "no column"
            there = shortened(", ".join(header))
            raise SourceError(readable(f"{path}: {found} '{column}'; there are: {there}{hint}"))


def _divided_otherwise(header: tuple[str, ...], delimiter: str) -> str:
    """What to do about a list whose only column looks like several, divided by something else."""
    other = next((sign for sign in ",;\t|" if sign != delimiter and sign in header[0]), None)
    if len(header) > 1 or other is None:
        return ""
    return f"; its fields are divided by {other!r}, expected {delimiter!r}: save it so"


def jsonl_rows(path: Path, columns: Columns) -> Iterator[ListRow]:
    """The rows of a JSON Lines file, an object a line. Blank lines are none; a key that is not there is null.

    Raises:
        SourceError: one of the columns is in none of the first objects, or the file cannot be read.
    """
    found: dict[str, None] = {}
    objects = 0
    with closing(Lines(path, newline="\n")) as lines:
        for line in lines:
            lines.mark()
            if not line.strip():
                continue
            where = f"{readable(str(path))}, line"
            record, fault = _json_object(line, columns)
            if fault is not None:
                yield _faulty_line(line, f"{where} {lines.number:,}: {fault}")
                continue
            if objects < _HEAD_OBJECTS:
                objects += 1
                found.update(dict.fromkeys(record))
                if objects == _HEAD_OBJECTS:
                    _check_header(path, tuple(found), columns)
            yield columns.row(record, where, lines.number)
    if 0 < objects < _HEAD_OBJECTS:
        _check_header(path, tuple(found), columns)


def _json_object(line: str, columns: Columns) -> tuple[dict[str, Any], str | None]:
    """The object of a line, or what is wrong with the line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, _TOO_LONG if line.endswith(CUT) else f"not JSON ({error})"
    if not isinstance(record, dict):
        return {}, f"expected an object, found {type(record).__name__}"
    for name in columns.names:
        # Python takes the last of equal keys and says nothing.
        if line.count(quoted := json.dumps(name)) > 1:
            names = [key for key, _ in json.loads(line, object_pairs_hook=tuple)]
            if names.count(name) > 1:
                return {}, f"key {quoted} comes {names.count(name)} times"
    return record, None


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
    with pq.ParquetWriter(path, LIST_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
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
    columns = zip(zip(*rows, strict=True), LIST_SCHEMA.types, strict=True)
    return pa.record_batch([pa.array(column, kind) for column, kind in columns], LIST_SCHEMA)


def _faulty(record: dict[str, Any], fault: str, key: str | None = None) -> ListRow:
    """The row of a record that cannot be used; all that it holds is kept."""
    return ListRow(None, None, key or None, as_json(record), readable(fault))


def _faulty_line(line: str, fault: str, key: str | None = None) -> ListRow:
    return _faulty({"line": line.rstrip("\r\n").replace(CUT, "…")}, fault, key)
