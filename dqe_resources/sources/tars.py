"""Tar files in the WebDataset form: where in a tar the members of each sample stand."""

from __future__ import annotations

import gzip
import json
import lzma
import posixpath
import tarfile
import tempfile
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.cache import data_directory
from dqe_resources.errors import of_whole_run, one_line
from dqe_resources.images import IMAGE_SUFFIXES
from dqe_resources.sources.left_out import HIDDEN, SYSTEM, LeftOut, by_suffix
from dqe_resources.sources.protocol import SourceError
from dqe_resources.sources.texts import readable, readable_name
from dqe_resources.sources.walk import is_of_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAR_SUFFIXES = (
    ".tar",
    *(".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.lz4", ".tlz4"),
)

KeyDot = Literal["first", "last"]
"""Which dot of a member's name ends its key."""

KEY_DOTS: tuple[KeyDot, ...] = get_args(KeyDot)

_PLACE = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("fault", pa.string())])
TAR_INDEX = pa.schema([("key", pa.string()), ("image", _PLACE), ("txt", _PLACE), ("json", _PLACE)])
"""The samples of a tar, in order: a key of their own, and the members, each null if there is none."""

_LEFT_OUT = b"left_out"
_BLOCK = 512
_PIECE = 1 << 20

_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
_XZ_MEMORY = 1 << 28
"""Bytes for unpacking xz, whose files may ask for any amount; its highest level takes a quarter of this."""
_MOST_UNPACKED = 1 << 30
_MOST_TIMES = 100
"""A compressed tar may unpack to so many times its size, and in any case to ``_MOST_UNPACKED`` bytes."""

_LONGEST_HEADER = 1 << 20
"""Bytes of a header, whose length the tar says."""

_LINKS = 8
"""Links in a row that are followed."""

_OTHER_MEMBERS = "members that are neither files nor links"
_DOTTED = "members with a dot before the end of their name (key_dot: last reads them)"
_AFTER_THE_END = "bytes after a tar's end that are no tar"


@contextmanager
def opened_tar(path: Path) -> Iterator[BinaryIO]:
    """A tar for reading at any place; a compressed one is unpacked into a file that has no name.

    Raises:
        SourceError: it cannot be unpacked, or would become far larger than it is.
    """
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        compression = next((kind for magic, kind in _COMPRESSIONS.items() if start.startswith(magic)), None)
        if compression is None:
            yield file
            return
        folder = data_directory() / "cache"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as unpacked:
            _unpack(path, _unpacked(file, compression), unpacked)
            unpacked.seek(0)
            yield unpacked


def _unpacked(file: BinaryIO, compression: str) -> Iterator[bytes]:
    """What a compressed file holds, in pieces."""
    if compression == "xz":
        yield from _unpacked_xz(file)
        return
    # Arrow fails at the zeros that some tapes and file systems leave after the end of a gzip.
    stream = gzip.GzipFile(fileobj=file) if compression == "gzip" else pa.input_stream(file, compression=compression)
    while piece := stream.read(_PIECE):
        yield piece


def _unpacked_xz(file: BinaryIO) -> Iterator[bytes]:
    packed = file.read(_PIECE)
    while packed:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input:
                packed = packed or file.read(_PIECE)
                if not packed:
                    raise EOFError("it ends too early")
            yield stream.decompress(packed, _PIECE)
            packed = b""
        # Streams may follow each other, with zeros between.
        packed = stream.unused_data.lstrip(b"\0") or file.read(_PIECE).lstrip(b"\0")


