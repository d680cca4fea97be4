"""Guesses which column of a table holds the image, its URL, the caption or the key, from names and first rows."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_resources.errors import UsageError, one_line
from dqe_resources.images import IMAGE_SUFFIXES, ImageError, opened
from dqe_resources.sources.image_tables import is_image
from dqe_resources.sources.lines import Lines
from dqe_resources.sources.parts import Part, is_texts, records_of
from dqe_resources.sources.tars import opened_tar
from dqe_resources.sources.texts import captions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_HEAD = 50
"""Rows that are looked at."""

_LONGEST_JSON = 1 << 20

_MOST_KEYS = 1_000_000
"""Rows of which a key column is read, to see whether it names each of them."""

_CAPTION_NAMES = ("caption", "captions", "text", "txt", "description", "alt_text", "alt", "sentence", "title", "prompt")
_URL_NAMES = ("url", "image_url", "img_url", "image_link", "link")
_IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
_KEY_NAMES = ("key", "__key__", "id", "image_id", "sample_id", "uid", "image_name", "file_name", "filename")
_UID = re.compile("[0-9a-fA-F]{32}")
_URL = re.compile(r"\s*https?://\S+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the user has said about the data, instead of a guess.

    Attributes:
        image: column of the image.
        url: column of the image's URL.
        caption: column of the caption; in tars, the field of the .json.
        key: column that names a row for good.
        split: of a Hugging Face dataset.
        option: how one says it, of what and which column.
    """

    image: str | None = None
    url: str | None = None
    caption: str | None = None
    key: str | None = None
    split: str | None = None
    option: str = field(default="--{}-column {}", compare=False)

    def say(self, what: str) -> str:
        """What a person is asked to say, so that nothing need be guessed."""
        return f"Say {self.option.format(what, 'NAME')}"


@dataclass(frozen=True)
class Columns:
    """The columns of a table, and what the user has said about them.

    Attributes:
        where: the table, for messages.
        values: the first values of each column; none if they were not read.
        chosen: by a person.
        images: columns of images, or of paths of images.
        texts: columns of text.
    """

    where: str
    values: dict[str, list[Any]]
    chosen: Chosen
    images: list[str]
    texts: list[str]

    @classmethod
    def of_part(cls, part: Part, chosen: Chosen) -> Columns:
        """Those of a table. Where it is not on this machine, only its texts are read.

        Raises:
            SourceError: it is damaged.
        """
        schema = part.schema
        # A name that two columns have means neither.
        schema = pa.schema([field for field in schema if schema.names.count(field.name) == 1])
        texts = [name for name in schema.names if is_texts(schema.field(name).type)]
        values: dict[str, list[Any]] = {name: [] for name in schema.names}
        wanted = texts if part.folder is None else schema.names
        for batch in part.read(wanted, 0, min(_HEAD, part.rows)):
            for record in records_of(batch, schema.names):
                for name, value in record.items():
                    values[name].append(value)
        images = []
        for name in schema.names:
            if is_image(schema.field(name).type):
                is_unread = not values[name] and name not in texts
                if is_unread or _most(values[name], lambda value: _may_be_image(value, part.folder), 0.5):
                    images.append(name)
        return cls(part.location, values, chosen, images, texts)

    @classmethod
    def of_records(cls, where: str, records: Sequence[dict[str, Any]], chosen: Chosen) -> Columns:
        """Those of the rows of a text file."""
        values: dict[str, list[Any]] = {}
        for record in records:
            for name, value in record.items():
                values.setdefault(name, []).append(value)
        texts = [name for name in values if all(captions_of(value) is not None for value in values[name])]
        return cls(where, values, chosen, [], texts)

    @property
    def are_datacomps(self) -> bool:
        """Whether they are those of DataComp's metadata, with its uids."""
        return {"url", "text"} <= set(self.texts) and self.have_uids

    @property
    def have_uids(self) -> bool:
        """Whether there is a column of uids, 32 hex digits each."""
        return _most(self.values.get("uid", ()), lambda value: _UID.fullmatch(str(value)), 1)

    def url(self) -> str | None:
        """The column of URLs."""
        urls = [name for name in self.texts if _most(self.values[name], _is_url, 0.9)]
        return self._one("url", urls, _URL_NAMES)

    def image(self) -> str | None:
        """The column of images."""
        return self._one("image", self.images, _IMAGE_NAMES)

    def caption(self, *others: str | None) -> str:
        """The column of captions, which is none of some others.

        Raises:
            UsageError: there is none, or it cannot be told which.
        """
        found = self.likely_caption(*others)
        if found is None:
            raise UsageError(
                f"{self.where}: which column holds the caption? {self.named()}. {self.chosen.say('caption')}"
            )
        return found

    def likely_caption(self, *others: str | None) -> str | None:
        """The same, or None if there is none; raises if it cannot be told which."""
        texts = [name for name in self.texts if name not in {*others, *self.images, self.chosen.key}]
        named = [name for name in texts if name.lower() in _CAPTION_NAMES]
        sentences = [name for name in texts if _most(self.values[name], _is_sentence, 0.5)]
        return self._one("caption", named or sentences, _CAPTION_NAMES)

    def named(self) -> str:
        """What there is, for a message."""
        return f"There are: {', '.join(self.values) or 'none'}"

    def _one(self, what: str, candidates: Sequence[str], names: Sequence[str]) -> str | None:
        """The column that a person chose, or the only candidate, or the one with the likeliest name."""
        chosen: str | None = getattr(self.chosen, what)
        if chosen is not None and chosen not in self.values:
            option = self.chosen.option.format(what, chosen)
            raise UsageError(f"{self.where}: {option}: no such column. {self.named()}")
        if chosen is not None or not candidates:
            return chosen
        likely = [column for name in names for column in candidates if column.lower() == name]
        if len(candidates) > 1 and not likely:
            raise UsageError(
                f"{self.where}: which column holds the {what}? It could be: {', '.join(candidates)}. "
                f"{self.chosen.say(what)}"
            )
        return (likely or candidates)[0]


