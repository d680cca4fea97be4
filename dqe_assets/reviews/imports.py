"""Files with decisions: a table with uids, such as ``dqe view`` exports, or a list with a uid in each line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import UID
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.reviews.log import DECISIONS, Decision
from dqe_assets.reviews.tables import DROP, KEEP
from dqe_resources.errors import UsageError, one_line
from dqe_resources.keyed_table import TABLE_SUFFIXES, column_batches, column_types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dqe_resources.store import Store

SUFFIXES = (".txt", ".json", *TABLE_SUFFIXES)
REVIEW, CAPTION = "review", "caption"
DRAWN_BY, WEIGHT = "drawn_by", "weight"

_NAMED = 5
_LONGEST_TAG, _LONGEST_CAPTION = 60, 20_000
_ROW = "file_row"


class ReviewError(UsageError):
    """A file cannot be taken as decisions: says the file, the row and what to do."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is decided of the samples of a file.

    Attributes:
        decision: of all of them; None where the column ``review`` says it of each.
        value: the tag.
        column: the column that says what is decided of each row: of captions, or ``review``.
    """

    decision: Decision | None
    value: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        if self.decision is None:
            return f"column {self.column}"
        detail = self.value if self.value is not None else self.column if self.column != CAPTION else None
        return self.decision + (f":{detail}" if detail else "")


def parse_said(text: str | None) -> Said:
    """What ``--as`` says; without it, that the column ``review`` does.

    Raises:
        ReviewError: it is none of what is allowed.
    """
    if text is None:
        return Said(None, column=REVIEW)
    kind, _, rest = text.partition(":")
    if kind == "tag":
        tag = rest.strip()
        if not 0 < len(tag) <= _LONGEST_TAG or not tag.isprintable():
            raise ReviewError(f"--as {text}: a tag is a text of 1 to {_LONGEST_TAG} printable characters: tag:blurry")
        return Said("tag", value=tag)
    if kind == CAPTION:
        return Said("caption", column=rest or CAPTION)
    if text not in get_args(Decision):
        raise ReviewError(f"--as {text}: expected drop, keep, tag:NAME, caption, caption:COLUMN, or none")
    return Said(text)  # type: ignore[arg-type] # it is one of them


def read_decisions(path: Path, said: Said) -> tuple[pa.Table, int]:
    """The decisions in a file.

    Args:
        path: .txt with a uid in each line (lines that begin with # are left out), .json (a list of objects, or of
            uids), or one of ``TABLE_SUFFIXES`` with the column ``uid``. The columns ``drawn_by`` and ``weight``, as
            ``dqe review sample`` writes them, are taken over.
        said: what is decided.

    Returns:
        ``DECISIONS`` without ``shard``, a row for each sample, and ``file_row``, from 1; and how many rows of the file
        decide nothing, as their column ``review`` is empty.

    Raises:
        ReviewError: it cannot be read, lacks a column, has a row without a uid or caption, or contradicts itself.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ReviewError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ReviewError(f"{path}: there is no such file; name one that dqe view or dqe review sample has written")
    try:
        table = _READERS.get(path.suffix.lower(), _of_table)(path, said)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ReviewError(f"{path}: cannot be read as {path.suffix} ({one_line(error)})") from error
    uids = pc.utf8_lower(pc.utf8_trim_whitespace(table["uid"]))
    _require(path, table, pc.and_(pc.is_valid(uids), pc.not_equal(pc.fill_null(uids, ""), "")), "has no uid")
    is_weight = pc.and_(pc.greater(table[WEIGHT], 0), pc.is_finite(table[WEIGHT]))
    _require(path, table, pc.fill_null(is_weight, fill_value=True), f"column {WEIGHT} is no number above 0")
    table = table.set_column(table.column_names.index("uid"), UID.field(), uids.cast(pa.string()))
    decided = _decided(path, table, said)
    return _each_once(path, decided), len(table) - len(decided)


def located(store: Store, decided: pa.Table) -> tuple[pa.Table, list[str], list[str]]:
    """Where the samples are that something is decided about.

    Memory holds the uids of the file, and those of a shard.

    Args:
        store: the store.
        decided: what ``read_decisions`` gives.

    Returns:
        ``DECISIONS``, for the samples that there are; the uids that no sample has; and those that are taken down.
    """
    place = {uid: row for row, uid in enumerate(decided["uid"].to_pylist())}
    shards: list[str | None] = [None] * len(decided)
    gone: list[str] = []
    for shard in sorted(store.partitions("raw_samples")):
        if store.get("raw_samples", shard) is None:
            continue
        rows = store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "reason"])
        for uid, reason in zip(rows["uid"].to_pylist(), rows["reason"].to_pylist(), strict=True):
            if uid in place:
                shards[place[uid]] = shard
                if reason == TAKEN_DOWN:
                    gone.append(uid)
    found = decided.append_column(DECISIONS.field("shard").with_nullable(True), pa.array(shards, pa.string()))
    is_known = pc.is_valid(found["shard"])
    unknown = found["uid"].filter(pc.invert(is_known)).to_pylist()
    known = found.filter(pc.and_(is_known, pc.invert(pc.is_in(found["uid"], value_set=pa.array(gone, pa.string())))))
    return known.select(DECISIONS.names).cast(DECISIONS), unknown, gone