def _unpack(path: Path, pieces: Iterator[bytes], target: Any) -> None:
    most = max(_MOST_UNPACKED, _MOST_TIMES * path.stat().st_size)
    length = 0
    try:
        for piece in pieces:
            length += len(piece)
            if length > most:
                break
            target.write(piece)
    except (pa.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if of_whole_run(error) is not None:
            raise
        where = f"{readable(str(path))}, after {length:,} bytes"
        raise SourceError(f"{where}: damaged or cut off ({one_line(error)}); get the file again") from error
    if length > most:
        raise SourceError(f"{readable(str(path))}: unpacks to more than {most:,} bytes; if it is sound, unpack it")


class _Headers:
    """A tar of which headers are read, and no long one: tarfile takes as much into memory as a tar says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Some bytes of a header.

        Raises:
            ReadError: they are more than a header has.
        """
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def split_member(name: str, key_dot: KeyDot) -> tuple[str, str] | None:
    """The key and the suffix of a member's name, without the dot between; None if it has not both.

    By WebDataset's rule the first dot of the name's last part ends the key.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".") if key_dot == "first" else base.rpartition(".")
    return (folder + slash + stem, suffix) if stem and dot and suffix else None


def kind_of(suffix: str) -> str | None:
    """What a member with a suffix is: image, txt, json or nothing that is read."""
    suffix = suffix.lower()
    return "image" if f".{suffix}" in IMAGE_SUFFIXES else suffix if suffix in {"txt", "json"} else None


def index_tar(path: Path, key_dot: KeyDot, target: Path) -> None:
    """Write where the members of each sample of a tar stand, as Parquet of ``TAR_INDEX``.

    A sample is all members with a key. One that repeats a member's name is another sample, and so is one that brings
    what the sample has already, with other samples between.

    Raises:
        SourceError: the tar is torn: says where, and how many whole samples stand before that.
    """
    index = _Index(key_dot)
    with opened_tar(path) as opened:
        file = _Headers(opened)
        try:
            for tar in _archives(file, index.left_out):
                index.begin_archive()
                for member in _members(tar):
                    index.add(member)
            for _ in range(_LINKS):
                if not index.links:
                    break
                file.seek(0)
                targets = {link.target for link in index.links}
                for tar in _archives(file, LeftOut()):
                    index.resolve(member for member in _members(tar) if _normal(member.name) in targets)
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            # Numbers in its extended headers are whatever the tar says.
            raise _torn(path, file, index.samples, one_line(error)) from error
    seen: Counter[str] = Counter()
    records = []
    for sample in index.samples:
        seen[sample.key] += 1
        number = seen[sample.key]
        records.append({"key": sample.key + (f"#{number}" if number > 1 else ""), **sample.members})
    left_out = json.dumps([index.left_out.counts, index.left_out.examples])
    table = pa.Table.from_pylist(records, TAR_INDEX.with_metadata({_LEFT_OUT: left_out}))
    pq.write_table(table, target, write_page_checksum=True)


@lru_cache(maxsize=4096)
def left_out_of(index: str) -> LeftOut:
    """What ``index_tar`` has left out of a tar."""
    counts, examples = json.loads((pq.read_schema(index).metadata or {})[_LEFT_OUT])
    return LeftOut(Counter(counts), examples)


@dataclass
class _Sample:
    """The members of a sample; of several images the first."""

    key: str
    members: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class _Link:
    """A member that is another one's content."""

    place: dict[str, Any]
    target: str


class _Index:
    """The samples of a tar, as far as it has been read.

    Attributes:
        samples: the samples.
        left_out: what is in none.
        links: members whose content has not been found yet.
    """

    def __init__(self, key_dot: KeyDot) -> None:
        self.samples: list[_Sample] = []
        self.left_out = LeftOut()
        self.links: list[_Link] = []
        self._key_dot = key_dot
        self._last: _Sample | None = None
        self._by_key: dict[str, _Sample] = {}

    def begin_archive(self) -> None:
        """Samples do not go on in the next of several archives in a file."""
        self._last, self._by_key = None, {}

    def add(self, member: tarfile.TarInfo) -> None:
        """Take a member into its sample, or count it as left out."""
        if member.isdir():
            return
        if reason := self._reason(member):
            self.left_out.add(reason, member.name)
            return
        key, suffix = split_member(member.name, self._key_dot) or ("", "")
        key, kind, name = readable_name(key), kind_of(suffix) or "", readable_name(member.name)
        sample = self._last
        if sample is not None and sample.key == key:
            known = sample.members.get(kind)
            if known is not None and known["name"] != name:
                self.left_out.add(f"further members of a sample: {suffix.lower()} beside another {kind}", name)
                return
        else:
            sample = self._by_key.get(key)
            known = sample.members.get(kind) if sample else None
        if sample is None or known is not None:
            sample = self._by_key[key] = _Sample(key)
            self.samples.append(sample)
        self._last = sample
        sample.members[kind] = self._place(member, name)

    def _reason(self, member: tarfile.TarInfo) -> str | None:
        """Why a member is in no sample."""
        base = member.name.rpartition("/")[2]
        if any(map(is_of_system, member.name.split("/"))):
            return SYSTEM
        if base.startswith("."):
            return HIDDEN
        if not (member.isreg() or member.islnk() or member.issym()):
            return _OTHER_MEMBERS
        parts = split_member(member.name, self._key_dot)
        if parts is not None and kind_of(parts[1]) is not None:
            return None
        last = split_member(member.name, "last")
        return _DOTTED if last is not None and kind_of(last[1]) is not None else by_suffix(base)

    def _place(self, member: tarfile.TarInfo, name: str) -> dict[str, Any]:
        place = {"name": name, "offset": member.offset_data, "size": member.size, "fault": None}
        if member.islnk() or member.issym():
            folder = posixpath.dirname(member.name) if member.issym() else ""
            target = _normal(posixpath.join(folder, member.linkname))
            self.links.append(_Link(place, target))
            place |= {"size": 0, "fault": f"a link to {readable(target)!r}, which is no file of this tar"}
        elif member.issparse():
            place |= {"size": 0, "fault": "a sparse file, which is not read"}
        return place

    def resolve(self, members: Iterator[tarfile.TarInfo]) -> None:
        """Give the links to some members their content."""
        found = {_normal(member.name): member for member in members if not member.issparse()}
        links, self.links = self.links, []
        for link in links:
            member = found.get(link.target)
            if member is None:
                self.links.append(link)
            elif member.isreg():
                link.place |= {"offset": member.offset_data, "size": member.size, "fault": None}
            elif member.islnk() or member.issym():
                folder = posixpath.dirname(member.name) if member.issym() else ""
                self.links.append(_Link(link.place, _normal(posixpath.join(folder, member.linkname))))


def _normal(name: str) -> str:
    return posixpath.normpath(name.lstrip("/"))


def _archives(file: _Headers, left_out: LeftOut) -> Iterator[tarfile.TarFile]:
    """The tars that stand one after the other in a file."""
    start = 0
    while True:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
            yield tar
            file.seek(tar.offset)
        end = file.read(_BLOCK)
        if end != bytes(_BLOCK):
            raise tarfile.ReadError("a damaged header" if end else "no end-of-archive mark")
        while (block := file.read(_BLOCK)) and not any(block):
            pass
        if not block:
            return
        start = file.tell() - len(block)
        try:
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            left_out.add(_AFTER_THE_END, f"at byte {start:,}")
            return


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar."""
    for member in tar:
        # tarfile keeps every member for extraction: that would grow with the tar.
        tar.members = []  # type: ignore[attr-defined]
        if member.size < 0:
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        yield member


def _torn(path: Path, file: _Headers, samples: list[_Sample], found: str) -> SourceError:
    size = file.seek(0, 2)
    places = [place for sample in samples[-1:] for place in sample.members.values()]
    last = max(places, key=lambda place: place["offset"], default={"name": "none"})
    whole = len(samples) - any(place["offset"] + place["size"] > size for place in places)
    return SourceError(
        f"{readable(str(path))}: torn in or after member {last['name']} ({found}); {whole:,} whole samples stand "
        "before that: get the file again, or move it away"
    )