def key_column(parts: Sequence[Part]) -> str | None:
    """A column that by its name names rows, and that does so: no value is missing or comes twice."""
    rows = sum(part.rows for part in parts)
    columns = [column for name in _KEY_NAMES for column in parts[0].schema.names if column.lower() == name]
    for column in columns if rows <= _MOST_KEYS else ():
        if all(column in part.schema.names for part in parts):
            batches = (batch for part in parts for batch in part.read([column], 0, part.rows))
            values = {value for batch in batches for value in batch.column(0).to_pylist()}
            if len(values) == rows and None not in values:
                return column
    return None


def names_to_give(path: Path) -> tuple[str, ...] | None:
    """Names for the columns of a list whose first line is already a row, as in Conceptual Captions; else None."""
    first = [] if _is_json(path) else next(_csv_rows(path), [])
    if not any(map(_URL.fullmatch, first)):
        return None
    names = [f"column_{number}" for number in range(1, len(first) + 1)]
    names[next(place for place, cell in enumerate(first) if _URL.fullmatch(cell))] = "url"
    return tuple(names)


def list_head(path: Path, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The first rows of a CSV, TSV or JSON Lines file; lines that cannot be read are left out.

    Args:
        path: the file.
        names: of the columns; None if the first line gives them.

    Raises:
        UsageError: it has none.
        SourceError: it is not in UTF-8, or damaged.
    """
    if _is_json(path):
        records = list(islice(_json_objects(path), _HEAD))
    else:
        rows = _csv_rows(path)
        header = names or next(rows, [])
        records = [dict(zip(header, row, strict=True)) for row in islice(rows, _HEAD) if len(row) == len(header)]
    if not records:
        raise UsageError(f"{path}: holds no rows")
    return records


def tar_head(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of a tar's first members, and what its first .json files say.

    Raises:
        UsageError: it is no tar.
        SourceError: it cannot be unpacked.
    """
    names: list[str] = []
    fields = []
    try:
        with opened_tar(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in islice(tar, 4 * _HEAD):
                names.append(member.name)
                if member.name.lower().endswith(".json") and member.isreg() and (content := tar.extractfile(member)):
                    fields.append(json.loads(content.read(_LONGEST_JSON)))
    except (tarfile.TarError, OSError, ValueError, EOFError, RecursionError) as error:
        # Of a tar that is torn further back, the source says where.
        if not names:
            raise UsageError(f"{path}: not a tar ({one_line(error)})") from error
    return names, [one for one in fields if isinstance(one, dict)]


def _is_json(path: Path) -> bool:
    return bool({".jsonl", ".ndjson"} & {suffix.lower() for suffix in path.suffixes})


def _json_objects(path: Path) -> Iterator[dict[str, Any]]:
    with closing(Lines(path, newline="\n")) as lines:
        for line in lines:
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def _csv_rows(path: Path) -> Iterator[list[str]]:
    is_csv = ".csv" in {suffix.lower() for suffix in path.suffixes}
    with closing(Lines(path, newline="")) as lines, suppress(csv.Error):
        if is_csv:
            yield from filter(None, csv.reader(lines))
        else:
            yield from filter(None, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _most(values: Iterable[Any], test: Callable[[Any], Any], share: float) -> bool:
    """Whether that share of the values that there are passes, and there are some."""
    known = [value for value in values if value is not None and value != ""]
    return bool(known) and sum(bool(test(value)) for value in known) >= share * len(known)


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and _URL.fullmatch(value) is not None


def _is_sentence(value: Any) -> bool:
    """Whether a caption, or the first of several, has words."""
    first, _ = captions_of(value) or (None, None)
    return first is not None and len(first.split()) > 1


def _may_be_image(value: Any, folder: Path | None) -> bool:
    """Whether a value is an image, or the path of one that is there."""
    data = value.get("bytes") if isinstance(value, dict) else value
    name = value.get("path") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        try:
            with opened(data):
                return True
        except ImageError:
            return False
    if not isinstance(name, str) or folder is None:
        return False
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and (folder / name).is_file()
