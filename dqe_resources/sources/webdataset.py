"""Tar files in the WebDataset form: a sample is the files that share a name up to a dot."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from dqe_resources.fingerprint import fingerprint
from dqe_resources.sources.index import cached
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.parts import ParquetPart, file_state, parts_digest, read_rows, shards_of
from dqe_resources.sources.protocol import NoRowsError, Shard
from dqe_resources.sources.rows import SourceRow, with_uid
from dqe_resources.sources.tars import TAR_INDEX, TAR_SUFFIXES, KeyDot, index_tar, left_out_of, opened_tar
from dqe_resources.sources.text_lists import as_json
from dqe_resources.sources.texts import captions_of, is_storable, readable
from dqe_resources.sources.walk import Files, FilesPath, LocalSource, find_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FORM = f"2 {TAR_INDEX.to_string()}"
"""Goes into the names of cached indexes: those of another form are made again."""

_MOST_BYTES = {"image": 1 << 28, "json": 1 << 24, "txt": 1 << 20}
"""Of a member that is read."""


class WebdatasetSource(LocalSource):
    """Tar files with images (.jpg, .png, .webp ...) and captions next to them (.txt, or a field of .json).

    The tars may be compressed (gzip, zstd, bzip2, xz, lz4): such a one is unpacked each time it is read. The tars'
    headers are read once; where each file stands is kept in data/cache, and from then on a shard reads only its own
    files. A row is named by its tar and its key; its .json is kept as ``source_metadata``.

    Attributes:
        path: A tar, a folder of tars, or a pattern such as shards/*.tar.
        caption_field: Field of the .json that holds the caption; by default the .txt is the caption. Of a list of
            texts the first is the caption.
        url_field: Field of the .json that holds the image's URL, if there is one.
        uid_field: Field of the .json that holds the uid to keep, 32 hex digits (DataComp).
        key_dot: Which dot of a file's name ends the name of its sample: the first, as in WebDataset, or the last, for
            names such as 22.05.png.
    """

    kind: ClassVar[str] = "webdataset"
    path: FilesPath
    caption_field: str | None = None
    url_field: str = "url"
    uid_field: str | None = None
    key_dot: KeyDot = "first"

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``, from the tars' headers. What a tar leaves out is counted where its samples begin."""
        tars = self._tars()
        parts = [self._indexed(path, name) for path, name in tars.files]
        total = sum(part.rows for part in parts)
        left_out = {0: tars.left_out}
        offset = 0
        for part in parts:
            index = min(offset // self.shard_size, max(total - 1, 0) // self.shard_size)
            left_out.setdefault(index, LeftOut()).update(left_out_of(part.location))
            offset += part.rows
        if not total:
            also = f"; left out: {left_out[0]}" if left_out[0] else ""
            where = readable(str(self.path))
            raise NoRowsError(f"{where}: no image, .txt or .json in {len(parts):,} tar{'s'[: len(parts) - 1]}{also}")
        for shard in shards_of(total, self.shard_size, first, lambda begin, end: parts_digest(parts, begin, end)):
            yield replace(shard, left_out=left_out.get(shard.index, shard.left_out))

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``, reading no other sample."""
        tars = {name: path for path, name in self._tars().files}
        parts = [self._indexed(path, name) for name, path in tars.items()]
        start = index * self.shard_size
        with ExitStack() as stack:
            opened, file = "", None
            for part, _, batch in read_rows(parts, lambda _: TAR_INDEX.names, start, self.shard_size):
                if file is None or opened != part.name:
                    stack.close()
                    opened, file = part.name, stack.enter_context(opened_tar(tars[part.name]))
                for record in batch.to_pylist():
                    yield self._row(readable(str(tars[part.name])), part.name, file, record)

    @property
    def caption_places(self) -> str:
        """The .txt, or a field of the .json."""
        return f"the field {self.caption_field} of each .json" if self.caption_field else "the .txt of each sample"

    def _tars(self) -> Files:
        return find_files(self.path, TAR_SUFFIXES, allow_outside=self.allow_outside)

    def _indexed(self, path: Path, name: str) -> ParquetPart:
        state = file_state(path)
        place = cached(
            f"{self.name}-tar-{fingerprint(name)}",
            [str(path), *state, self.key_dot, _FORM],
            lambda target: index_tar(path, self.key_dot, target),
        )
        return ParquetPart(name, str(place), (*state, self.key_dot), place)

    def _row(self, path: str, tar: str, file: BinaryIO, record: dict[str, Any]) -> SourceRow:
        key = f"{tar}/{record['key']}"
        members = _Members(path, file, record)
        try:
            fields = members.fields()
            said = members.caption(fields, self.caption_field) if self.caption_field else members.text("txt")
            image = members.data("image")
        except _MemberError as fault:
            return SourceRow(key, None, None, fault=str(fault))
        caption, captions = captions_of(said) or (None, None)
        url = fields.get(self.url_field)
        row = SourceRow(
            key,
            caption,
            image,
            url if is_storable(url) else None,
            metadata=as_json(fields) if fields else None,
            captions=captions,
        )
        if self.uid_field is None:
            return row
        return with_uid(row, fields.get(self.uid_field), f"{path}, sample {record['key']}: '{self.uid_field}'")


class _MemberError(Exception):
    """A member of a tar that cannot be used."""


class _Members:
    """The members of a sample, which are read when they are asked for."""

    def __init__(self, path: str, file: BinaryIO, record: dict[str, Any]) -> None:
        self._path, self._file, self._record = path, file, record

    def _error(self, kind: str, found: str) -> _MemberError:
        member = self._record[kind]
        return _MemberError(f"{self._path}, member {member['name'] if member else ''}: {found}")

    def data(self, kind: str) -> bytes | None:
        """The bytes of a member."""
        member = self._record[kind]
        if member is None:
            return None
        if member["fault"]:
            raise self._error(kind, member["fault"])
        if member["size"] > _MOST_BYTES[kind]:
            raise self._error(kind, f"{member['size']:,} bytes, at most {_MOST_BYTES[kind]:,} are read")
        self._file.seek(member["offset"])
        return self._file.read(member["size"])

    def text(self, kind: str) -> str | None:
        """The text of a member."""
        data = self.data(kind)
        try:
            return None if data is None else data.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise self._error(kind, f"not UTF-8 text (byte {error.start})") from error

    def fields(self) -> dict[str, Any]:
        """What the .json says."""
        text = self.text("json")
        if text is None:
            return {}
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._error("json", f"not JSON ({error})") from error
        if not isinstance(fields, dict):
            raise self._error("json", f"expected a JSON object, found {type(fields).__name__}")
        return fields

    def caption(self, fields: dict[str, Any], name: str) -> Any:
        """A field of the .json that holds the caption, or several."""
        said = fields.get(name)
        if captions_of(said) is None:
            found = "not Unicode" if isinstance(said, str) else type(said).__name__
            raise self._error("json", f"field '{name}' is {found}, expected text")
        return said
