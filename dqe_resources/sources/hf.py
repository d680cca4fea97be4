"""Hugging Face datasets: folders that ``save_to_disk`` wrote, and repositories of Parquet files, local or hub."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, model_validator

from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import existing_path
from dqe_resources.errors import one_line
from dqe_resources.sources.image_tables import ImageColumns, ImageTables, ImageTableSource
from dqe_resources.sources.listing import Listing
from dqe_resources.sources.local_file import FileError, LocalFile
from dqe_resources.sources.parts import ParquetPart, Part, check_columns, may_be_text, may_be_texts
from dqe_resources.sources.protocol import Shard, SourceError
from dqe_resources.sources.text_lists import Columns
from dqe_resources.sources.walk import require_there

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    import pyarrow as pa

    from dqe_resources.sources.rows import SourceRow

IS_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The form of a repository's name, owner/name."""

_BATCH_ROWS = 256
_MOST_BYTES = 1 << 24


def _local_folder(path: Path) -> Path:
    folder = in_data_directory(path)
    if IS_REPOSITORY.fullmatch(str(path)) and not folder.exists():
        msg = f"there is nothing at {folder}: a dataset on the Hugging Face hub is named by repository: {path}"
        raise ValueError(msg)
    return existing_path(path)


class HfSource(ImageTableSource):
    """A dataset with an Image column, or with a column of URLs.

    ``path`` is a folder that ``save_to_disk`` wrote, or a clone of a repository. ``repository`` is one on the hub, at a
    ``revision``; with a commit, shards never change. Nothing has to be downloaded before: only the row groups that are
    needed are fetched from the Parquet files. Of most repositories in another format the hub keeps a copy in Parquet,
    at the revision ``refs/convert/parquet``.

    Rows are named as with ``parquet``, or as with ``urls`` if there is no image column.

    Attributes:
        path: Local folder: written by ``save_to_disk``, or a clone of a repository.
        repository: Repository on the hub, owner/name, in place of path.
        revision: Branch, tag or commit of the repository.
        configuration: Configuration (subset) of the dataset; by default its default one.
        split: Split of the dataset.
        image_column: Column of the image. Give this, url_column, or both.
        url_column: Column of the image's URL.
        caption_column: Column of the caption.
        key_column: Column that names a row for good; by default a row is named by its content.
    """

    kind: ClassVar[str] = "hf"
    path: Annotated[Path, AfterValidator(_local_folder)] | None = None
    repository: str | None = None
    revision: str = "main"
    configuration: str | None = None
    split: str = "train"
    image_column: str | None = None
    url_column: str | None = None
    caption_column: str = "text"
    key_column: str | None = None

    @model_validator(mode="after")
    def _names_what_to_read(self) -> Self:
        if (self.path is None) == (self.repository is None):
            msg = "give path (a local folder) or repository (owner/name on the hub), one of the two"
            raise ValueError(msg)
        if self.path is not None and self.path.is_file():
            msg = f"path {self.path} is a file; the kind hf needs a folder (for a Parquet file: kind parquet)"
            raise ValueError(msg)
        if self.image_column is None and self.url_column is None:
            msg = "give image_column, url_column, or both"
            raise ValueError(msg)
        if self.image_column is None and self.uid_column is not None:
            msg = "uid_column needs image_column"
            raise ValueError(msg)
        return self

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """As ``Source.shards``."""
        return self._tables().shards(self.shard_size, first)

    def rows(self, index: int) -> Iterator[SourceRow]:
        """As ``Source.rows``."""
        return self._tables().rows(index * self.shard_size, self.shard_size)

    @property
    def caption_places(self) -> str:
        """The column of captions."""
        return f"the column {self.caption_column} (caption_column)"

    def _tables(self) -> ImageTables | Listing:
        parts = self.parts()
        if self.image_column is not None:
            named = ImageColumns(
                self.image_column,
                self.caption_column,
                self.url_column,
                self.key_column,
                self.kept_columns,
                self.uid_column,
            )
            return ImageTables(self.name, parts, named, self.inside(self.path) if self.path else None)
        columns = Columns(self.url_column or "", self.caption_column, self.key_column, self.kept_columns)
        for part in parts:
            check_columns(part, dict.fromkeys(columns.names))
            check_columns(part, dict.fromkeys([self.url_column or ""], may_be_text), "text")
            check_columns(part, {columns.caption: may_be_texts}, "text, or a list of texts")
        return Listing(self.name, parts, columns)

    def parts(self) -> Sequence[Part]:
        """As ``ImageTableSource.parts``: those of the split.

        Raises:
            SourceError: they cannot be found, or are no Parquet files.
        """
        if self.path is None:
            return _hub_parts(self.repository or "", self.revision, self.configuration, self.split)
        try:
            return _local_parts(self.path, self.inside(self.path), self.configuration, self.split)
        except FileError as error:
            raise SourceError(error.detail) from error


