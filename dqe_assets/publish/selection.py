"""Which samples are published, with the facts about each: read from the warehouse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.relations import literal, meaning
from dqe_assets.core.schema import ORIGINAL, UID, Column, table_schema
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.filtering.filters.sql import nodes, syntax
from dqe_assets.improve.tables import BEST_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.publish.options import BEST
from dqe_assets.report.condition import checked_condition
from dqe_assets.score.tables import CAPTION_SCORES
from dqe_resources.errors import DataQualityError, UsageError
from dqe_resources.warehouse import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dqe_assets.report.condition import Query

_ROW = '"row"'
_NOT_DROPPED = "review IS DISTINCT FROM 'drop'"
"""What holds of every sample that is published: nobody has decided to drop it."""
_PAGE = 4096
"""Samples that are written at once."""

_AT_ONCE = 50_000
"""Samples whose facts are read at once: some 50 MB."""


class PublishError(DataQualityError):
    """Nothing can be published: says why and what to do."""


class RequestError(PublishError, UsageError):
    """The condition or the caption rule is wrong."""


def _same(schema: pa.Schema, name: str, of: str = "") -> Column:
    return Column(name, schema.field(of or name).type, meaning(schema, of or name))


_FACTS: dict[str, Column] = {
    "c.caption": Column("caption", pa.string(), "the caption to train on, chosen by the caption rule"),
    "c.caption_source": _same(BEST_CAPTIONS, "caption_source"),
    "c.similarity": _same(CAPTION_SCORES, "similarity"),
    "c.tokens": _same(CAPTION_SCORES, "tokens"),
    "s.caption": _same(RAW_SAMPLES, "original_caption", "caption"),
    "s.original_similarity": Column("original_similarity", pa.float32(), "its similarity [-1 to 1]"),
    "s.best_source": Column("best_source", pa.string(), "caption source of the best caption"),
    "s.best_similarity": Column("best_similarity", pa.float32(), "its similarity [-1 to 1]"),
    **{f"s.{name}": _same(RAW_SAMPLES, name) for name in ("url", "source", "shard", "image_name", "width", "height")},
    **{
        f"s.{name}": _same(IMAGE_FEATURES, name)
        for name in ("sharpness", "brightness", "contrast", "colourfulness", "top_label")
    },
    "s.top_label_probability": Column("top_label_probability", pa.float32(), "its probability [0 to 1]"),
    "s.is_duplicate": Column(
        "is_duplicate", pa.bool_(), "whether another sample of its duplicate cluster stands for it"
    ),
    "s.cluster": Column("cluster", pa.string(), "duplicate cluster; null if it is alone"),
}
"""What is published of a sample apart from its image, by the SQL that gives it."""

_MADE_BY = {
    "s.original_similarity": "caption_scores",
    "s.best_source": "best_captions",
    "s.best_similarity": "best_captions",
    "s.top_label_probability": "image_features",
    "s.is_duplicate": "duplicate_clusters",
    "s.cluster": "duplicate_clusters",
}
"""The asset that makes a column, where that is not told by its name."""

FACTS = table_schema([UID, *_FACTS.values()])

_BEST = """
    SELECT b.uid, b.caption, b.caption_source, b.similarity, c.tokens
    FROM best_captions b LEFT JOIN captions c USING (uid, caption_source)
"""


_OTHERS = """
    SELECT uid, caption, caption_source, similarity, tokens FROM captions WHERE caption_source = {name}
    UNION ALL
    SELECT m.uid, m.caption, m.caption_source, m.similarity, c.tokens
    FROM mixed_captions m LEFT JOIN captions c USING (uid, caption_source) WHERE m.mix = {name}
