"""Tar files in the WebDataset form: a sample is the run of files that share a name up to its first dot."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.fingerprint import fingerprint
from dqe_resources.images import IMAGE_SUFFIXES
from dqe_resources.sources.datacomp import checked_uid
from dqe_resources.sources.index import cached
from dqe_resources.sources.parts import (
    FilesPath,
    ParquetPart,
    file_state,
    find_files,
    parts_digest,
    read_rows,
    shards_of,
)
from dqe_resources.sources.protocol import Shard, Source, SourceError
from dqe_resources.sources.rows import SourceRow
from dqe_resources.sources.text_lists import as_json, is_storable, readable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MEMBER = re.compile(r"((?:.*/)?[^./][^.]*)\.([^/]+)", re.DOTALL)
_MOST_BYTES = 1 << 28
_BLOCK = 512

_PLACE = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
_SCHEMA = pa.schema([("key", pa.string()), ("image", _PLACE), ("txt", _PLACE), ("json", _PLACE)])


class WebdatasetSource(Source):
    """Tar files with images (.jpg, .png, .webp ...) and captions next to them (.txt, or a field of .json).

    The tars' headers are read once; where each file stands is kept in data/cache, and from then on a shard reads only
    its own files. A row is named by its tar and its key; its .json is kept as ``source_metadata``.

    Attributes:
        path: A tar, a folder of tars, or a pattern such as shards/*.tar.
        caption_field: Field of the .json that holds the caption; by default the .txt is the caption.
        url_field: Field of the .json that holds the image's URL, if there is one.
        uid_field: Field of the .json that holds the uid to keep, 32 hex digits (DataComp).
    """

    kind: ClassVar[str] = "webdataset"
    path: FilesPath
    caption_field: str | None = None
    url_field: str = "url"
    uid_field: str | None = None

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``, from the tars' headers."""
        parts = [self._indexed(path, name) for path, name in self._tars()]
        total = sum(part.rows for part in parts)
        return shards_of(total, self.shard_size, first, lambda begin, end: parts_digest(parts, begin, end))

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``, reading no other sample."""
        tars = {name: path for path, name in self._tars()}
        parts = [self._indexed(path, name) for name, path in tars.items()]
        start = index * self.shard_size
        with ExitStack() as stack:
            opened, file = "", None
            for part, _, batch in read_rows(parts, lambda _: _SCHEMA.names, start, self.shard_size):
                if file is None or opened != part.name:
                    stack.close()
                    opened, file = part.name, stack.enter_context(tars[part.name].open("rb"))
                for record in batch.to_pylist():
                    yield self._row(tars[part.name], part.name, file, record)

    def _tars(self) -> list[tuple[Path, str]]:
        return find_files(self.path, [".tar"])

    def _indexed(self, path: Path, name: str) -> ParquetPart:
        state = file_state(path)
        place = cached(f"{self.name}-tar-{fingerprint(name)}", [str(path), *state], lambda target: _index(path, target))
        return ParquetPart(name, str(place), state)

    def _row(self, path: Path, tar: str, file: BinaryIO, record: dict[str, Any]) -> SourceRow:
        key = f"{tar}/{record['key']}"
        try:
            fields = _fields(path, file, record["json"])
            if self.caption_field:
                caption = _caption(path, record["json"], fields, self.caption_field)
            else:
                caption = _text(path, file, record["txt"])
            image = _bytes(path, file, record["image"])
        except _MemberError as fault:
            return SourceRow(key, None, None, fault=str(fault))
        uid = None
        if self.uid_field:
            uid = checked_uid(fields.get(self.uid_field), f"{path}, sample {record['key']}", self.uid_field)
        url = fields.get(self.url_field)
        return SourceRow(
            key,
            caption,
            image,
            url if is_storable(url) else None,
            uid=uid,
            metadata=as_json(fields) if fields else None,
        )


class _MemberError(Exception):
    """A member of a tar that cannot be used."""

    def __init__(self, path: Path, member: dict[str, Any] | None, found: str) -> None:
        super().__init__(f"{path}, member {member['name'] if member else ''}: {found}")


def _bytes(path: Path, file: BinaryIO, member: dict[str, Any] | None) -> bytes | None:
    if member is None:
        return None
    if member["size"] > _MOST_BYTES:
        raise _MemberError(path, member, f"{member['size']:,} bytes, at most {_MOST_BYTES:,} are read")
    file.seek(member["offset"])
    return file.read(member["size"])


def _text(path: Path, file: BinaryIO, member: dict[str, Any] | None) -> str | None:
    data = _bytes(path, file, member)
    try:
        return None if data is None else data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise _MemberError(path, member, f"not UTF-8 text (byte {error.start})") from error


def _fields(path: Path, file: BinaryIO, member: dict[str, Any] | None) -> dict[str, Any]:
    text = _text(path, file, member)
    if text is None:
        return {}
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _MemberError(path, member, f"not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _MemberError(path, member, f"expected a JSON object, found {type(fields).__name__}")
    return fields


def _caption(path: Path, member: dict[str, Any] | None, fields: dict[str, Any], name: str) -> str | None:
    caption = fields.get(name)
    if not is_storable(caption):
        found = "not Unicode" if isinstance(caption, str) else type(caption).__name__
        raise _MemberError(path, member, f"field '{name}' is {found}, expected text")
    return caption


@dataclass
class _Sample:
    """The members of a sample; of several images the first."""

    key: str
    members: dict[str, dict[str, Any]] = field(default_factory=dict)


def _index(path: Path, target: Path) -> None:
    """Write where the members of each sample of a tar stand, as Parquet of ``_SCHEMA``."""
    samples: list[_Sample] = []
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            _collect(tar, samples)
            file.seek(tar.offset)
            end = file.read(_BLOCK)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _torn(path, samples, str(error)) from error
    if end != bytes(_BLOCK):
        raise _torn(path, samples, "a damaged header" if end else "no end-of-archive mark")
    seen: Counter[str] = Counter()
    records = []
    for sample in samples:
        seen[sample.key] += 1
        number = seen[sample.key]
        records.append({"key": sample.key + (f"#{number}" if number > 1 else ""), **sample.members})
    pq.write_table(pa.Table.from_pylist(records, _SCHEMA), target)


def _collect(tar: tarfile.TarFile, samples: list[_Sample]) -> None:
    """Add the samples of a tar, as far as it can be read."""
    for member in tar:
        # tarfile keeps every member for extraction: that would grow with the tar.
        tar.members = []  # type: ignore[attr-defined]
        match = _MEMBER.fullmatch(member.name)
        kind = _kind(match[2]) if match and member.isreg() else None
        if match is None or kind is None:
            continue
        key, name = readable(match[1]), readable(member.name)
        place = {"name": name, "offset": member.offset_data, "size": member.size}
        if not samples or samples[-1].key != key or samples[-1].members.get(kind, {}).get("name") == name:
            samples.append(_Sample(key))
        samples[-1].members.setdefault(kind, place)


def _kind(suffix: str) -> str | None:
    suffix = suffix.lower()
    return "image" if f".{suffix}" in IMAGE_SUFFIXES else suffix if suffix in {"txt", "json"} else None


def _torn(path: Path, samples: list[_Sample], found: str) -> SourceError:
    size = path.stat().st_size
    places = [place for sample in samples[-1:] for place in sample.members.values()]
    last = max(places, key=lambda place: place["offset"], default={"name": "none"})
    whole = len(samples) - any(place["offset"] + place["size"] > size for place in places)
    return SourceError(
        f"{path}: torn in or after member {last['name']} ({found}); {whole:,} whole samples stand before that: "
        "get the file again, or move it away"
    )
