"""Tables with images or paths of images: the common part of the sources that read them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.index import build_index, digest64
from dqe_resources.sources.parts import (
    Part,
    check_columns,
    is_text,
    parts_digest,
    read_rows,
    records_of,
    shards_of,
    values_of,
)
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.text_lists import is_storable, readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dqe_resources.sources.protocol import Shard

_BYTES = ("utf-8", "surrogateescape")
"""How texts are made bytes again, whatever bytes they were made of."""


@dataclass(frozen=True)
class ImageTables:
    """The rows of a source that is tables with an image column and a caption column, laid end to end.

    A row is named by the key column, or else by its table, its image's path and a digest of image and caption: neither
    the size of the shards nor the order of different rows matters, and equal rows of a table are numbered.

    Attributes:
        source: name of the source.
        parts: the tables.
        image: column of the image: bytes, a Hugging Face Image (a struct of ``bytes`` and ``path``), or the path of a
            local file.
        caption: column of the caption.
        url: column of the image's URL, or None.
        key: column that names a row for good, or None.
    """

    source: str
    parts: Sequence[Part]
    image: str
    caption: str
    url: str | None
    key: str | None

    def shards(self, shard_size: int, first: int) -> Iterator[Shard]:
        """As ``Source.shards``, from the tables' sizes alone."""
        for part in self.parts:
            check_columns(part, dict.fromkeys(self._columns))
            check_columns(part, dict.fromkeys([self.caption, *([self.url] if self.url else [])], is_text), "text")
            check_columns(part, {self.image: is_image}, "bytes, a path, or a struct of both")
        total = sum(part.rows for part in self.parts)
        return shards_of(total, shard_size, first, lambda begin, end: parts_digest(self.parts, begin, end))

    def rows(self, first: int, count: int) -> Iterator[SourceRow]:
        """The rows from ``first`` on."""
        for part, start, batch in read_rows(self.parts, lambda _: self._columns, first, count):
            numbers = [1] * batch.num_rows if self.key else self._numbers(part, start, batch.num_rows)
            for row, (record, number) in enumerate(zip(records_of(batch), numbers, strict=True), start + 1):
                yield self._row(part, row, record, number)

    @property
    def _columns(self) -> list[str]:
        return [column for column in (self.image, self.caption, self.url, self.key) if column is not None]

    def _row(self, part: Part, row: int, record: dict[str, Any], number: int) -> SourceRow:
        image, caption, url = record[self.image], record[self.caption], record[self.url] if self.url else None
        path = image.get("path") if isinstance(image, dict) else image if isinstance(image, str) else None
        data = image.get("bytes") if isinstance(image, dict) else image if isinstance(image, bytes) else None
        if self.key is not None:
            key = str(record[self.key])
        else:
            content = hashlib.blake2b(data or (path or "").encode(*_BYTES), digest_size=8)
            content.update(b"\0" + (caption or "").encode(*_BYTES))
            key = ":".join(filter(None, (part.name, path, content.hexdigest())))
            key += f"#{number}" if number > 1 else ""
        if not (is_storable(caption) and is_storable(url) and is_storable(key)):
            fault = f"{part.location}, row {row:,}: a text in it is not UTF-8"
            return SourceRow(readable(key), None, None, fault=fault)
        local = part.folder / path if data is None and path and part.folder is not None else None
        return SourceRow(key, caption, data or local, url)

    def _numbers(self, part: Part, first: int, count: int) -> list[int]:
        """The number of each row among those with its caption: equal rows have equal captions (or none)."""

        def digests() -> Iterator[tuple[int, int]]:
            for batch in part.read([self.caption], 0, part.rows):
                yield from ((digest64(caption or ""), 0) for caption in values_of(batch.column(0)))

        state = [part.location, part.state, self.caption]
        index = build_index(f"{self.source}-captions-{fingerprint(part.name)}", state, digests)
        return index.columns(first, first + count, ("number",))[0].tolist()


def is_image(kind: pa.DataType) -> bool:
    """Whether a column can hold images: bytes, a path, or a struct of both."""
    if pa.types.is_struct(kind):
        return {"bytes", "path"} <= {child.name for child in kind}
    return is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