def _local_parts(path: Path, inside: Path | None, configuration: str | None, split: str) -> Sequence[Part]:
    require_there(path)
    if (path / "dataset_dict.json").is_file():
        splits = _json(path / "dataset_dict.json", inside).get("splits", ())
        if split not in splits:
            raise SourceError(f"{path}: no split '{split}'; there are: {', '.join(splits)}")
        return [DatasetPart.of(path / split, inside)]
    if (path / "state.json").is_file():
        return [DatasetPart.of(path, inside)]
    files = [Path(file) for file in _data_files(str(path), None, configuration, split)]
    for file in files:
        LocalFile(file, inside).state()
    return [ParquetPart.of(file, os.path.relpath(file, path)) for file in files]


def _json(path: Path, inside: Path | None) -> dict[str, Any]:
    try:
        found = json.loads(LocalFile(path, inside).read(_MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not JSON ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


@dataclass(frozen=True)
class DatasetPart:
    """A dataset that ``save_to_disk`` wrote, mapped into memory."""

    location: str
    state: tuple[Any, ...]
    name: str = ""

    @classmethod
    def of(cls, folder: Path, inside: Path | None) -> DatasetPart:
        """The dataset in a folder.

        Raises:
            FileError: a file of it is refused: it leads out of the folder ``inside``.
        """
        named = _json(folder / "state.json", inside).get("_data_files", ())
        try:
            files = {folder / one["filename"] for one in named}
        except (TypeError, KeyError) as error:
            raise SourceError(f"{folder / 'state.json'}: not what save_to_disk writes") from error
        files.update(path for path in folder.iterdir() if path.is_file())
        states = [(path.name, *LocalFile(path, inside).state()) for path in sorted(files)]
        return cls(str(folder), tuple(states))

    @property
    def rows(self) -> int:
        """As ``Part.rows``."""
        return len(_saved_dataset(self))

    @property
    def schema(self) -> pa.Schema:
        """As ``Part.schema``."""
        return _saved_dataset(self).features.arrow_schema

    @property
    def folder(self) -> Path:
        """As ``Part.folder``."""
        return Path(self.location)

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[pa.RecordBatch]:
        """As ``Part.read``."""
        selected = _saved_dataset(self).select_columns(list(columns)).with_format("arrow")
        for start in range(first, first + count, _BATCH_ROWS):
            table = selected[start : min(start + _BATCH_ROWS, first + count)]
            yield from table.select(list(columns)).to_batches()


@lru_cache(maxsize=8)
def _saved_dataset(part: DatasetPart) -> Any:
    try:
        return _datasets().load_from_disk(part.location)
    except Exception as error:
        # The library raises whatever Arrow, JSON or the file system do.
        raise SourceError(f"{part.location}: not what save_to_disk writes ({_first_line(error)})") from error


@lru_cache(maxsize=8)
def _hub_parts(repository: str, revision: str, configuration: str | None, split: str) -> Sequence[Part]:
    """The Parquet files of a repository, at the commit that the revision is when it is first asked for."""
    from huggingface_hub import HfFileSystem

    filesystem = HfFileSystem()
    files = _data_files(repository, revision, configuration, split)
    names = [file.partition("@")[2].partition("/")[2] for file in files]
    return [ParquetPart(name, file, (file,), None, filesystem) for name, file in zip(names, files, strict=True)]


def _data_files(repository: str, revision: str | None, configuration: str | None, split: str) -> list[str]:
    """The Parquet files of a split, as ``datasets`` finds them: paths, or URLs that name the commit."""
    where = f"Hugging Face repository {repository}" + (f" at revision {revision}" if revision else "")
    try:
        builder = _datasets().load_dataset_builder(repository, configuration, revision=revision)
    except (ConnectionError, FileNotFoundError) as error:
        fix = ""
        if revision is not None:
            fix = (
                f"; where there is a network, run: hf download {repository} --repo-type dataset --revision {revision} "
                "--local-dir FOLDER, and give path: FOLDER in the place of repository"
            )
        raise SourceError(f"{where} is not available ({_first_line(error)}){fix}") from error
    except (ValueError, OSError) as error:
        raise SourceError(f"{where}: {_first_line(error)}") from error
    files = builder.config.data_files or {}
    if split not in files:
        raise SourceError(f"{where}: no split '{split}'; there are: {', '.join(files)}")
    found = [str(file) for file in files[split]]
    other = next((file for file in found if not file.lower().endswith(".parquet")), None)
    if other is not None:
        raise SourceError(
            f"{where}: {other} is no Parquet file; try the revision refs/convert/parquet, or "
            "download the repository and use the kind webdataset, folder or urls"
        )
    return found


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SourceError("the kind hf needs the package datasets: pip install '.[hf]'") from error
    return datasets


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
