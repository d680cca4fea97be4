"""Lists of URLs with captions, in files of any common kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dqe_resources.sources.listing import ConvertedList, Listing, converted_list
from dqe_resources.sources.parts import FilesPath, ParquetPart, Part, check_columns, file_state, find_files, is_text
from dqe_resources.sources.protocol import Shard, Source, SourceError
from dqe_resources.sources.text_lists import COMPRESSIONS, Columns, ListRow, csv_rows, jsonl_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_resources.sources.rows import SourceRow

TEXT_SUFFIXES = tuple(f"{kind}{end}" for kind in (".csv", ".tsv", ".jsonl", ".ndjson") for end in ("", *COMPRESSIONS))
SUFFIXES = (".parquet", *TEXT_SUFFIXES)


class UrlsSource(Source):
    """CSV, TSV, JSON Lines or Parquet files with a URL and a caption in columns of any name.

    Text files are in UTF-8 and may be compressed (gzip, zstd, bzip2). They are read once, from beginning to end, into a
    Parquet file in data/cache; after that each shard is read by itself. Shards that are done stay as they are if rows
    are added to a file, or if it is written again with the same rows. A line that cannot be read is a row with that
    reason.

    Attributes:
        path: A file, a folder, or a pattern such as lists/*.csv.gz.
        url_column: Column of the image's URL.
        caption_column: Column of the caption.
        key_column: Column that names a row for good; by default a row is named by its URL and caption.
        metadata_columns: Further columns to keep, as ``source_metadata``.
        column_names: Names of the columns, for CSV and TSV files whose first line is already a row (Conceptual
            Captions).
        quoted: Whether fields can stand in double quotes. By default they can in CSV and cannot in TSV.
    """

    kind: ClassVar[str] = "urls"
    path: FilesPath
    url_column: str = "url"
    caption_column: str = "caption"
    key_column: str | None = None
    metadata_columns: tuple[str, ...] = ()
    column_names: tuple[str, ...] | None = None
    quoted: bool | None = None

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``."""
        return self._listing().shards(self.shard_size, first)

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        return self._listing().rows(index * self.shard_size, self.shard_size)

    def _listing(self) -> Listing:
        columns = Columns(self.url_column, self.caption_column, self.key_column, self.metadata_columns)
        parts: list[Part] = []
        for path, name in find_files(self.path, SUFFIXES):
            if not path.name.lower().endswith(SUFFIXES):
                raise SourceError(f"{path}: unknown kind of list; expected a name that ends in {', '.join(SUFFIXES)}")
            if path.name.lower().endswith(".parquet"):
                part = ParquetPart.of(path, name)
                check_columns(part, dict.fromkeys(columns.names))
                check_columns(part, dict.fromkeys((self.url_column, self.caption_column), is_text), "text")
                parts.append(part)
            else:
                parts.append(self._converted(path, name, columns))
        return Listing(self.name, parts, columns)

    def _converted(self, path: Path, name: str, columns: Columns) -> ConvertedList:
        state = (str(path), *file_state(path), str(columns), self.column_names, self.quoted)
        return converted_list(self.name, name, state, lambda: self._text_rows(path, columns))

    def _text_rows(self, path: Path, columns: Columns) -> Iterator[ListRow]:
        kind = next(end for end in TEXT_SUFFIXES if path.name.lower().endswith(end))
        if kind.startswith((".jsonl", ".ndjson")):
            return jsonl_rows(path, columns)
        is_csv = kind.startswith(".csv")
        quoted = is_csv if self.quoted is None else self.quoted
        return csv_rows(path, columns, delimiter="," if is_csv else "\t", quoted=quoted, header=self.column_names)
