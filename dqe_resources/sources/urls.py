"""Lists of URLs with captions, in files of any common kind."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from dqe_resources.sources.listing import ConvertedList, Listing, converted_list
from dqe_resources.sources.metadata_types import types_of_columns, types_of_rows
from dqe_resources.sources.parts import ParquetPart, Part, check_columns, file_state, may_be_text, may_be_texts
from dqe_resources.sources.protocol import Shard, SourceError
from dqe_resources.sources.text_lists import TEXT_SUFFIXES, Columns, text_rows
from dqe_resources.sources.texts import readable
from dqe_resources.sources.walk import FilesPath, LocalSource, find_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_resources.sources.metadata_types import MetadataType
    from dqe_resources.sources.rows import SourceRow

SUFFIXES = (".parquet", *TEXT_SUFFIXES)


class UrlsSource(LocalSource):
    """CSV, TSV, JSON Lines or Parquet files with a URL and a caption in columns of any name.

    Text files are in UTF-8 and may be compressed (gzip, zstd, bzip2). They are read once, from beginning to end, into a
    Parquet file in data/cache; after that each shard is read by itself. Shards that are done stay as they are if rows
    are added to a file, or if it is written again with the same rows. A line that cannot be read is a row with that
    reason.

    Attributes:
        path: A file, a folder, or a pattern such as lists/*.csv.gz.
        url_column: Column of the image's URL.
        caption_column: Column of the caption; of a list of texts the first is the caption.
        key_column: Column that names a row for good; by default a row is named by its URL and caption.
        metadata_columns: Further columns to keep, as ``source_metadata``, and as columns of samples.
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

    @property
    def caption_places(self) -> str:
        """The column of captions."""
        return f"the column {self.caption_column} (caption_column)"

    def typed_metadata(self) -> dict[str, MetadataType]:
        """As ``Source.typed_metadata``; types that are not given are told by the first file."""
        untold = [name for name in self.metadata_columns if name not in self.metadata_types]
        files = find_files(self.path, SUFFIXES, allow_outside=self.allow_outside).files if untold else []
        found: dict[str, MetadataType] = {}
        if files and files[0][0].name.lower().endswith(".parquet"):
            part = ParquetPart.of(*files[0])
            check_columns(part, dict.fromkeys(untold))
            found = types_of_columns(part.schema, untold)
        elif files:
            rows = text_rows(files[0][0], self._columns, quoted=self.quoted, header=self.column_names)
            found = types_of_rows((row.metadata for row in rows if not row.fault), untold)
        return {**found, **self.metadata_types}

    @property
    def _columns(self) -> Columns:
        said = (*self.metadata_columns, *self.rights_columns)
        return Columns(self.url_column, self.caption_column, self.key_column, tuple(dict.fromkeys(said)))

    def _listing(self) -> Listing:
        columns = self._columns
        parts: list[Part] = []
        found = find_files(self.path, SUFFIXES, allow_outside=self.allow_outside)
        for path, name in found.files:
            if not path.name.lower().endswith(SUFFIXES):
                where = readable(str(path))
                raise SourceError(f"{where}: unknown kind of list; expected a name that ends in {', '.join(SUFFIXES)}")
            if path.name.lower().endswith(".parquet"):
                part = ParquetPart.of(path, name)
                check_columns(part, dict.fromkeys(columns.names))
                check_columns(part, {self.url_column: may_be_text}, "text")
                check_columns(part, {self.caption_column: may_be_texts}, "text, or a list of texts")
                parts.append(part)
            else:
                parts.append(self._converted(path, name, columns))
        return Listing(self.name, parts, columns, found.left_out)

    def _converted(self, path: Path, name: str, columns: Columns) -> ConvertedList:
        state = (str(path), *file_state(path), str(columns), self.column_names, self.quoted)
        read = partial(text_rows, path, columns, quoted=self.quoted, header=self.column_names)
        return converted_list(self.name, name, state, read)
