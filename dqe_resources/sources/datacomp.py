"""The metadata of DataComp (Gadre et al. 2023), as its download script leaves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from dqe_resources.sources.parts import (
    FilesPath,
    ParquetPart,
    check_columns,
    find_files,
    is_text,
    parts_digest,
    read_rows,
    records_of,
    shards_of,
)
from dqe_resources.sources.protocol import Shard, Source, SourceError
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.text_lists import Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUIRED = {"uid", "url", "text"}


class DatacompSource(Source):
    """Parquet files with ``uid``, ``url`` and ``text``, whose uids are kept.

    All other columns (original sizes, CLIP scores, faces ...) are kept too, as ``source_metadata``.

    Attributes:
        path: A Parquet file, a folder of them, or a pattern such as metadata/*.parquet.
    """

    kind: ClassVar[str] = "datacomp"
    path: FilesPath

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``, from the files' footers alone."""
        parts = self._parts()
        for part in parts:
            check_columns(part, dict.fromkeys(sorted(_REQUIRED), is_text), "text")
        total = sum(part.rows for part in parts)
        return shards_of(total, self.shard_size, first, lambda begin, end: parts_digest(parts, begin, end))

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``, reading only the row groups that hold them."""
        start = index * self.shard_size
        for part, first, batch in read_rows(self._parts(), lambda part: part.schema.names, start, self.shard_size):
            columns = Columns(
                "url", "text", metadata=tuple(name for name in batch.schema.names if name not in _REQUIRED)
            )
            for number, record in enumerate(records_of(batch), first + 1):
                uid = checked_uid(record["uid"], f"{part.location}, row {number:,}", "uid")
                row = columns.row(record, f"{part.location}, row", number)
                yield SourceRow(uid, row.caption, None, row.url, uid=uid, fault=row.fault, metadata=row.metadata)

    def _parts(self) -> list[ParquetPart]:
        return [ParquetPart.of(path, name) for path, name in find_files(self.path, [".parquet"])]


def checked_uid(uid: object, where: str, field: str) -> str:
    """A uid that a source brings along, in lower case.

    Raises:
        SourceError: it is not 32 hex digits.
    """
    lower = str(uid).lower()
    if not re.fullmatch("[0-9a-f]{32}", lower):
        raise SourceError(f"{where}: '{field}' is {uid!r}, expected 32 hex digits")
    return lower
