"""Where the samples of a subset are copied from: our own store, or WebDataset tars."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from dqe_assets.core.schema import has_image
from dqe_assets.ingest.private import Private
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources import images
from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    import fsspec
    import pyarrow as pa

    from dqe_resources.store import Store

_COPIED = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Formats that training reads as they are, and their extensions."""

_JPEG_QUALITY = 95

_UID = re.compile("[0-9a-f]{32}")

_ROWS_AT_ONCE = 256

PICTURE_COLUMNS = ["uid", "image", "format"]
"""The columns of ``raw_samples`` that ``picture_of`` takes."""

_STORE_COLUMNS = [*PICTURE_COLUMNS, "source", "shard", "image_name", "url", "caption", "width", "height"]


class SamplesError(DataQualityError):
    """A store or tar to copy samples from cannot be read: says which file, which sample and what to do."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its uid, and its files by extension, in the order in which they are written.

    Attributes:
        uid: 32 lower-case hex digits.
        files: contents by extension, such as jpg, txt and json.
        encoded: whether its image was encoded again.
    """

    uid: str
    files: dict[str, bytes]
    encoded: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """The image of a sample as it is copied.

    Attributes:
        uid: 32 lower-case hex digits.
        extension: jpg, png or webp; that of its format if it cannot be decoded.
        data: contents of the file.
        encoded: whether it was encoded again.
    """

    uid: str
    extension: str
    data: bytes
    encoded: bool

    @property
    def sha256(self) -> str:
        """Hex digest of the contents."""
        return hashlib.sha256(self.data).hexdigest()


class SamplePart(Protocol):
    """Samples that are read in one go, always in the same order: a shard, or a tar."""

    @property
    def name(self) -> str:
        """What errors call it."""

    def uids(self) -> list[str]:
        """The uids of its samples, in order, without reading an image."""

    def read(self, wanted: Container[str]) -> Iterator[Sample]:
        """Those of its samples that are wanted, in order; a uid that is there twice, twice."""


@dataclass(frozen=True)
class StoreShard:
    """The samples of a shard of our own store that have an image.

    A JPEG, PNG or WebP is copied, no pixel encoded again, if it is upright and has 8 bits of grey or RGB, since
    training can read it; it keeps its profile and what it says of its rights, and nothing else beside its pixels. Any
    other image is encoded again as an upright JPEG in sRGB: readers of WebDataset know nothing of EXIF orientations and
    of inks. What is said of a sample has no credentials, no address inside a network and no path of a machine.
    """

    store: Store
    name: str

    def uids(self) -> list[str]:
        """The uids of the samples that have an image."""
        table = self._uids_and_statuses()
        return table.filter(has_image(table))["uid"].to_pylist()

    def read(self, wanted: Container[str]) -> Iterator[Sample]:
        """Those that are wanted."""
        return map(_stored_sample, self._records(wanted, _STORE_COLUMNS))

    def pictures(self, wanted: Container[str]) -> Iterator[Picture]:
        """The images alone of those that are wanted."""
        return map(picture_of, self._records(wanted, PICTURE_COLUMNS))

    def _records(self, wanted: Container[str], columns: list[str]) -> Iterator[dict[str, Any]]:
        table = self._uids_and_statuses()
        pictured = has_image(table).to_pylist()
        rows = [row for row, uid in enumerate(table["uid"].to_pylist()) if pictured[row] and uid in wanted]
        for group in self.store.row_groups("raw_samples", self.name, RAW_SAMPLES, rows, columns):
            for batch in group.to_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()

    def _uids_and_statuses(self) -> pa.Table:
        return self.store.read("raw_samples", self.name, RAW_SAMPLES, ["uid", "status"])


def picture_of(record: dict[str, Any]) -> Picture:
    """The image of a row of ``raw_samples`` as it is copied, given by its ``PICTURE_COLUMNS``."""
    copied = _copied(record)
    if isinstance(copied, bytes):
        return Picture(record["uid"], _COPIED[record["format"]], copied, encoded=False)
    jpeg = _encoded_anew(record)
    if isinstance(jpeg, bytes):
        return Picture(record["uid"], "jpg", jpeg, encoded=True)
    # What cannot be decoded any more is copied too: one image must not end a publication.
    extension = _COPIED.get(record["format"], record["format"])
    return Picture(record["uid"], extension, record["image"]["bytes"], encoded=False)


