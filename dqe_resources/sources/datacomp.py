"""The metadata of DataComp (Gadre et al. 2023), as its download script leaves it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from dqe_resources.sources.index import digest64
from dqe_resources.sources.parts import (
    ParquetPart,
    check_columns,
    may_be_text,
    may_be_texts,
    parts_digest,
    read_rows,
    records_of,
    rows_of,
    shards_of,
)
from dqe_resources.sources.rows import SourceRow, with_uid
from dqe_resources.sources.text_lists import Columns
from dqe_resources.sources.walk import FilesPath, LocalSource, find_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.sources.left_out import LeftOut
    from dqe_resources.sources.protocol import Shard

_REQUIRED = {"uid", "url", "text"}


class DatacompSource(LocalSource):
    """Parquet files with ``uid``, ``url`` and ``text``, whose uids are kept.

    All other columns (original sizes, CLIP scores, faces ...) are kept too, as ``source_metadata``.

    Attributes:
        path: A Parquet file, a folder of them, or a pattern such as metadata/*.parquet.
    """

    kind: ClassVar[str] = "datacomp"
    path: FilesPath

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``, from the files' footers alone."""
        parts, left_out = self._parts()
        for part in parts:
            check_columns(part, dict.fromkeys(["uid", "url"], may_be_text), "text")
            check_columns(part, {"text": may_be_texts}, "text, or a list of texts")
            check_columns(part, dict.fromkeys(part.schema.names))
        return shards_of(
            rows_of(parts), self.shard_size, first, lambda begin, end: parts_digest(parts, begin, end), left_out
        )

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``, reading only the row groups that hold them."""
        start = index * self.shard_size
        for part, first, batch in read_rows(self._parts()[0], lambda part: part.schema.names, start, self.shard_size):
            columns = Columns(
                "url", "text", metadata=tuple(name for name in batch.schema.names if name not in _REQUIRED)
            )
            for number, record in enumerate(records_of(batch), first + 1):
                found = columns.row(record, f"{part.location}, row", number)
                row = SourceRow(
                    f"row:{digest64(found.url, found.caption, found.metadata):016x}",
                    found.caption,
                    None,
                    found.url,
                    fault=found.fault,
                    metadata=found.metadata,
                    captions=found.captions,
                )
                row = with_uid(row, record["uid"], f"{part.location}, row {number:,}: 'uid'")
                yield replace(row, key=row.uid or row.key)

    @property
    def fetches(self) -> bool:
        """All images are."""
        return True

    @property
    def caption_places(self) -> str:
        """The column of captions."""
        return "the column text"

    def _parts(self) -> tuple[list[ParquetPart], LeftOut]:
        found = find_files(self.path, [".parquet"], allow_outside=self.allow_outside)
        return [ParquetPart.of(path, name) for path, name in found.files], found.left_out
