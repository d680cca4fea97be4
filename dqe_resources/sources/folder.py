"""A folder of images with their captions next to them."""

from __future__ import annotations

import csv
import json
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from dqe_resources.configurable import ExistingPath
from dqe_resources.fingerprint import fingerprint
from dqe_resources.images import IMAGE_SUFFIXES
from dqe_resources.sources.protocol import Shard, Source, SourceError
from dqe_resources.sources.rows import SourceRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

METADATA_FILES = ("metadata.csv", "metadata.jsonl")


class FolderSource(Source):
    """Images with sidecar ``.txt`` files, or with one ``metadata.csv`` or ``metadata.jsonl``.

    A sidecar has the image's name with ``.txt`` for its suffix, and its first line is the caption. A metadata file is
    as Hugging Face's imagefolder has it: a column ``file_name`` with the image's path in the folder, and a column for
    the caption. With a metadata file, its rows are the source's rows; without one, the images are.

    Attributes:
        path: The folder.
        caption_column: Column of the metadata file that holds the caption.
        url_column: Column of the metadata file that holds the image's URL, if there is one.
    """

    kind: ClassVar[str] = "folder"
    path: ExistingPath
    caption_column: str = "text"
    url_column: str | None = None

    @model_validator(mode="after")
    def _is_folder(self) -> Self:
        if not self.path.is_dir():
            msg = f"path {self.path} is a file; the kind folder needs a folder (for a Parquet file: kind parquet)"
            raise ValueError(msg)
        return self

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``. The digest covers names, captions, sizes and times of the files."""
        entries = islice(self._entries(), first * self.shard_size, None)
        index = first
        while chunk := list(islice(entries, self.shard_size)):
            stats = [_stat(self.path / name) for name, _, _ in chunk]
            sidecars = [_stat((self.path / name).with_suffix(".txt")) for name, caption, _ in chunk if caption is None]
            yield Shard(index, len(chunk), fingerprint(str(self.path), chunk, stats, sidecars))
            index += 1

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        start = index * self.shard_size
        has_metadata = self._metadata_file() is not None
        for name, caption, url in islice(self._entries(), start, start + self.shard_size):
            path = self.path / name
            text = caption if has_metadata else _sidecar_caption(path)
            yield SourceRow(key=name, caption=text, image=path, url=url)

    def _metadata_file(self) -> Path | None:
        return next((self.path / name for name in METADATA_FILES if (self.path / name).is_file()), None)

    def _entries(self) -> Iterator[tuple[str, str | None, str | None]]:
        """Name, caption and URL of every row; captions of sidecars are read later."""
        metadata = self._metadata_file()
        if metadata is None:
            yield from ((name, None, None) for name in _image_names(self.path))
            return
        records = _csv_records(metadata) if metadata.suffix == ".csv" else _jsonl_records(metadata)
        seen: dict[str, int] = {}
        for number, record in records:
            for column in ("file_name", self.caption_column):
                if column not in record:
                    msg = (
                        f"{metadata}, row {number}: no column '{column}'; there are: {', '.join(map(str, record))}. "
                        "Set caption_column in dqe.yaml to the column that holds the caption"
                    )
                    raise SourceError(msg)
            name = str(record["file_name"])
            if not _is_inside(self.path, name):
                msg = f"{metadata}, row {number}: file_name '{name}' leads out of the folder"
                raise SourceError(msg)
            if name in seen:
                msg = f"{metadata}, row {number}: file_name '{name}' is also in row {seen[name]}; names must be unique"
                raise SourceError(msg)
            seen[name] = number
            caption, url = record[self.caption_column], record.get(self.url_column) if self.url_column else None
            yield name, None if caption is None else str(caption), None if url is None else str(url)


def _image_names(folder: Path) -> Iterator[str]:
    """Paths of the images below a folder, relative to it, in an order that does not depend on the file system."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield path.relative_to(folder).as_posix()


def _sidecar_caption(image: Path) -> str | None:
    sidecar = image.with_suffix(".txt")
    try:
        lines = sidecar.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        msg = f"{sidecar}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        raise SourceError(msg) from error
    return lines[0].strip() if lines else ""


def _csv_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for record in (reader := csv.DictReader(file, strict=True)):
                yield reader.line_num, {key: value for key, value in record.items() if key is not None}
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f"{path}: not CSV in UTF-8 ({error})"
        raise SourceError(msg) from error


def _jsonl_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                msg = f"{path}, row {number}: not JSON ({error})"
                raise SourceError(msg) from error
            if not isinstance(record, dict):
                msg = f"{path}, row {number}: expected an object, found {type(record).__name__}"
                raise SourceError(msg)
            yield number, record


def _is_inside(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