def named(decided: pa.Table, uids: Sequence[str]) -> str:
    """The first of some uids of a file, with their rows, in words."""
    rows = dict(zip(decided["uid"].to_pylist(), decided[_ROW].to_pylist(), strict=True))
    first = ", ".join(f"{uid:.80} (row {rows[uid]:,})" for uid in uids[:_NAMED])
    return first + (f" and {len(uids) - _NAMED:,} more" if len(uids) > _NAMED else "")


def _decided(path: Path, table: pa.Table, said: Said) -> pa.Table:
    """The rows that decide something, with what."""
    decision = pa.array([said.decision] * len(table), pa.string())
    value = pa.array([said.value] * len(table), pa.string())
    if said.column is not None:
        texts = pc.utf8_trim_whitespace(table[said.column])
        is_empty = pc.equal(pc.fill_null(texts, ""), "")
        if said.decision is None:
            table, texts = (one.filter(pc.invert(is_empty)) for one in (table, texts))
            decision, value = pc.utf8_lower(texts), pa.nulls(len(table), pa.string())
            is_known = pc.is_in(decision, pa.array([DROP, KEEP]))
            _require(path, table, is_known, f"column {said.column} is neither drop nor keep nor empty")
        else:
            empty = f"column {said.column} is empty; to take a caption back: --as none"
            _require(path, table, pc.invert(is_empty), empty)
            is_short = pc.less_equal(pc.utf8_length(texts), _LONGEST_CAPTION)
            _require(path, table, is_short, f"the caption has more than {_LONGEST_CAPTION:,} characters")
            value = texts
    return pa.table(
        {
            "uid": table["uid"],
            "decision": decision,
            "value": value,
            DRAWN_BY: table[DRAWN_BY],
            WEIGHT: table[WEIGHT],
            _ROW: table[_ROW],
        }
    )


def _each_once(path: Path, decided: pa.Table) -> pa.Table:
    """Each sample once; refused where a file says two things of one."""
    seen: dict[str, tuple[Any, int]] = {}
    first = []
    for at, row in enumerate(decided.select(["uid", "decision", "value", _ROW]).to_pylist()):
        says, place = seen.setdefault(row["uid"], ((row["decision"], row["value"]), row[_ROW]))
        if place == row[_ROW]:
            first.append(at)
        elif says != (row["decision"], row["value"]):
            raise ReviewError(
                f"{path}: rows {place:,} and {row[_ROW]:,} say different things of {row['uid']}; leave one of them"
            )
    return decided.take(pa.array(first, pa.int64()))


def _require(path: Path, table: pa.Table, holds: pa.ChunkedArray | pa.Array, why: str) -> None:
    """Refuse a file of which some rows are wrong, naming the first of them."""
    wrong = table[_ROW].filter(pc.invert(holds)).to_pylist()
    if wrong:
        more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise ReviewError(f"{path}, row {wrong[0]:,}{more}: {why}")


def _with_rows(columns: dict[str, pa.Array | pa.ChunkedArray], rows: Sequence[int]) -> pa.Table:
    """A table of some columns, with those that are not there null, and the rows' numbers."""
    types = {"uid": pa.string(), DRAWN_BY: pa.string(), WEIGHT: pa.float64()}
    missing = {name: pa.nulls(len(rows), kind) for name, kind in types.items() if name not in columns}
    return pa.table({**columns, **missing, _ROW: pa.array(rows, pa.int64())})


def _of_lines(path: Path, said: Said) -> pa.Table:
    if said.column is not None:
        raise ReviewError(
            f"{path}: a list of uids has no column {said.column}; give a table, or say what they are with --as"
        )
    with path.open(encoding="utf-8-sig") as file:
        lines = [(number, line.strip()) for number, line in enumerate(file, 1)]
    found = [(number, text) for number, text in lines if text and not text.startswith("#")]
    return _with_rows({"uid": pa.array([text for _, text in found], pa.string())}, [number for number, _ in found])


def _of_json(path: Path, said: Said) -> pa.Table:
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(found, list):
        raise ReviewError(f"{path}: expected a list of objects with a uid, or of uids")
    rows = [{"uid": one} if isinstance(one, str) else one for one in found]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ReviewError(f"{path}, row {number:,}: expected an object with a uid, or a uid")
    names = _wanted(path, list(dict.fromkeys(name for row in rows for name in row)), said)
    return _with_rows(
        {name: pa.array([row.get(name) for row in rows], kind) for name, kind in names.items()},
        range(1, len(rows) + 1),
    )


def _of_table(path: Path, said: Said) -> pa.Table:
    types = _wanted(path, list(column_types(path)), said)
    schema = pa.schema(list(types.items()))
    batches = [
        pa.Table.from_batches([batch]).select(schema.names).cast(schema) for batch in column_batches(path, types)
    ]
    table = pa.concat_tables([schema.empty_table(), *batches])
    return _with_rows({name: table[name] for name in types}, range(1, len(table) + 1))


def _wanted(path: Path, there: Sequence[str], said: Said) -> dict[str, pa.DataType]:
    """The columns to read, with their types."""
    needed = ["uid", *([said.column] if said.column is not None else [])]
    for name in needed:
        if name not in there:
            hint = "; say what is decided with --as" if said.decision is None and name == REVIEW else ""
            raise ReviewError(f"{path} has no column {name}{hint}; it has: {', '.join(there[:20]) or 'none'}")
    more = {DRAWN_BY: pa.string(), WEIGHT: pa.float64()}
    return {**dict.fromkeys(needed, pa.string()), **{name: kind for name, kind in more.items() if name in there}}


_READERS: dict[str, Callable[[Path, Said], pa.Table]] = {".txt": _of_lines, ".json": _of_json}