"""
_NAMED = """
    SELECT caption_source AS name FROM captions UNION SELECT mix FROM mixed_captions ORDER BY ALL
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A term of the condition.

    Attributes:
        condition: the term.
        alone: samples with an image that it keeps by itself.
        left: samples that it and the terms before it keep.
    """

    condition: str
    alone: int
    left: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The samples chosen of a shard.

    Attributes:
        shard: partition key.
        rows: their positions in the shard, int32 [n], ascending.
        digest: of all that the warehouse says of them.
    """

    shard: str
    rows: np.ndarray
    digest: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What is published.

    Attributes:
        condition: SQL over the warehouse's table ``samples``.
        caption: the caption rule.
        samples: all samples with an image.
        steps: the terms of the condition, in order; first that nobody has decided to drop them, where somebody has.
        filters: the filters that the condition names, with what each is.
        shards: the samples, in the order in which they are published.
    """

    condition: str
    caption: str
    samples: int
    steps: tuple[Step, ...]
    filters: Mapping[str, str]
    shards: tuple[Chosen, ...]

    @property
    def total(self) -> int:
        """Samples to publish."""
        return sum(len(chosen.rows) for chosen in self.shards)

    @property
    def without_caption(self) -> int:
        """Samples that fulfil the condition and have no caption of the rule: they are left out."""
        return self.steps[-1].left - self.total

    def pieces(self, start: int, stop: int) -> Iterator[tuple[str, np.ndarray]]:
        """The samples from one position to another, as shards and rows of it, a page at a time."""
        ends = list(accumulate(len(chosen.rows) for chosen in self.shards))
        for chosen, end in zip(self.shards, ends, strict=True):
            first = end - len(chosen.rows)
            rows = chosen.rows[max(start - first, 0) : max(stop - first, 0)]
            for page in range(0, len(rows), _PAGE):
                yield chosen.shard, rows[page : page + _PAGE]


def select(query: Query, condition: str, caption: str) -> Selection:
    """The samples with an image that fulfil a condition, have a caption, and that nobody has decided to drop.

    Args:
        query: runs one SELECT on the warehouse.
        condition: SQL over the table ``samples``; it may ask other tables in subqueries.
        caption: ``best``, ``original``, or the name of a captioner or a mix.

    Raises:
        PublishError: the condition is wrong or can give another value each time, there is no such caption, or no
            sample is left: says what each term keeps by itself.
    """
    sources = query(_NAMED)["name"].to_pylist()
    if caption not in {BEST, *sources}:
        raise RequestError(f"--caption {caption}: there are no such captions; there are: {', '.join((BEST, *sources))}")
    tree = _checked(query, condition)
    samples, steps = _steps(query, condition, tree)
    named = {node["column_names"][-1] for node in nodes(tree) if node["class"] == "COLUMN_REF"}
    filters = query("SELECT filter, expression FROM filters ORDER BY filter").to_pylist()
    table = query(
        f"""
        SELECT shard, list("row" ORDER BY "row") AS rows, bit_xor(md5_number(facts::VARCHAR))::VARCHAR AS digest
        FROM ({published_sql(condition, caption, _ROW)}) facts GROUP BY shard ORDER BY shard
        """  # noqa: S608 - the condition is one expression, and the query is confined
    )
    shards = tuple(
        Chosen(record["shard"], np.array(record["rows"], np.int32), record["digest"]) for record in table.to_pylist()
    )
    selection = Selection(
        condition,
        caption,
        samples,
        steps,
        {f["filter"]: f["expression"] for f in filters if f["filter"] in named},
        shards,
    )
    if not selection.total:
        raise PublishError(_why_empty(selection))
    return selection


def published_sql(condition: str, caption: str, *more: str) -> str:
    """The query for what is published of the samples that fulfil a condition.

    Args:
        condition: one SQL condition over ``samples``.
        caption: ``best``, ``original``, or the name of a captioner or a mix.
        more: further columns of ``samples``, quoted.
    """
    columns = ", ".join(
        ["s.uid", *(f"s.{name}" for name in more), *(f'{sql} AS "{c.name}"' for sql, c in _FACTS.items())]
    )
    captions = _BEST if caption == BEST else _OTHERS.format(name=literal(caption))
    return f"""
        SELECT {columns}
        FROM (SELECT * FROM samples WHERE status = 'ok' AND {_NOT_DROPPED} AND ({condition}\n)) s
        JOIN ({captions}) c USING (uid)
        WHERE regexp_matches(c.caption, '\\S')
    """  # noqa: S608


def made_by(caption: str) -> dict[str, str]:
    """The asset that makes each column of ``FACTS``, with captions of a rule."""
    captions = {BEST: "best_captions", ORIGINAL: "raw_samples"}.get(caption, f"captions of {caption}")
    made = {"uid": "raw_samples", "captions": "raw_samples, and what makes each caption source"}
    for sql, column in _FACTS.items():
        name = sql.partition(".")[2]
        own = "image_features" if name in IMAGE_FEATURES.names else "raw_samples"
        scored = "caption_scores" if name in CAPTION_SCORES.names and name != "caption_source" else captions
        made[column.name] = scored if sql.startswith("c.") else _MADE_BY.get(sql, own)
    return made


class Facts:
    """What is published of the samples.

    It is read of many at once, for whatever is asked of the captions goes through all of them.

    Args:
        query: runs one SELECT on the warehouse that the selection was made from.
        selection: the samples.
    """

    def __init__(self, query: Query, selection: Selection) -> None:
        self._query, self._selection = query, selection
        self._held: tuple[int, pa.Table] = -1, FACTS.empty_table()

    def pages(self, start: int, stop: int) -> Iterator[tuple[str, np.ndarray, pa.Table]]:
        """The samples from one position to another, a page at a time: shard, rows of it, and ``FACTS`` in their order.

        Raises:
            QueryError: the warehouse cannot be read, or a limit of its settings is too low.
        """
        for number in range(start // _AT_ONCE, -(-stop // _AT_ONCE)):
            first, last = max(start, number * _AT_ONCE), min(stop, (number + 1) * _AT_ONCE)
            place = first - number * _AT_ONCE
            for shard, rows in self._selection.pieces(first, last):
                yield shard, rows, self._those(number)[place : place + len(rows)]
                place += len(rows)

    def _those(self, number: int) -> pa.Table:
        """The facts of the samples from position ``number * _AT_ONCE`` on."""
        if self._held[0] != number:
            # As texts: thousands of numbers would be thousands of expressions.
            start = number * _AT_ONCE
            places = ", ".join(
                f"({literal(shard)}, '{','.join(map(str, rows.tolist()))}')"
                for shard, rows in self._selection.pieces(start, min(start + _AT_ONCE, self._selection.total))
            )
            there = f"SELECT shard, unnest(string_split(rows, ',')::INTEGER[]) FROM (VALUES {places}) v(shard, rows)"  # noqa: S608
            published = published_sql(f'(shard, "row") IN ({there})', self._selection.caption, _ROW)
            table = self._query(f'SELECT * EXCLUDE "row" FROM ({published}) ORDER BY shard, "row"')  # noqa: S608
            self._held = number, table.select(FACTS.names).cast(FACTS)
        return self._held[1]


def _checked(query: Query, condition: str) -> Any:
    """The condition's syntax tree."""
    try:
        tree = checked_condition(query, condition)
    except ValueError as error:
        raise RequestError(f"--where: {error}") from error
    functions = {node["function_name"].lower() for node in nodes(tree) if node["class"] == "FUNCTION"}
    # A function that is called without brackets, such as current_date, looks like a column.
    functions |= {node["column_names"][0].lower() for node in nodes(tree) if node["class"] == "COLUMN_REF"}
    quoted = ", ".join(map(literal, ("", *sorted(functions))))
    changing = query(
        f"""
        SELECT DISTINCT function_name AS name FROM duckdb_functions()
        WHERE stability <> 'CONSISTENT' AND function_name IN ({quoted}) ORDER BY ALL
        """  # noqa: S608
    )["name"].to_pylist()
    if changing:
        raise RequestError(
            f"--where: {changing[0]}() can give another value each time, and a publication must stay the same; "
            "for one sample in ten: md5_number_lower(uid) % 10 = 0"
        )
    return tree


