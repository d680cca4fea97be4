"""Where the samples of a subset are copied from: our own store, or WebDataset tars."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.compute as pc

from dqe_assets import images
from dqe_assets.schemas import RAW_SAMPLES
from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    import fsspec

    from dqe_resources.storage import Store

_COPIED = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Formats that training reads as they are, and their extensions."""

_JPEG_QUALITY = 95

_UID = re.compile("[0-9a-f]{32}")

_ROWS_AT_ONCE = 256

_STORE_COLUMNS = [
    *("uid", "source", "shard", "image_name", "url", "caption", "image", "sha256", "format", "exif_orientation"),
    *("width", "height"),
]


class SamplesError(DataQualityError):
    """What samples are to be copied from cannot be read: says which file, which sample and what to do."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its uid, and its files by extension, in the order in which they are written.

    Attributes:
        uid: 32 lower-case hex digits.
        files: contents by extension, such as jpg, txt and json.
        encoded: whether its image was encoded anew.
    """

    uid: str
    files: dict[str, bytes]
    encoded: bool = False


class Samples(Protocol):
    """Samples in a fixed order, in parts that are read one at a time."""

    @property
    def name(self) -> str:
        """Where they are, for a person."""

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts, in order."""

    def uids(self, part: str) -> list[str]:
        """The uids of a part, in order, without reading an image."""

    def read(self, part: str, wanted: Container[str]) -> Iterator[Sample]:
        """Those samples of a part that are wanted, in order; a uid that is there twice, twice."""


@dataclass(frozen=True)
class StoreSamples:
    """The samples of our own store that have an image.

    An image is copied as it was found where training reads it so: JPEG, PNG and WebP that stand upright. Any other is
    encoded anew as an upright JPEG, for readers of WebDataset know nothing of EXIF orientations.
    """

    store: Store
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """Root of the store."""
        return self.store.root

    def uids(self, part: str) -> list[str]:
        """The uids of a shard's samples that have an image."""
        table = self.store.read("raw_samples", part, RAW_SAMPLES, ["uid", "status"])
        return table.filter(pc.equal(table["status"], "ok"))["uid"].to_pylist()

    def read(self, part: str, wanted: Container[str]) -> Iterator[Sample]:
        """Those samples of a shard that are wanted."""
        table = self.store.read("raw_samples", part, RAW_SAMPLES, ["uid", "status"])
        rows = [
            row
            for row, (uid, status) in enumerate(zip(table["uid"].to_pylist(), table["status"].to_pylist(), strict=True))
            if status == "ok" and uid in wanted
        ]
        for some in _batched(rows, _ROWS_AT_ONCE):
            for record in self.store.read_rows("raw_samples", part, RAW_SAMPLES, some, _STORE_COLUMNS).to_pylist():
                yield _stored_sample(record)


def _stored_sample(record: dict[str, Any]) -> Sample:
    data, extension = record["image"]["bytes"], _COPIED.get(record["format"])
    encoded = extension is None or record["exif_orientation"] != 1
    if encoded:
        out = io.BytesIO()
        images.decode(data).save(out, "JPEG", quality=_JPEG_QUALITY)
        data, extension = out.getvalue(), "jpg"
    facts = {
        "uid": record["uid"],
        "caption": record["caption"],
        "url": record["url"],
        "original_width": record["width"],
        "original_height": record["height"],
        "sha256": hashlib.sha256(data).hexdigest(),
        "source": record["source"],
        "shard": record["shard"],
        "image_name": record["image_name"],
    }
    files = {
        str(extension): data,
        "txt": (record["caption"] or "").encode(),
        "json": json.dumps(facts, ensure_ascii=False).encode(),
    }
    return Sample(record["uid"], files, encoded)


@dataclass(frozen=True)
class TarSamples:
    """The samples of WebDataset tars as img2dataset and DataComp write them: each has a .json with its uid.

    Attributes:
        url: a folder or fsspec URL with tars in it, or one tar.
    """

    url: str

    @property
    def name(self) -> str:
        """The folder or file."""
        return self.url

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        import fsspec

        try:
            return fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise SamplesError(f"{self.url}: cannot be opened ({error})") from error

    @cached_property
    def parts(self) -> list[str]:
        """Paths of the tars, sorted.

        Raises:
            SamplesError: there are none.
        """
        filesystem, path = self._opened
        if path.endswith(".tar"):
            found = [path] if filesystem.isfile(path) else []
        else:
            found = sorted(entry for entry in filesystem.find(path, maxdepth=1) if entry.endswith(".tar"))
        if not found:
            raise SamplesError(f"{self.url}: there is no .tar; name a folder or URL that holds WebDataset tars, or one")
        return found

    def uids(self, part: str) -> list[str]:
        """The uids of a tar's samples, from their .json; pictures are skipped over."""
        return [uid for uid, _ in self._samples(part, frozenset(("json",)))]

    def read(self, part: str, wanted: Container[str]) -> Iterator[Sample]:
        """Those samples of a tar that are wanted, every file of them as it is."""
        for uid, files in self._samples(part, None):
            if uid in wanted:
                yield Sample(uid, files)

    def _samples(self, part: str, extensions: Container[str] | None) -> Iterator[tuple[str, dict[str, bytes]]]:
        filesystem, _ = self._opened
        try:
            with filesystem.open(part, "rb") as handle, tarfile.open(fileobj=handle, mode="r:") as tar:
                members = (member for member in tar if member.isfile())
                for key, group in groupby(members, key=lambda member: _split(member.name)[0]):
                    files = {
                        extension: tar.extractfile(member).read()  # type: ignore[union-attr]
                        for member in group
                        for extension in [_split(member.name)[1]]
                        if extensions is None or extension in extensions
                    }
                    yield _uid(part, key, files.get("json")), files
        except (tarfile.TarError, OSError, EOFError) as error:
            raise SamplesError(
                f"{part}: torn or not a tar ({' '.join(str(error).split())}); fetch it again, or leave it out"
            ) from error


def _split(name: str) -> tuple[str, str]:
    """A file's key and extension, as WebDataset cuts them: at the first dot of its last part."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem or path.name)), extension.lower()


def _uid(part: str, key: str, facts: bytes | None) -> str:
    if facts is None:
        raise SamplesError(f"{part}: sample {key} has no .json, so its uid is not known; leave the tar out, or mend it")
    try:
        uid = str(json.loads(facts)["uid"]).lower()
    except (ValueError, KeyError, TypeError):
        uid = ""
    if not _UID.fullmatch(uid):
        raise SamplesError(
            f"{part}: the .json of sample {key} has no uid of 32 hex digits; leave the tar out, or mend it"
        )
    return uid


def _batched(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
