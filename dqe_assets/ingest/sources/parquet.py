"""Parquet files with images, or with paths of images."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_assets.ingest.rows import SourceRow
from dqe_assets.ingest.sources.protocol import ExistingPath, Shard, Source, SourceError
from dqe_resources.storage import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BATCH_ROWS = 256


class ParquetSource(Source):
    """A Parquet file, or a folder of them, with an image column and a caption column of any name.

    The image column holds the file's bytes, a Hugging Face Image (a struct of ``bytes`` and ``path``), or the path of
    a local file (a relative one counts from the Parquet file's folder). ``key_column`` names a row for good; without
    it, a row is named by its file, its image's path and a digest of image and caption: neither the size of the shards
    nor the order of different rows matters, and equal rows of a file are numbered.
    """

    kind: ClassVar[str] = "parquet"
    path: ExistingPath
    image_column: str = "image"
    caption_column: str = "caption"
    url_column: str | None = None
    key_column: str | None = None

    def shards(self) -> Iterator[Shard]:
        """As ``Source.shards``, from the files' footers alone."""
        files = self._files()
        total = sum(rows for _, rows in files)
        content = [(str(path), rows, path.stat().st_size, path.stat().st_mtime_ns) for path, rows in files]
        for index, start in enumerate(range(0, total, self.shard_size)):
            yield Shard(index, min(self.shard_size, total - start), fingerprint(content, start))

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``, reading only the row groups that hold them."""
        start = index * self.shard_size
        stop = start + self.shard_size
        for path, first, count in self._ranges(start, stop):
            # Equal rows have equal captions, so the captions before this shard say how many of them there were.
            seen = Counter() if self.key_column else _captions_before(path, self.caption_column, first)
            for number, record in _records(path, self._columns(), first, count):
                yield self._row(path, number, record, seen)

    def _row(self, path: Path, number: int, record: dict[str, Any], seen: Counter[str | None]) -> SourceRow:
        image = record[self.image_column]
        image_path = image.get("path") if isinstance(image, dict) else image if isinstance(image, str) else None
        data = image.get("bytes") if isinstance(image, dict) else image if isinstance(image, bytes) else None
        caption = record[self.caption_column]
        if caption is not None and not isinstance(caption, str):
            msg = f"{path}, row {number}: column '{self.caption_column}' holds {type(caption).__name__}, expected text"
            raise SourceError(msg)
        seen[caption] += 1
        if self.key_column is not None:
            key = str(record[self.key_column])
        else:
            content = hashlib.blake2b(data or (image_path or "").encode(), digest_size=8)
            content.update(b"\0" + (caption or "").encode())
            file = path.relative_to(self.path).as_posix() if self.path.is_dir() else path.name
            key = ":".join(filter(None, (file, image_path, content.hexdigest())))
            key += f"#{seen[caption]}" if seen[caption] > 1 else ""
        local = path.parent / image_path if data is None and image_path else None
        return SourceRow(key, caption, data or local, record[self.url_column] if self.url_column else None)

    def _columns(self) -> list[str]:
        columns = [self.image_column, self.caption_column, self.url_column, self.key_column]
        return [column for column in columns if column is not None]

    def _files(self) -> list[tuple[Path, int]]:
        paths = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
        if not paths:
            msg = f"{self.path}: no .parquet file in this folder"
            raise SourceError(msg)
        return [(path, self._checked_rows(path)) for path in paths]

    def _checked_rows(self, path: Path) -> int:
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            msg = f"{path}: not a Parquet file ({' '.join(str(error).split())})"
            raise SourceError(msg) from error
        with file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        for column in self._columns():
            if column not in schema.names:
                msg = f"{path}: no column '{column}'; there are: {', '.join(schema.names)}"
                raise SourceError(msg)
        image = schema.field(self.image_column).type
        is_image = pa.types.is_struct(image) and {"bytes", "path"} <= {child.name for child in image}
        if not (is_image or any(check(image) for check in _PLAIN_TYPES)):
            msg = f"{path}: column '{self.image_column}' is {image}; expected bytes, a path, or a struct of both"
            raise SourceError(msg)
        return rows

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[Path, int, int]]:
        """File, first row in it and number of rows, of the rows from start to stop of the whole source."""
        offset = 0
        for path, rows in self._files():
            first, last = max(start - offset, 0), min(stop - offset, rows)
            if first < last:
                yield path, first, last - first
            offset += rows


def _captions_before(path: Path, column: str, stop: int) -> Counter[str | None]:
    """How often each caption stands in the rows before ``stop``."""
    seen: Counter[str | None] = Counter()
    if stop:
        for _, record in _records(path, [column], 0, stop):
            seen[record[column]] += 1
    return seen


_PLAIN_TYPES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)


def _records(path: Path, columns: list[str], first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    with pq.ParquetFile(path) as file:
        group_starts, position = [], 0
        for group in range(file.num_row_groups):
            group_starts.append(position)
            position += file.metadata.row_group(group).num_rows
        ends = [*group_starts[1:], position]
        groups = [
            group
            for group, (begin, end) in enumerate(zip(group_starts, ends, strict=True))
            if begin < first + count and end > first
        ]
        number = group_starts[groups[0]]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=columns):
            for record in batch.to_pylist():
                if first <= number < first + count:
                    yield number, record
                number += 1