@images.guarded
def _copied(record: dict[str, Any]) -> bytes | None:
    """The image's file without what it says beside pixels, colours and rights; None if training needs another."""
    data = record["image"]["bytes"]
    if record["format"] not in _COPIED or not images.is_plain(data):
        return None
    try:
        return images.cleaned(data)
    except images.NotCleanError:
        return None


@images.guarded
def _encoded_anew(record: dict[str, Any]) -> bytes:
    """The image as an upright JPEG in sRGB, which says nothing but its rights."""
    data = record["image"]["bytes"]
    out = io.BytesIO()
    images.decode(data).save(out, "JPEG", quality=_JPEG_QUALITY)
    rights = images.rights_of(data)
    return images.with_rights(out.getvalue(), rights) if rights else out.getvalue()


def _stored_sample(record: dict[str, Any]) -> Sample:
    picture, private = picture_of(record), Private()
    facts = {
        "uid": record["uid"],
        "caption": record["caption"],
        "url": record["url"] and private.url(record["url"]),
        "original_width": record["width"],
        "original_height": record["height"],
        "sha256": picture.sha256,
        "source": record["source"],
        "shard": record["shard"],
        "image_name": record["image_name"] and private.name(record["image_name"]),
    }
    files = {
        picture.extension: picture.data,
        "txt": (record["caption"] or "").encode(),
        "json": json.dumps(facts, ensure_ascii=False).encode(),
    }
    return Sample(record["uid"], files, picture.encoded)


def tars(url: str) -> list[Tar]:
    """The WebDataset tars of a folder or fsspec URL, sorted by name, or one tar.

    Raises:
        SamplesError: there are none.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        if path.endswith(".tar"):
            found = [path] if filesystem.isfile(path) else []
        else:
            found = sorted(entry for entry in filesystem.find(path, maxdepth=1) if entry.endswith(".tar"))
    except (OSError, ValueError, ImportError) as error:
        raise SamplesError(f"{url}: cannot be opened ({one_line(error)})") from error
    if not found:
        raise SamplesError(f"{url}: there is no .tar; name a folder or URL that holds WebDataset tars, or one of them")
    return [Tar(filesystem, entry) for entry in found]


@dataclass(frozen=True)
class Tar:
    """The samples of a WebDataset tar as img2dataset and DataComp write it: each has a .json with its uid."""

    filesystem: fsspec.AbstractFileSystem
    name: str

    def uids(self) -> list[str]:
        """The uids, from the .json of each sample; pictures are skipped over."""
        return [uid for uid, _ in self._samples()]

    def read(self, wanted: Container[str]) -> Iterator[Sample]:
        """Those that are wanted, every file of them as it is; the others are skipped over."""
        for uid, files in self._samples():
            if uid in wanted:
                yield Sample(uid, files())

    def _samples(self) -> Iterator[tuple[str, Callable[[], dict[str, bytes]]]]:
        """The uid of each sample, and what reads its files by extension."""
        with (
            self._whole(),
            self.filesystem.open(self.name, "rb") as handle,
            tarfile.open(fileobj=handle, mode="r:") as tar,
        ):

            def contents(files: dict[str, tarfile.TarInfo]) -> dict[str, bytes]:
                with self._whole():
                    return {name: tar.extractfile(member).read() for name, member in files.items()}  # type: ignore[union-attr]

            members = (member for member in tar if member.isfile())
            for key, group in groupby(members, key=lambda member: _split(member.name)[0]):
                files = {_split(member.name)[1]: member for member in group}
                facts = contents({name: files[name] for name in ("json",) if name in files})
                yield _uid(self.name, key, facts.get("json")), partial(contents, files)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except (tarfile.TarError, OSError, EOFError) as error:
            raise SamplesError(
                f"{self.name}: torn or not a tar ({one_line(error)}); fetch it again, or leave it out"
            ) from error


def _split(name: str) -> tuple[str, str]:
    """A file's key and extension, as WebDataset cuts them: at the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _uid(tar: str, key: str, facts: bytes | None) -> str:
    if facts is None:
        raise SamplesError(f"{tar}: sample {key} has no .json, so its uid is not known; leave the tar out, or fix it")
    try:
        uid = str(json.loads(facts)["uid"]).lower()
    except (ValueError, KeyError, TypeError):
        uid = ""
    if not _UID.fullmatch(uid):
        raise SamplesError(
            f"{tar}: the .json of sample {key} has no uid of 32 hex digits; leave the tar out, or fix it"
        )
    return uid
