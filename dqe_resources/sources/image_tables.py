"""Tables with images or paths of images: the common part of the sources that read them."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from pydantic import Field

from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.index import RowIndex, build_index, digest64
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.local_file import LocalFile
from dqe_resources.sources.metadata_types import types_of_columns
from dqe_resources.sources.parts import (
    Part,
    check_columns,
    is_binary,
    is_text,
    may_be_text,
    may_be_texts,
    parts_digest,
    read_rows,
    records_of,
    rows_of,
    shards_of,
    values_of,
)
from dqe_resources.sources.rows import SourceRow, with_uid
from dqe_resources.sources.text_lists import as_json
from dqe_resources.sources.texts import captions_of, is_storable, readable
from dqe_resources.sources.walk import LocalSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dqe_resources.sources.metadata_types import MetadataType
    from dqe_resources.sources.protocol import Shard

_BYTES = ("utf-8", "surrogateescape")
"""How texts are made bytes again, whatever bytes they were made of."""

_LONGEST_PATH = 4096
"""Characters of a path that name a row: no file has a longer one."""


@dataclass(frozen=True)
class ImageColumns:
    """Which columns of a table are what.

    Attributes:
        image: the image: bytes, a Hugging Face Image (a struct of ``bytes`` and ``path``), or the path of a local file.
        caption: the caption: a text, or a list of texts.
        url: the image's URL, or None.
        key: what names a row for good, or None.
        metadata: what else is kept.
        uid: the uid to keep, or None to make one of the row's name.
    """

    image: str
    caption: str
    url: str | None
    key: str | None
    metadata: tuple[str, ...] = ()
    uid: str | None = None

    @property
    def names(self) -> list[str]:
        """All of them."""
        named = (self.image, self.caption, self.url, self.key, self.uid, *self.metadata)
        return list(dict.fromkeys(column for column in named if column is not None))


class ImageTableSource(LocalSource):
    """What sources that are tables with an image column have in common.

    Attributes:
        uid_column: Column of the uid to keep, 32 hex digits, such as that of a data set that ``dqe publish`` wrote; by
            default a uid is made of the row's name.
        metadata_columns: Further columns to keep, as ``source_metadata``, and as columns of samples.
    """

    # What they leave as it was changes no fingerprint.
    uid_column: Annotated[str | None, Field(exclude=True)] = None
    metadata_columns: Annotated[tuple[str, ...], Field(exclude=True)] = ()

    def signature(self) -> dict[str, Any]:
        """As ``Configurable.signature``."""
        more = {"uid_column": self.uid_column, "metadata_columns": self.metadata_columns}
        return {**super().signature(), **{name: value for name, value in more.items() if value}}

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """What else is kept of a row."""
        return tuple(dict.fromkeys((*self.metadata_columns, *self.rights_columns)))

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The tables.

        Raises:
            SourceError: they cannot be found or read.
        """

    def typed_metadata(self) -> dict[str, MetadataType]:
        """As ``Source.typed_metadata``; types that are not given are those of the first table."""
        untold = [name for name in self.metadata_columns if name not in self.metadata_types]
        found: dict[str, MetadataType] = {}
        for part in self.parts()[:1] if untold else ():
            check_columns(part, dict.fromkeys(untold))
            found = types_of_columns(part.schema, untold)
        return {**found, **self.metadata_types}