def _steps(query: Query, condition: str, tree: Any) -> tuple[int, tuple[Step, ...]]:
    """How many samples have an image, and how many of them each term of the condition keeps."""
    terms = [_NOT_DROPPED, *_terms(condition, tree)]
    counts = _counts(query, terms)
    whole = _counts(query, [_NOT_DROPPED, condition]) if len(terms) > 2 else counts
    # Terms are cut out of the text: if they do not give the same as the whole, the whole is the only term.
    if counts is None or whole is None or counts[-1] != whole[-1]:
        terms, counts = [_NOT_DROPPED, condition], whole
    if counts is None:
        raise RequestError(f"--where: this cannot be computed, correct it: {condition}")
    steps = tuple(Step(term, counts[2 * n + 1], counts[2 * n + 2]) for n, term in enumerate(terms))
    return counts[0], steps if steps[0].left < counts[0] else steps[1:]


def _terms(condition: str, tree: Any) -> list[str]:
    """The terms of a conjunction as they are written; the whole where it is none."""
    if tree.get("type") != "CONJUNCTION_AND":
        return [condition]
    # Places count in bytes from the beginning of what was parsed, and say of some expressions only where a part of
    # them is: so the text is cut at the one AND between each two.
    text, begin = condition.encode(), int(syntax("true")[0]["query_location"])
    places = [(int(child["query_location"]) - begin, child.get("query_location_length")) for child in tree["children"]]
    cuts = [0]
    for (at, length), (following, _) in pairwise(places):
        gap = at + (length or 0)
        found = list(re.finditer(rb"(?i)\bAND\b", text[gap:following]))
        if length is None or len(found) != 1:
            return [condition]
        cuts += [gap + found[0].start(), gap + found[0].end()]
    cuts.append(len(text))
    return [text[start:stop].decode().strip() for start, stop in zip(cuts[::2], cuts[1::2], strict=True)]


def _counts(query: Query, terms: Sequence[str]) -> list[int] | None:
    """Samples with an image, and for each term those that it keeps, and those that are left after it."""
    bracketed = [f"({term}\n)" for term in terms]
    filters = [kept for n, term in enumerate(bracketed) for kept in (term, " AND ".join(bracketed[: n + 1]))]
    columns = ["count(*)", *(f"count(*) FILTER (WHERE {kept})" for kept in filters)]
    try:
        table = query(f"SELECT {', '.join(columns)} FROM samples WHERE status = 'ok'")  # noqa: S608
    except QueryError as error:
        if len(terms) == 2:
            raise RequestError(f"--where: {error}") from error
        return None
    return [column[0].as_py() for column in table.columns]


def _why_empty(selection: Selection) -> str:
    if selection.without_caption:
        return (
            f"nothing to publish: {selection.without_caption:,} samples fulfil the condition, but none of them has a "
            f"caption of {selection.caption}"
        )
    alone = "; ".join(f"{step.condition} keeps {step.alone:,}" for step in selection.steps)
    by_themselves = "by themselves, " if len(selection.steps) > 1 else ""
    return f"nothing to publish: of {selection.samples:,} samples with an image, {by_themselves}{alone}"
