"""A folder of images with their captions next to them."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import model_validator

from dqe_resources.configurable import ExistingPath
from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.index import digest64
from dqe_resources.sources.left_out import LeftOut, by_suffix
from dqe_resources.sources.listing import Listing, converted_list
from dqe_resources.sources.local_file import FileError, LocalFile
from dqe_resources.sources.parts import ParquetPart, check_columns, may_be_text, may_be_texts, records_of
from dqe_resources.sources.protocol import NoRowsError, Shard, SourceError
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.sidecars import CAPTION_FILES, read_captions, sort_names
from dqe_resources.sources.text_lists import Columns, ListRow, text_rows
from dqe_resources.sources.texts import original_name, readable, readable_name
from dqe_resources.sources.walk import LocalSource, require_there, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "metadata.tsv")

_FILE_NAME = "file_name"
_UNNAMED = "images that no metadata file names"
_ORPHANS = "captions without an image, or of one that has another"
_FURTHER = "further metadata files of a folder"


class FolderSource(LocalSource):
    """Images with caption files next to them, or with metadata files.

    The caption file of ``a.jpg`` is ``a.txt``, ``a.jpg.txt``, ``a.caption`` or ``a.jpg.caption``, in letters of any
    case. Its lines are captions, the first of them the row's.

    A metadata file is as Hugging Face's imagefolder has it: ``metadata.csv``, ``.jsonl`` or ``.parquet`` (or ``.tsv``)
    in any folder, with a column ``file_name`` of the image's path from there, and a column for the caption. In a folder
    with a metadata file, and below it, the rows of metadata files are the source's rows; elsewhere the images are.

    Attributes:
        path: The folder.
        caption_column: Column of the metadata files that holds the caption; of a list of texts the first is the
            caption.
        url_column: Column of the metadata files that holds the image's URL, if there is one.
    """

    kind: ClassVar[str] = "folder"
    path: ExistingPath
    caption_column: str = "text"
    url_column: str | None = None

    @model_validator(mode="after")
    def _is_folder(self) -> Self:
        if self.path.is_file():
            msg = f"path {self.path} is a file; the kind folder needs a folder (for a Parquet file: kind parquet)"
            raise ValueError(msg)
        return self

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``. The digest covers names, captions, sizes and times of the files."""
        return _Contents(self).shards(first)

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        entries = _Contents(self).entries(index * self.shard_size)
        return (entry.read() for entry in islice(entries, self.shard_size))

    @property
    def caption_places(self) -> str:
        """The names of caption files, and metadata files."""
        return f"{CAPTION_FILES}, and {', '.join(METADATA_FILES)} in its folder and those above"

    def metadata_files(self) -> list[str]:
        """The metadata files, by their paths from the folder."""
        found = (
            next((folder.name + name for name in METADATA_FILES if name in folder.files), None)
            for folder in walk(self.path, LeftOut(), allow_outside=self.allow_outside)
        )
        return [name for name in found if name is not None]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row, and its caption file, which has not been read."""

    row: SourceRow
    captions: LocalFile | None = None

    @property
    def is_uncaptioned(self) -> bool:
        return self.captions is None and self.row.caption is None and self.row.fault is None

    @property
    def state(self) -> list[object]:
        row, image = self.row, self.row.image
        files = [image if isinstance(image, LocalFile) else None, self.captions]
        stats = [None if file is None else (readable(file.path.name), _stat(file.path)) for file in files]
        said = [row.metadata] if row.metadata is not None else []
        return [row.key, row.caption, row.captions, row.url, row.fault, *said, *stats]

    def read(self) -> SourceRow:
        if self.captions is None:
            return self.row
        try:
            said = read_captions(self.captions)
        except FileError as error:
            return replace(self.row, image=None, fault=error.detail)
        return replace(self.row, caption=said[0] if said else "", captions=said if len(said) > 1 else None)


class _Contents:
    """What is in the folder of a source, at one moment."""

    def __init__(self, source: FolderSource) -> None:
        require_there(source.path)
        self._source, self._folder, self._inside = source, source.path, source.inside(source.path)
        self._metadata = source.metadata_files()
        self._left_out = LeftOut()

    def shards(self, first: int) -> Iterator[Shard]:
        """The shards; what is left out is counted with the one whose rows were found last."""
        size = self._source.shard_size
        entries = self.entries(first * size)
        index, last = first, None
        while chunk := list(islice(entries, size)):
            if last is not None:
                yield last
            digest = fingerprint([entry.state for entry in chunk])
            uncaptioned = sum(entry.is_uncaptioned for entry in chunk)
            last = Shard(index, len(chunk), digest, self._left_out.taken(), uncaptioned)
            index += 1
        if last is None and first == 0:
            also = f"; left out: {self._left_out}" if self._left_out else ""
            raise NoRowsError(
                f"{readable(str(self._folder))}: no image in this folder or below it (a name that ends in .jpg, .png, "
                f".webp ...), and no row in a {', '.join(METADATA_FILES)}{also}"
            )
        if last is not None:
            last.left_out.update(self._left_out)
            yield last

    def entries(self, start: int) -> Iterator[_Entry]:
        """The rows from one on: first those of metadata files."""
        listed = self._listing.index.rows if self._metadata else 0
        if start < listed:
            yield from self._listed(start, listed - start)
        images = self._images()
        for _ in islice(images, max(start - listed, 0)):
            pass
        if start > listed:
            self._left_out.taken()
        for name, captions in images:
            row = SourceRow(readable_name(name), None, self._file(name))
            yield _Entry(row, None if captions is None else self._file(captions))

    def _file(self, name: str) -> LocalFile:
        return LocalFile(self._folder / name, self._inside)

    def _listed(self, first: int, count: int) -> Iterator[_Entry]:
        for key, row in self._listing.named_rows(first, count):
            is_readable = row.fault is None and row.key is not None
            image = self._file(original_name(row.key)) if is_readable and row.key else None
            yield _Entry(
                SourceRow(
                    key, row.caption, image, row.url, fault=row.fault, metadata=row.metadata, captions=row.captions
                )
            )

    def _images(self) -> Iterator[tuple[str, str | None]]:
        """The images that no metadata file speaks for, each with its caption file; counts what is left out."""
        governed: set[str] = set()
        for folder in walk(self._folder, self._left_out, allow_outside=self._source.allow_outside):
            here = [folder.name + name for name in METADATA_FILES if name in folder.files]
            parent = folder.name[: folder.name.rstrip("/").rfind("/") + 1]
            found = sort_names(folder.files)
            if here or (folder.name and parent in governed):
                governed.add(folder.name)
                self._count(_UNNAMED, self._unnamed([folder.name + name for name, _ in found.images]))
                images: list[tuple[str, str | None]] = []
                others = [*found.others, *found.orphans, *(text for _, text in found.images if text is not None)]
            else:
                images, others = found.images, found.others
                self._count(_ORPHANS, [folder.name + name for name in found.orphans])
            self._count(_FURTHER, here[1:])
            for name in others:
                if folder.name + name not in here:
                    self._left_out.add(by_suffix(name), folder.name + name)
            yield from ((folder.name + name, None if text is None else folder.name + text) for name, text in images)

    def _count(self, reason: str, names: list[str]) -> None:
        if names:
            self._left_out.add(reason, names[0], len(names))

    def _unnamed(self, names: list[str]) -> list[str]:
        digests = np.array([digest64(readable_name(name)) for name in names], np.uint64)
        return [names[place] for place in np.flatnonzero(~np.isin(digests, self._named))]

    @cached_property
    def _named(self) -> np.ndarray:
        index = self._listing.index
        return np.unique(index.columns(0, index.rows, ("identity",))[0]) if index.rows else np.zeros(0, np.uint64)

    @cached_property
    def _listing(self) -> Listing:
        """The rows of all metadata files."""
        source = self._source
        columns = Columns(source.url_column, source.caption_column, _FILE_NAME, source.rights_columns, needs_url=False)
        try:
            files = tuple((readable(name), *self._file(name).state()) for name in self._metadata)
        except FileError as error:
            raise SourceError(error.detail) from error
        state = (readable(str(self._folder)), str(columns), files)
        part = converted_list(source.name, "metadata files", state, lambda: self._metadata_rows(columns))
        return Listing(source.name, [part], columns)

    def _metadata_rows(self, columns: Columns) -> Iterator[ListRow]:
        for name in self._metadata:
            path, folder = self._folder / name, posixpath.dirname(name)
            rows = _parquet_rows(path, columns) if path.suffix == ".parquet" else text_rows(path, columns)
            for row in rows:
                key = posixpath.normpath(posixpath.join(folder, row.key)) if row.key else None
                yield row._replace(key=key and readable_name(key))


def _parquet_rows(path: Path, columns: Columns) -> Iterator[ListRow]:
    part = ParquetPart.of(path, path.name)
    check_columns(part, dict.fromkeys(columns.names))
    check_columns(part, dict.fromkeys([_FILE_NAME, *([columns.url] if columns.url else [])], may_be_text), "text")
    check_columns(part, {columns.caption: may_be_texts}, "text, or a list of texts")
    records = (record for batch in part.read(columns.names, 0, part.rows) for record in records_of(batch))
    for number, record in enumerate(records, 1):
        yield columns.row(record, f"{part.location}, row", number)


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns
