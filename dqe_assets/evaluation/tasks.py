"""Tasks as DataComp and CLIP benchmark publish them: folders or URLs of WebDataset tars, or of Parquet files.

- **Classification**: tars of ``<key>.jpg`` (png, jpeg, webp) and ``<key>.cls``, in the folder or in its ``test``, next
  to ``classnames.txt`` and ``zeroshot_classification_templates.txt``, where ``{c}`` stands for a class. ``<key>.npy``
  is what else is known of an image.
- **Retrieval**: tars of images and ``<key>.txt``, a caption in each line; or Parquet with ``image`` and ``caption``.
- **Association** (WinoGAViL): Parquet with ``candidate_images``, ``candidates``, ``cue`` and ``associations``.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import fsspec
    from numpy.typing import NDArray

Kind: TypeAlias = Literal["classification", "retrieval", "association"]

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
PLACEHOLDER = "{c}"

_SHARDS = "nshards.txt"
_IMAGES = ("jpg", "png", "jpeg", "webp")
_ROWS = 256


class TaskError(DataQualityError):
    """A task cannot be read: says the file, the sample, and what was expected."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image of a classification task.

    Attributes:
        key: of the sample.
        image: contents of the file; None if there is none.
        label: the number of its class.
        about: what else is known of it; None if nothing is.
    """

    key: str
    image: bytes | None
    label: int
    about: NDArray[np.integer] | None


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image of a retrieval task, with all its captions."""

    key: str
    image: bytes | None
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Association:
    """A cue, and the candidate images, of which some belong to it."""

    key: str
    cue: str
    images: tuple[bytes, ...]
    belongs: NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """A task to evaluate on.

    Attributes:
        url: a folder, or any fsspec URL.
    """

    url: str

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        import fsspec

        try:
            filesystem, path = fsspec.core.url_to_fs(self.url)
            if not filesystem.isdir(path):
                raise TaskError(f"{self.url}: there is no such folder of a task")
        except (OSError, ValueError, ImportError) as error:
            raise TaskError(f"{self.url}: cannot be opened ({one_line(error)})") from error
        return filesystem, path.rstrip("/")

    @cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        """Everything in the folder and in its ``test``, by path from it."""
        filesystem, path = self._opened
        found: dict[str, dict[str, Any]] = {}
        for folder in (path, f"{path}/test"):
            if filesystem.isdir(folder):
                for entry in filesystem.ls(folder, detail=True):
                    if entry["type"] == "file":
                        found[str(PurePosixPath(entry["name"]).relative_to(path))] = entry
        return found

    @property
    def is_there(self) -> bool:
        """Whether there is such a folder."""
        try:
            return bool(self._files)
        except TaskError:
            return False

    @property
    def state(self) -> list[list[Any]]:
        """Name, size and time of each file: they show whether the task has changed.

        Raises:
            TaskError: it cannot be listed.
        """
        changed = ("mtime", "LastModified", "updated", "created")
        return sorted(
            [name, entry["size"], str(next((entry[key] for key in changed if key in entry), ""))]
            for name, entry in self._files.items()
        )

    @cached_property
    def kind(self) -> Kind:
        """What kind of task it is.

        Raises:
            TaskError: it is none.
        """
        if CLASS_NAMES in self._files:
            return "classification"
        if self._tars:
            return "retrieval"
        names = self._parquet_columns
        if {"image", "caption"} <= names:
            return "retrieval"
        if {"candidate_images", "candidates", "cue", "associations"} <= names:
            return "association"
        raise TaskError(
            f"{self.url}: no task: neither tars (with {CLASS_NAMES}, or with captions), nor Parquet files with the "
            f"columns image and caption; found: {', '.join(sorted(self._files)[:5]) or 'nothing'}"
        )

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of their numbers; raises TaskError if one is empty or repeated."""
        names = self._lines(CLASS_NAMES)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TaskError(f"{self.url}/{CLASS_NAMES}: the class {twice!r} is there twice")
        return names

    @property
    def templates(self) -> list[str]:
        """Texts with ``{c}`` for a class; raises TaskError if there is none, or one without ``{c}``."""
        templates = self._lines(TEMPLATES)
        for number, template in enumerate(templates, 1):
            if PLACEHOLDER not in template:
                raise TaskError(f"{self.url}/{TEMPLATES}, line {number}: {template!r} has no {PLACEHOLDER}")
        return templates

    def _lines(self, name: str) -> list[str]:
        filesystem, path = self._opened
        if name not in self._files:
            raise TaskError(f"{self.url}: there is no {name}")
        try:
            lines = filesystem.cat_file(f"{path}/{name}").decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise TaskError(f"{self.url}/{name}: cannot be read ({one_line(error)})") from error
        while lines and not lines[-1].strip():
            lines.pop()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                raise TaskError(f"{self.url}/{name}, line {number}: is empty")
        if not lines:
            raise TaskError(f"{self.url}/{name}: is empty")
        return [line.strip() for line in lines]

    def labelled(self) -> Iterator[Labelled]:
        """The images of a classification task, in order.

        Raises:
            TaskError: a tar is not there or torn; a sample has no class, or one that is not in the list.
        """
        classes = len(self.class_names)
        for key, files in self._samples():
            try:
                label = int(files["cls"])
                about = np.load(io.BytesIO(files["npy"]), allow_pickle=False) if "npy" in files else None
            except KeyError:
                raise TaskError(f"{self.url}, sample {key}: has no .cls") from None
            except ValueError as error:
                raise TaskError(f"{self.url}, sample {key}: {one_line(error)}") from error
            if not 0 <= label < classes:
                raise TaskError(f"{self.url}, sample {key}: class {label}; {CLASS_NAMES} has {classes}")
            yield Labelled(key, _image(files), label, None if about is None else np.ravel(about))

    def captioned(self) -> Iterator[Captioned]:
        """The images of a retrieval task with their captions, in order.

        Raises:
            TaskError: a file is not there or torn; an image has no caption.
        """
        for key, image, captions in self._pairs():
            kept = tuple(one.strip() for one in captions if one.strip())
            if not kept:
                raise TaskError(f"{self.url}, sample {key}: has no caption")
            yield Captioned(key, image, kept)

    def _pairs(self) -> Iterator[tuple[str, bytes | None, list[str]]]:
        if self._tars:
            for key, files in self._samples():
                yield key, _image(files), files.get("txt", b"").decode("utf-8", "replace").splitlines()
            return
        for place, row in self._rows(["image", "caption"]):
            captions = row["caption"] or []
            yield place, row["image"] and row["image"]["bytes"], [captions] if isinstance(captions, str) else captions

    def associations(self) -> Iterator[Association]:
        """The cues of an association task, in order.

        Raises:
            TaskError: a file is torn; a cue has other candidates than images, or none that belongs to it.
        """
        for place, row in self._rows(["candidate_images", "candidates", "cue", "associations"]):
            belongs = np.isin(row["candidates"], row["associations"])
            images = tuple(image["bytes"] for image in row["candidate_images"])
            if len(images) != len(belongs) or not belongs.any():
                raise TaskError(
                    f"{self.url}, {place}: {len(images)} images, {len(belongs)} candidates, "
                    f"{int(belongs.sum())} of them belong to the cue"
                )
            yield Association(place, row["cue"], images, belongs)

    @cached_property
    def _tars(self) -> list[str]:
        tars = [name for name in self._files if name.endswith(".tar")]
        ordered = sorted(tars, key=lambda name: (len(name), name))
        counted = next((name for name in (f"test/{_SHARDS}", _SHARDS) if name in self._files), None)
        if counted is not None:
            said = self._lines(counted)[0]
            if said != str(len(tars)):
                raise TaskError(f"{self.url}/{counted} says that there are {said} tars; found {len(tars)}")
        return ordered

    def _samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        filesystem, path = self._opened
        if not self._tars:
            raise TaskError(f"{self.url}: there are no tars")
        for name in self._tars:
            size = self._files[name]["size"]
            if size % tarfile.BLOCKSIZE:
                raise TaskError(f"{self.url}/{name}: is cut off after {size:,} bytes; fetch it again")
            try:
                with filesystem.open(f"{path}/{name}", "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                    files = (member for member in tar if member.isfile())
                    for key, members in groupby(files, key=_key):
                        yield (
                            key,
                            {_suffix(one): content.read() for one in members if (content := tar.extractfile(one))},
                        )
            except (tarfile.TarError, OSError) as error:
                raise TaskError(f"{self.url}/{name}: cannot be read ({one_line(error)})") from error

    @cached_property
    def _parquet(self) -> list[str]:
        return sorted(name for name in self._files if name.endswith(".parquet"))

    @cached_property
    def _parquet_columns(self) -> set[str]:
        filesystem, path = self._opened
        if not self._parquet:
            return set()
        name = self._parquet[0]
        try:
            with filesystem.open(f"{path}/{name}", "rb") as file:
                return set(pq.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise TaskError(f"{self.url}/{name}: cannot be read ({one_line(error)})") from error

    def _rows(self, columns: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        filesystem, path = self._opened
        for name in self._parquet:
            try:
                with filesystem.open(f"{path}/{name}", "rb") as file:
                    number = 0
                    opened = pq.ParquetFile(file, page_checksum_verification=True)
                    for batch in opened.iter_batches(_ROWS, columns=columns):
                        for row in batch.to_pylist():
                            yield f"{name}, row {number}", row
                            number += 1
            except (pa.ArrowException, OSError) as error:
                raise TaskError(f"{self.url}/{name}: cannot be read ({one_line(error)})") from error


def _key(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    return str(path.with_name(path.name.partition(".")[0]))


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).name.partition(".")[2].lower()


def _image(files: dict[str, bytes]) -> bytes | None:
    return next((files[suffix] for suffix in _IMAGES if suffix in files), None)