@dataclass(frozen=True)
class ImageTables:
    """The rows of a source that is tables with an image column and a caption column, laid end to end.

    A row is named by the key column. Without one, or where that is null, it is named by its table, its image's path
    and a digest of image and caption: neither the size of the shards nor the order of different rows matters. Equal
    keys are numbered, and so are equal rows of a table.

    Attributes:
        source: name of the source.
        parts: the tables.
        columns: which of their columns are what.
        inside: the folder that the paths of images must lead into; None for anywhere.
        left_out: what stands next to the tables and is none.
    """

    source: str
    parts: Sequence[Part]
    columns: ImageColumns
    inside: Path | None
    left_out: LeftOut = field(default_factory=LeftOut)

    def shards(self, shard_size: int, first: int) -> Iterator[Shard]:
        """As ``Source.shards``, from the tables' sizes alone."""
        columns = self.columns
        for part in self.parts:
            check_columns(part, dict.fromkeys(columns.names))
            check_columns(part, {columns.caption: may_be_texts}, "text, or a list of texts")
            check_columns(part, {columns.url: may_be_text} if columns.url else {}, "text")
            check_columns(part, {columns.image: is_image}, "bytes, a path, or a struct of both")
        total = rows_of(self.parts)
        return shards_of(
            total, shard_size, first, lambda begin, end: parts_digest(self.parts, begin, end), self.left_out
        )

    def rows(self, first: int, count: int) -> Iterator[SourceRow]:
        """The rows from ``first`` on."""
        for part, start, batch in read_rows(self.parts, lambda _: self.columns.names, first, count):
            records = list(records_of(batch, [self.columns.image]))
            keys = [_key(record[self.columns.key]) if self.columns.key else None for record in records]
            of_key = self._key_numbers(part, start, len(keys)) if any(key is not None for key in keys) else []
            of_content = self._numbers(part, start, len(keys)) if None in keys else []
            for place, (record, key) in enumerate(zip(records, keys, strict=True)):
                number = (of_content if key is None else of_key)[place]
                yield self._row(part, start + place + 1, record, key, number)

    def _row(self, part: Part, row: int, record: dict[str, Any], key: str | None, number: int) -> SourceRow:
        image, said = record[self.columns.image], record[self.columns.caption]
        url = record[self.columns.url] if self.columns.url else None
        path = image.get("path") if isinstance(image, dict) else image if isinstance(image, str) else None
        data = image.get("bytes") if isinstance(image, dict) else image if isinstance(image, bytes) else None
        if key is None:
            content = hashlib.blake2b(data or (path or "").encode(*_BYTES), digest_size=8)
            content.update(b"\0" + _joined(said).encode(*_BYTES))
            # What is longer is no path, but perhaps an image in letters.
            name = ":".join(filter(None, (part.name, path and path[:_LONGEST_PATH], content.hexdigest())))
            name += f"#{number}" if number > 1 else ""
        else:
            name = key if number == 1 else f"{key}:{digest64(key):016x}#{number}"
        captions = captions_of(said)
        if captions is None or not (is_storable(url) and is_storable(name)):
            fault = f"{part.location}, row {row:,}: a text in it is not UTF-8"
            return SourceRow(readable(name), None, None, fault=fault)
        local = LocalFile(part.folder / path, self.inside) if data is None and path and part.folder else None
        kept = {name: record[name] for name in self.columns.metadata}
        metadata = as_json(kept) if kept else None
        found = SourceRow(name, captions[0], data or local, url, metadata=metadata, captions=captions[1])
        if self.columns.uid is None:
            return found
        return with_uid(found, record[self.columns.uid], f"{part.location}, row {row:,}: '{self.columns.uid}'")

    def _numbers(self, part: Part, first: int, count: int) -> list[int]:
        """The number of each row among those with its caption: equal rows have equal captions (or none)."""
        index = self._index("captions", [part], self.columns.caption, _joined)
        return index.columns(first, first + count, ("number",))[0].tolist()

    def _key_numbers(self, part: Part, first: int, count: int) -> list[int]:
        """The number of each row among those with its key: of all tables, but of a repository's only in its own."""
        parts = [part] if part.folder is None else self.parts
        first += sum(one.rows for one in parts[: parts.index(part)])
        index = self._index("keys", parts, self.columns.key or "", _key)
        return index.columns(first, first + count, ("number",))[0].tolist()

    def _index(self, what: str, parts: Sequence[Part], column: str, text: Callable[[Any], str | None]) -> RowIndex:
        """An index of the texts in a column."""

        def digests() -> Iterator[tuple[int, int]]:
            for part in parts:
                for batch in part.read([column], 0, part.rows):
                    yield from ((digest64(text(value)), 0) for value in values_of(batch.column(0)))

        name = f"{self.source}-{what}" + (f"-{fingerprint(parts[0].name)}" if len(parts) == 1 else "")
        return build_index(name, [[(part.location, part.state) for part in parts], column], digests)


def _key(value: Any) -> str | None:
    """What a key column says; a number that is none names nothing."""
    return None if value is None or value != value else str(value)  # noqa: PLR0124


def _joined(said: Any) -> str:
    """A caption, or all of several."""
    if not isinstance(said, list):
        return said or ""
    return "\0".join(str(one.get("text") if isinstance(one, dict) else one) for one in said)


def is_image(kind: pa.DataType) -> bool:
    """Whether a column can hold images: bytes, a path, or a struct of both, or of one of them."""
    if pa.types.is_struct(kind):
        checks = {"bytes": is_binary, "path": is_text}
        types = {child.name: child.type for child in kind if child.name in checks}
        return bool(types) and all(checks[name](of_it) for name, of_it in types.items())
    return may_be_text(kind)
