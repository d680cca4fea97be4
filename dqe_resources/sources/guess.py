"""Guesses the kind of source of a folder, a file, a pattern or a repository on the hub, from names and content.

No guess may be wrong without anyone seeing it: if two columns are possible, the user is asked which one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_resources.errors import UsageError, one_line
from dqe_resources.images import IMAGE_SUFFIXES
from dqe_resources.sources.datacomp import DatacompSource
from dqe_resources.sources.folder import METADATA_FILES, FolderSource
from dqe_resources.sources.guess_columns import Chosen, Columns, key_column, list_head, names_to_give, tar_head
from dqe_resources.sources.hf import IS_REPOSITORY, HfSource
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.local_file import FileError, LocalFile
from dqe_resources.sources.parquet import ParquetSource
from dqe_resources.sources.parts import ParquetPart
from dqe_resources.sources.protocol import Source, SourceError
from dqe_resources.sources.tars import KEY_DOTS, TAR_SUFFIXES, kind_of, split_member
from dqe_resources.sources.text_lists import TEXT_SUFFIXES
from dqe_resources.sources.urls import UrlsSource
from dqe_resources.sources.walk import find_files, walk
from dqe_resources.sources.webdataset import WebdatasetSource

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMAGE, _PARQUET, _TAR, _LIST = "image", "Parquet file", "tar", "list"
_KINDS = {_IMAGE: tuple(IMAGE_SUFFIXES), _PARQUET: (".parquet",), _TAR: TAR_SUFFIXES, _LIST: TEXT_SUFFIXES}
_SAVED = ("dataset_dict.json", "state.json")


@dataclass
class Guess:
    """A guessed source.

    Attributes:
        source: its kind.
        settings: its settings, without kind and name.
        facts: what was found, a line each.
        is_seen: whether the data itself was looked at.
    """

    source: type[Source]
    settings: dict[str, Any]
    facts: list[str] = field(default_factory=list)
    is_seen: bool = True


def guess(what: str, chosen: Chosen) -> Guess:
    """Guess what source it is.

    Args:
        what: a folder, a file, a pattern, or owner/name of a repository on the Hugging Face hub.
        chosen: what the user has said about it.

    Raises:
        UsageError: it cannot be a source, or the user must say which column is meant.
        SourceError: a file is damaged.
    """
    path = Path(os.path.abspath(Path(what).expanduser()))  # noqa: PTH100 - a link stays as it is named
    if path.is_dir():
        return _folder(path, chosen)
    try:
        files = [file for file, _ in find_files(path, ()).files]
    except SourceError as error:
        if IS_REPOSITORY.fullmatch(what):
            return _hub(what, chosen)
        raise UsageError(
            f"there is nothing at {path}: give a folder, a file, a pattern in quotes such as 'lists/*.csv', or "
            "owner/name of a dataset on the Hugging Face hub"
        ) from error
    return _files(path, files, chosen)


def source_name(what: str) -> str:
    """A name for a source, made from the letters and digits at the end of its path."""
    last = what.rstrip("/").rpartition("/")[2].partition("*")[0].partition(".")[0]
    name = re.sub("[^a-z0-9]+", "_", last.lower()).strip("_")[:64]
    return name if re.match("[a-z]", name) else f"data_{name}".strip("_")


def _folder(path: Path, chosen: Chosen) -> Guess:
    found = _by_kind(path)
    metadata = FolderSource(name="guess", path=path).metadata_files()
    if metadata and (_IMAGE in found or metadata[0] in METADATA_FILES):
        return _images_with_metadata(path, metadata, chosen)
    if any((path / name).is_file() for name in _SAVED):
        return _hugging_face({"path": str(path)}, f"{path}: a dataset that save_to_disk wrote", chosen)
    if set(found) in ({_IMAGE}, {_IMAGE, _LIST}):
        return _images(path, found[_IMAGE], found.get(_LIST, ()))
    tars = {tar.with_suffix("") for tar in found.get(_TAR, ())}
    if tars and {file.with_suffix("") for file in found.get(_PARQUET, ())} == tars:
        # As img2dataset leaves it: a Parquet file next to each tar describes its samples.
        del found[_PARQUET]
    if not found:
        raise UsageError(f"{path}: holds no images, Parquet files, tars or lists of URLs")
    if len(found) > 1:
        counts = ", ".join(_count(files, kind) for kind, files in found.items())
        raise UsageError(f"{path}: holds {counts}. Say which by a pattern in quotes, such as '{path}/*.parquet'")
    (kind,) = found
    return _files(path, [file for file, _ in find_files(path, _KINDS[kind], allow_outside=False).files], chosen)


def _by_kind(path: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for folder in walk(path, LeftOut()):
        for name in folder.files:
            kind = _kind(name)
            if kind is not None:
                found.setdefault(kind, []).append(path / folder.name / name)
    return found


def _images_with_metadata(path: Path, metadata: Sequence[str], chosen: Chosen) -> Guess:
    first = path / metadata[0]
    try:
        LocalFile(first, path).state()
    except FileError as error:
        raise SourceError(error.detail) from error
    if first.suffix == ".parquet":
        columns = Columns.of_part(ParquetPart.of(first, first.name), chosen)
    else:
        columns = Columns.of_records(str(first), list_head(first), chosen)
    url = columns.url()
    caption = columns.caption(url, "file_name")
    settings = _given(path=str(path), caption_column=caption, url_column=url)
    named = metadata[0] if len(metadata) == 1 else f"{len(metadata):,} metadata files, such as {metadata[0]}"
    return Guess(FolderSource, settings, [f"{path}: a folder of images with {named}", _said(caption=caption, url=url)])


def _images(path: Path, images: Sequence[Path], lists: Sequence[Path]) -> Guess:
    source = FolderSource(name="guess", path=path)
    captions = len(images) - sum(shard.uncaptioned for shard in source.shards())
    facts = [f"{path}: a folder of {_count(images, 'image')}, {captions:,} of them with a caption file"]
    if not captions:
        facts.append(f"no image has a caption; looked for: {source.caption_places}")
    if lists:
        facts.append(f"{lists[0].name} is not read: captions of a folder are in metadata.csv, by file_name and text")
    return Guess(FolderSource, {"path": str(path)}, facts)


def _files(path: Path, files: Sequence[Path], chosen: Chosen) -> Guess:
    kinds = Counter(_kind(file.name) for file in files)
    if len(kinds) > 1:
        raise UsageError(f"{path}: files of several kinds; give a pattern that names those of one kind")
    read = {_PARQUET: _parquet, _TAR: _tars, _LIST: _list}.get(next(iter(kinds)) or "")
    if read is None:
        hint = "name the folder of the images" if kinds[_IMAGE] else "see `dqe init --help`"
        raise UsageError(f"{files[0]}: neither a Parquet file, a tar nor a list of URLs (.csv, .tsv, .jsonl); {hint}")
    return read(path, files, chosen)


def _parquet(path: Path, files: Sequence[Path], chosen: Chosen) -> Guess:
    parts = [ParquetPart.of(file, file.name) for file in files]
    columns = Columns.of_part(parts[0], chosen)
    image, url = _image_and_url(columns)
    fact = f"{path}: {_count(files, 'Parquet file')}"
    if image is None and chosen == Chosen() and columns.are_datacomps:
        return Guess(DatacompSource, {"path": str(path)}, [f"{fact} with DataComp's columns uid, url and text"])
    caption, key = columns.caption(image, url), chosen.key or key_column(parts)
    settings = _given(path=str(path), image_column=image, url_column=url, caption_column=caption, key_column=key)
    return Guess(
        ParquetSource if image else UrlsSource, settings, [fact, _said(image=image, url=url, caption=caption, key=key)]
    )


def _list(path: Path, files: Sequence[Path], chosen: Chosen) -> Guess:
    names = names_to_give(files[0])
    columns = Columns.of_records(str(files[0]), list_head(files[0], names), chosen)
    url = columns.url()
    if url is None:
        raise UsageError(f"{files[0]}: no column of URLs. {columns.named()}. {chosen.say('url')}")
    caption = columns.caption(url)
    facts = [f"{path}: {_count(files, 'list')} of URLs", _said(url=url, caption=caption, key=chosen.key)]
    if names:
        facts.append("the first line is already a row, so the columns got names")
    settings = _given(path=str(path), url_column=url, caption_column=caption, key_column=chosen.key, column_names=names)
    return Guess(UrlsSource, settings, facts)


def _tars(path: Path, files: Sequence[Path], chosen: Chosen) -> Guess:
    names, fields = tar_head(files[0])
    by_dot = {dot: {parts[1].lower() for name in names if (parts := split_member(name, dot))} for dot in KEY_DOTS}
    key_dot = next((dot for dot, ends in by_dot.items() if "image" in map(kind_of, ends)), None)
    if key_dot is None:
        raise UsageError(f"{files[0]}: no image among its first files")
    ends = by_dot[key_dot]
    columns = Columns.of_records(f"{files[0]}, fields of .json", fields, chosen)
    url, caption = columns.url(), None
    if "txt" not in ends or chosen.caption:
        if not fields:
            raise UsageError(f"{files[0]}: no captions: neither .txt nor .json among its first files")
        caption = columns.caption(url)
    settings = _given(
        path=str(path),
        caption_field=caption,
        url_field=None if url == "url" else url,
        uid_field="uid" if columns.have_uids else None,
        key_dot=None if key_dot == "first" else key_dot,
    )
    captions = f"captions: the field {caption} of each .json" if caption else "captions: the .txt of each sample"
    facts = [f"{path}: {_count(files, 'tar')} in the WebDataset form", captions]
    if key_dot == "last":
        facts.append("names have dots, so the last one ends the name of a sample (key_dot)")
    return Guess(WebdatasetSource, settings, facts)


def _hub(repository: str, chosen: Chosen) -> Guess:
    what = f"{repository}: a dataset on the Hugging Face hub"
    try:
        return _hugging_face({"repository": repository}, what, chosen)
    except SourceError as error:
        if not isinstance(error.__cause__, ConnectionError | ImportError):
            raise
        settings = _given(
            repository=repository,
            split=chosen.split,
            image_column=chosen.image or (None if chosen.url else "image"),
            url_column=chosen.url,
            caption_column=chosen.caption or "text",
            key_column=chosen.key,
        )
        facts = [f"{what}, by its name alone: nothing was looked at", one_line(error), "check the names of the columns"]
        return Guess(HfSource, settings, facts, is_seen=False)


def _hugging_face(place: dict[str, str], what: str, chosen: Chosen) -> Guess:
    place |= _given(split=chosen.split)
    # Which columns there are is not known yet: the source is asked for its tables alone.
    parts = HfSource.model_validate({"name": "guess", "image_column": "image", **place}).parts()
    columns = Columns.of_part(parts[0], chosen)
    image, url = _image_and_url(columns)
    caption = columns.caption(image, url)
    settings = place | _given(image_column=image, url_column=url, caption_column=caption, key_column=chosen.key)
    return Guess(HfSource, settings, [what, _said(image=image, url=url, caption=caption, key=chosen.key)])


def _image_and_url(columns: Columns) -> tuple[str | None, str | None]:
    image, url = columns.image(), columns.url()
    if image is None and url is None:
        raise UsageError(
            f"{columns.where}: no column of images or of URLs. {columns.named()}. "
            f"{columns.chosen.say('image')} or {columns.chosen.option.format('url', 'NAME')}"
        )
    return image, url


def _given(**settings: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def _said(**columns: str | None) -> str:
    return "columns: " + ", ".join(f"{what} in {column}" for what, column in columns.items() if column)


def _kind(name: str) -> str | None:
    lower = name.lower()
    return next((kind for kind, ends in _KINDS.items() if lower.endswith(ends)), None)


def _count(files: Sequence[Path], what: str) -> str:
    return f"{len(files):,} {what}{'s' if len(files) > 1 else ''}"
