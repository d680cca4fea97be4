"""The log of decisions: a Parquet file for each import, numbered, only ever added.

It lies in the data folder beside the store, since nothing can make it again: no run, no ``sync`` and no ``--force``
writes to it. A later file has precedence over an earlier one, whatever clocks say. To take an import back adds a file
too. Only what a takedown asks for is blotted out of files that are there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dqe_assets.core.schema import UID, Column, table_schema
from dqe_resources.cache import data_directory
from dqe_resources.errors import DataQualityError, UsageError, one_line
from dqe_resources.locks import LOCK, LockError, held
from dqe_resources.store import remove_abandoned, replace_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

Decision = Literal["drop", "keep", "tag", "caption", "none"]
"""What is decided of a sample; none takes all earlier decisions back."""

DECISIONS = table_schema(
    [
        UID,
        Column("shard", pa.string(), "shard that the sample was in", nullable=False),
        Column("decision", pa.string(), "drop, keep, tag, caption, or none: all earlier ones are taken back"),
        Column("value", pa.string(), "the tag, or the caption; null once it was taken down"),
        Column("drawn_by", pa.string(), "how dqe review sample drew it; null if it did not"),
        Column("weight", pa.float64(), "samples that it stands for, if it was drawn at random"),
    ]
)
"""Schema of a file of the log."""

_ABOUT = b"dqe_review"
_PATTERN = "[0-9]*.parquet"


class ReviewLogError(DataQualityError):
    """The log cannot be read: says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the log: an import, or that one was taken back.

    Attributes:
        number: its place in the log, from 1.
        path: the file.
        at: when it was added, UTC.
        by: who decided.
        why: the reason that was given; empty if none was.
        source: name of the file that was imported.
        said: what was decided, as ``--as`` takes it.
        rows: decisions in it.
        shards: how many of them are about samples of each shard.
        undoes: number of the import that it takes back; None for an import.
        is_undone: whether a later entry takes it back.
    """

    number: int
    path: Path
    at: datetime
    by: str
    why: str
    source: str
    said: str
    rows: int
    shards: Mapping[str, int] = field(default_factory=dict)
    undoes: int | None = None
    is_undone: bool = False


def log_folder() -> Path:
    """The folder of the log, in the data folder."""
    return data_directory() / "reviews"


def append(
    rows: pa.Table, *, by: str, why: str = "", source: str = "", said: str = "", undoes: int | None = None
) -> Entry:
    """Add an entry: it is there whole or not at all, and behind all that are there, whoever adds at the same time.

    Args:
        rows: decisions, ``DECISIONS``; of what takes an import back, the rows of that import.
        by: who decided.
        why: the reason.
        source: name of the file that was imported.
        said: what was decided, in words.
        undoes: number of the import that it takes back.

    Raises:
        LockError: the folder cannot be written.
        StorageError: the disk is full, or the like.
    """
    folder, table = log_folder(), rows.select(DECISIONS.names).cast(DECISIONS)
    counts = pc.value_counts(table["shard"].combine_chunks()).to_pylist()
    about = {
        "at": datetime.now(UTC).isoformat(),
        "by": by,
        "why": why,
        "source": source,
        "said": said,
        "rows": len(table),
        "shards": {one["values"]: one["counts"] for one in sorted(counts, key=lambda one: str(one["values"]))},
        "undoes": undoes,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / LOCK):
            remove_abandoned(folder, ".*.tmp")
            number = max((int(path.stem) for path in folder.glob(_PATTERN)), default=0) + 1
            path = folder / f"{number:08d}.parquet"
            _write(path, table, about)
    except OSError as error:
        raise LockError(f"{folder}: cannot be written ({error.strerror or error}); nothing was decided") from error
    return next(one for one in entries() if one.number == number)


def undo(number: int, *, by: str, why: str = "") -> Entry:
    """Take an import back: what held before it holds again. To take back that it was taken back works likewise.

    Raises:
        UsageError: there is no such entry, or it is taken back already.
        ReviewLogError: the log cannot be read.
    """
    known = {one.number: one for one in entries()}
    if number not in known:
        there = f"there are 1 to {max(known)}" if known else "the log is empty"
        raise UsageError(f"there is no import {number}: {there}; dqe review list shows them")
    if known[number].is_undone:
        raise UsageError(f"import {number} is taken back already; dqe review list shows by what")
    return append(_rows(known[number]), by=by, why=why, said=f"undo {number}", undoes=number)


def entries() -> list[Entry]:
    """All entries, in order.

    Raises:
        ReviewLogError: a file cannot be read.
    """
    folder = log_folder()
    try:
        found = sorted(folder.glob(_PATTERN))
        states = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in found)
    except OSError as error:
        raise ReviewLogError(f"{folder}: cannot be read ({one_line(error)})") from error
    return list(_entries(states))


def missing_numbers() -> list[int]:
    """Numbers of entries that are not there although later ones are: somebody has removed their files."""
    numbers = {one.number for one in entries()}
    return sorted(set(range(1, max(numbers, default=0))) - numbers)


def has_captions() -> bool:
    """Whether people have written or chosen captions, and not taken all of them back."""
    return any(one.said.startswith("caption") and not one.is_undone for one in entries())


def state_of(shard: str) -> list[Any]:
    """What changes when a decision about a sample of a shard is added or taken back, and else never."""
    return [[one.number, one.at.isoformat()] for one in entries() if shard in one.shards]


def decisions(uids: pa.ChunkedArray | pa.Array | None = None) -> pa.Table:
    """All decisions, or those about some samples, in the order in which they were made.

    Args:
        uids: the samples; None for all.

    Returns:
        ``DECISIONS`` with ``number``, ``at``, ``by`` and ``why`` of the entry, and ``is_undone``. What takes an import
        back has no rows.
    """
    found = [_ALL.empty_table()]
    for one in entries():
        if one.undoes is not None:
            continue
        rows = _rows(one)
        if uids is not None:
            rows = rows.filter(pc.is_in(rows["uid"], value_set=uids))
        same = {"number": one.number, "at": one.at, "by": one.by, "why": one.why, "is_undone": one.is_undone}
        for name, value in same.items():
            rows = rows.append_column(name, pa.array([value] * len(rows), _ALL.field(name).type))
        found.append(rows.cast(_ALL))
    return pa.concat_tables(found)


def forget(uids: Collection[str]) -> int:
    """Blot out the tags and captions that were given to samples which are taken down; returns how many.

    That a person has decided, what and when stays.

    Raises:
        ReviewLogError, LockError, StorageError: the log cannot be read or written.
    """
    wanted, count = pa.array(sorted(uids), pa.string()), 0
    for one, rows, said in _said_of(wanted):
        blotted = pc.if_else(said, pa.scalar(None, pa.string()), rows["value"])
        at = rows.column_names.index("value")
        with held(log_folder() / LOCK):
            about = json.loads(pq.read_metadata(one.path).metadata[_ABOUT])
            _write(one.path, rows.set_column(at, DECISIONS.field("value"), blotted), about)
        count += pc.sum(said).as_py()
    return count


def places_of(uids: Collection[str]) -> list[tuple[Path, int]]:
    """The files that have tags or captions of some samples, and how many."""
    return [(one.path, pc.sum(said).as_py()) for one, _, said in _said_of(pa.array(sorted(uids), pa.string()))]


_ALL = pa.schema(
    [
        *DECISIONS,
        ("number", pa.int64()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("by", pa.string()),
        ("why", pa.string()),
        ("is_undone", pa.bool_()),
    ]
)


def _said_of(uids: pa.Array) -> Iterator[tuple[Entry, pa.Table, pa.ChunkedArray]]:
    """The entries that have texts of some samples: their rows, and which have."""
    for one in entries() if len(uids) else ():
        rows = _rows(one)
        said = pc.and_(pc.is_in(rows["uid"], value_set=uids), pc.is_valid(rows["value"]))
        if pc.any(said).as_py():
            yield one, rows, said


def _write(path: Path, table: pa.Table, about: Mapping[str, Any]) -> None:
    described = table.replace_schema_metadata({_ABOUT: json.dumps(about)})
    replace_file(path, lambda target: pq.write_table(described, target, compression="zstd", write_page_checksum=True))


def _rows(entry: Entry) -> pa.Table:
    try:
        return pq.read_table(entry.path, page_checksum_verification=True).cast(DECISIONS)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(entry.path, error) from error


@lru_cache(maxsize=4)
def _entries(states: tuple[tuple[Path, int, int], ...]) -> tuple[Entry, ...]:
    found = []
    for path, _, _ in states:
        try:
            about = json.loads((pq.read_metadata(path).metadata or {})[_ABOUT])
            found.append(Entry(int(path.stem), path, datetime.fromisoformat(about.pop("at")), **about))
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
    undone: set[int] = set()
    for one in reversed(found):
        if one.undoes is not None and one.number not in undone:
            undone.add(one.undoes)
    return tuple(replace(one, is_undone=one.number in undone) for one in found)


def _damaged(path: Path, error: Exception) -> ReviewLogError:
    return ReviewLogError(
        f"{path}: damaged, or no decisions of dqe review ({one_line(error)}). It holds decisions of people, which "
        "nothing can make again: put it back from a copy; without one, move it away, and what it decided is lost"
    )
