"""Samples that are worth a person's time: where measures disagree, near a filter's threshold, or drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa

from dqe_assets.core.relations import literal
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters.comparison import Comparison
from dqe_assets.reviews.tables import DROP, KEEP
from dqe_assets.score.sample_score_assets import SCORES_PREFIX
from dqe_assets.score.tables import CAPTION_PREFERENCE
from dqe_resources.errors import DataQualityError, UsageError
from dqe_resources.printable import printable
from dqe_resources.store import replace_file, verified_dataset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from dqe_assets.core.signals import Signal
    from dqe_resources.store import Store

How = Literal["disagreement", "random", "filter-edge"]

SAMPLE = pa.schema(
    [
        *((name, pa.string()) for name in ("uid", "image_name", "source", "why", "original_caption", "best_caption")),
        ("drawn_by", pa.string()),
        ("weight", pa.float64()),
        ("review", pa.string()),
    ]
)
"""Columns of a sample to review: ``review`` is to be filled in, and ``weight`` is of what is drawn at random."""

_MEMORY = "2GB"
_WRITTEN = {".csv": ",", ".tsv": "\t", ".parquet": ""}
_FOREIGN = ("image_name", "original_caption", "best_caption")
_PREFERENCE = "preference"
_ORDERED = {"<", "<=", ">", ">="}
_CALLED = {"original_similarity": "similarity"}
"""What the columns of ``samples`` are called as measures, and in filters."""


class ReviewSampleError(DataQualityError):
    """There is nothing to draw from: says why and what to do."""


class Drawn(NamedTuple):
    """A sample to review, why it was drawn, and how many it stands for; None if it was not drawn at random."""

    uid: str
    why: str
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """The threshold of a filter.

    Attributes:
        filters: names of the filters that have it.
        measure: what is compared with it.
        threshold: the least value, or the most, that is let through.
    """

    filters: tuple[str, ...]
    measure: str
    threshold: float


def measure(connection: duckdb.DuckDBPyConnection, store: Store, signals: Mapping[str, Signal]) -> list[str]:
    """Make the temporary table ``measured``: what says of each sample with an image how good it is.

    It has ``uid``, ``source``, ``is_duplicate``, and a column for each measure of the original caption: ``similarity``,
    ``masked_similarity``, ``vqa``, ``judgement``, ``preference`` (the mean probability by which it is preferred to
    another caption, where the scorer shares no backbone with who wrote that), scorers by their names, and the signals
    that are numbers.

    Args:
        connection: to the warehouse.
        store: where preferences are.
        signals: the signals, by name.

    Returns:
        The measures that some sample has: higher is better, but for signals of users, of which nobody knows.
    """
    connection.execute(f"SET memory_limit = '{_MEMORY}'")
    files = store.files("caption_preference", sorted(store.partitions("caption_preference")))
    names = ["uid", "source_a", "probability_a", "independent"]
    preferred = (
        verified_dataset(files, CAPTION_PREFERENCE, names, store.place)
        if files
        else pa.schema([CAPTION_PREFERENCE.field(name) for name in names]).empty_table()
    )
    connection.register("stored_preferences", preferred)
    there = {name for (name,) in connection.execute("SELECT column_name FROM (DESCRIBE samples)").fetchall()}
    numbers = [
        name
        for name, one in signals.items()
        if name in there and one.sql_type in {"FLOAT", "DOUBLE", "BIGINT", "INTEGER"}
    ]
    found = {
        "similarity": "s.original_similarity",
        "masked_similarity": "i.masked_similarity",
        "vqa": "c.vqa",
        "judgement": "j.overall",
        _PREFERENCE: "p.probability",
        **{name: f's."{name}"' for name in numbers},
    }
    columns = ", ".join(f'{sql}::DOUBLE AS "{name}"' for name, sql in found.items())
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE measured AS
        SELECT s.uid, s.source, s.is_duplicate, {columns}
        FROM samples s
        LEFT JOIN image_text i USING (uid)
        LEFT JOIN (SELECT uid, vqa FROM captions WHERE caption_source = '{ORIGINAL}') c USING (uid)
        LEFT JOIN (SELECT uid, overall FROM caption_judgements WHERE caption_source = '{ORIGINAL}') j USING (uid)
        LEFT JOIN (
            SELECT uid, avg(probability_a) AS probability FROM stored_preferences
            WHERE source_a = '{ORIGINAL}' AND independent GROUP BY uid
        ) p USING (uid)
        WHERE s.status = 'ok'
    """)  # noqa: S608 - names of signals, which are names
    counts = ", ".join(f"count({_quoted(name)})" for name in found)
    ((*counted,),) = connection.execute(f"SELECT {counts} FROM measured").fetchall()  # noqa: S608
    return [name for name, count in zip(found, counted, strict=True) if count]


def scorers_of(measures: Sequence[str], signals: Mapping[str, Signal]) -> list[str]:
    """The measures of which a higher one is better: all but the signals of users."""
    return [name for name in measures if name not in signals or signals[name].asset.startswith(SCORES_PREFIX)]


def edges_of(facts: Mapping[str, Any], measures: Sequence[str]) -> list[Edge]:
    """The thresholds of filters on something that is measured.

    Args:
        facts: what the manifest of ``filter_masks`` says, which has the thresholds that fractions came to.
        measures: the measures, and other columns of ``samples``.
    """
    leaves = {one["filter"]: {leaf.text for leaf in parse(one["expression"]).leaves} for one in facts["filters"]}
    found = []
    for one in facts["leaves"]:
        names = tuple(name for name, texts in leaves.items() if one["leaf"] in texts)
        for leaf in parse(one["fitted"]).leaves:
            threshold: Any = leaf.facts.get("threshold")
            if isinstance(leaf, Comparison) and leaf.operator in _ORDERED:
                threshold = leaf.value
            column = _CALLED.get(leaf.columns[0], leaf.columns[0]) if leaf.columns else ""
            if isinstance(threshold, int | float) and not isinstance(threshold, bool) and column in measures:
                found.append(Edge(names, column, float(threshold)))
    return found


def draw(
    connection: duckdb.DuckDBPyConnection,
    how: How,
    count: int,
    *,
    measures: Sequence[str],
    edges: Sequence[Edge],
    decided: pa.Table,
    seed: int = 0,
) -> pa.Table:
    """Samples to review, each with why it was chosen.

    ``disagreement`` takes turns among all ordered pairs of measures: the next sample is the one that the first ranks
    highest compared with the second. ``filter-edge`` takes turns among the thresholds of filters and their two sides:
    the next sample is the nearest. Both leave out what people have decided about, and samples that another one of
    their duplicate cluster stands for. ``random`` draws from each source in proportion to its samples, whatever was
    decided, so that its samples stand for all.

    Args:
        connection: to the warehouse, after ``measure``.
        how: by what they are drawn.
        count: how many at most.
        measures: of which a higher one is better.
        edges: thresholds.
        decided: ``uid`` and ``is_kept`` of what people have decided about.
        seed: another one draws others at random.

    Returns:
        A table of ``SAMPLE``, in the order in which they were drawn.

    Raises:
        ReviewSampleError: there are fewer than two measures, no threshold, or no sample.
    """
    connection.register("decided", decided.select(["uid", "is_kept"]))
    if how == "random":
        drawn = _at_random(connection, count, seed)
    elif how == "disagreement":
        if len(measures) < 2:
            raise ReviewSampleError(
                f"two measures of the same samples can disagree; there is {', '.join(measures) or 'none'}. Add a "
                "scorer (scorers, judging or image_text in dqe.yaml), or take --by random or --by filter-edge"
            )
        drawn = in_turns(_by_disagreement(connection, measures, count), count)
    else:
        if not edges:
            raise ReviewSampleError(
                "no filter of dqe.yaml has a threshold on a measure; name one under filters, such as "
                "fits: caption_quality(fraction=0.3), then run: dqe materialize; or take --by disagreement"
            )
        drawn = in_turns(_near_edges(connection, edges, count), count)
    if not drawn:
        raise ReviewSampleError("there is no sample left to review: people have decided about all of them")
    return _described(connection, how, drawn)


def in_turns(strata: Sequence[Sequence[Drawn]], count: int) -> list[Drawn]:
    """The first of each stratum, then the second of each, and so on; none twice.

    Args:
        strata: the candidates of each, the best first.
        count: how many at most.
    """
    taken: dict[str, Drawn] = {}
    waiting = [iter(stratum) for stratum in strata]
    while waiting and len(taken) < count:
        for stratum in list(waiting):
            new = next((one for one in stratum if one.uid not in taken), None)
            if new is None:
                waiting.remove(stratum)
            elif len(taken) < count:
                taken[new.uid] = new
    return list(taken.values())


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many to draw of each stratum: in proportion to its size, at least one of each while there are enough.

    Args:
        sizes: of the strata.
        count: how many to draw; all if there are fewer.
    """
    total = sum(sizes)
    count = min(count, total)
    wanted = [count * size / total if total else 0.0 for size in sizes]
    found = [
        min(max(int(want), 1 if count >= len(sizes) else 0), size) for want, size in zip(wanted, sizes, strict=True)
    ]
    order = sorted(range(len(sizes)), key=lambda n: wanted[n] - found[n], reverse=True)
    while sum(found) < count:
        for n in (one for one in order if found[one] < sizes[one]):
            found[n] += sum(found) < count
    while sum(found) > count:
        found[max(range(len(found)), key=found.__getitem__)] -= 1
    return found


def require_writable(path: Path) -> None:
    """Refuse a file of a kind that ``write`` does not write, and one that is there already.

    Raises:
        UsageError: says which are allowed.
    """
    if path.suffix.lower() not in _WRITTEN:
        raise UsageError(f"--out {path}: expected a file ending in {', '.join(_WRITTEN)}")
    if path.exists():
        raise UsageError(f"--out {path}: is there already, perhaps with somebody's decisions; name another file")


def write(table: pa.Table, path: Path) -> None:
    """Write a table of ``SAMPLE``; in text files no cell is a formula, whatever it begins with, and each is one line.

    Raises:
        StorageError: it cannot be written.
    """
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        replace_file(path, lambda target: pq.write_table(table, target, compression="zstd"))
        return
    from pyarrow import csv

    plain = pa.table(
        {
            name: pa.array(map(_cell, column.to_pylist()), pa.string()) if name in _FOREIGN else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )
    options = csv.WriteOptions(delimiter=_WRITTEN[path.suffix.lower()])
    replace_file(path, lambda target: csv.write_csv(plain, target, options))


def _cell(text: str | None) -> str | None:
    """A text that a spreadsheet takes for a text: OWASP, "CSV Injection"."""
    shown = None if text is None else printable(text)
    return f"'{shown}" if shown and shown[0] in "=+-@" else shown


def _at_random(connection: duckdb.DuckDBPyConnection, count: int, seed: int) -> list[Drawn]:
    sizes = connection.execute("SELECT source, count(*) FROM measured GROUP BY source ORDER BY source").fetchall()
    drawn: list[Drawn] = []
    for (source, size), share in zip(sizes, shares([size for _, size in sizes], count), strict=True):
        found = connection.execute(
            f"SELECT uid FROM measured WHERE source = ? ORDER BY md5('{int(seed)} ' || uid), uid LIMIT ?",  # noqa: S608
            [source, share],
        ).fetchall()
        why = f"drawn at random: one of {share:,} of the {size:,} samples of {source} with an image"
        drawn += [Drawn(uid, why, size / share) for (uid,) in found]
    return drawn


_OPEN = "NOT is_duplicate AND uid NOT IN (SELECT uid FROM decided)"


def _by_disagreement(connection: duckdb.DuckDBPyConnection, measures: Sequence[str], count: int) -> list[list[Drawn]]:
    ranks = ", ".join(
        f"CASE WHEN {_quoted(one)} IS NOT NULL THEN percent_rank() OVER (PARTITION BY {_quoted(one)} IS NULL "
        f"ORDER BY {_quoted(one)}) END AS {_quoted(one)}"
        for one in measures
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE ranked AS SELECT uid, is_duplicate, {ranks} FROM measured"  # noqa: S608
    )
    strata = []
    for high, low in permutations(measures, 2):
        gap = f"{_quoted(high)} - {_quoted(low)}"
        found = connection.execute(
            f"SELECT uid, {_quoted(high)}, {_quoted(low)} FROM ranked WHERE {gap} > 0 AND {_OPEN} "  # noqa: S608
            f"ORDER BY {gap} DESC, uid LIMIT ?",
            [count],
        ).fetchall()
        strata.append(
            [
                Drawn(uid, f"{high} is above that of {above:.0%} of the samples, and {low} above {below:.0%}")
                for uid, above, below in found
            ]
        )
    return strata


def _near_edges(connection: duckdb.DuckDBPyConnection, edges: Sequence[Edge], count: int) -> list[list[Drawn]]:
    strata = []
    for edge in edges:
        name = _quoted(edge.measure)
        for side, condition, order in (("above", ">=", "ASC"), ("below", "<", "DESC")):
            found = connection.execute(
                f"SELECT uid, {name} FROM measured WHERE {name} {condition} ? AND {_OPEN} "  # noqa: S608
                f"ORDER BY {name} {order}, uid LIMIT ?",
                [edge.threshold, count],
            ).fetchall()
            of = f"the threshold of {', '.join(edge.filters)}, {edge.threshold:.4g}"
            strata.append(
                [
                    Drawn(uid, f"{edge.measure} {value:.4g} is {abs(value - edge.threshold):.2g} {side} {of}")
                    for uid, value in found
                ]
            )
    return strata


def _described(connection: duckdb.DuckDBPyConnection, how: How, drawn: Sequence[Drawn]) -> pa.Table:
    uids, why, weights = zip(*drawn, strict=True)
    connection.register(
        "drawn",
        pa.table({"place": range(len(uids)), "uid": uids, "why": why, "weight": pa.array(weights, pa.float64())}),
    )
    return (
        connection.sql(f"""
        SELECT d.uid, s.image_name, s.source, d.why, s.caption AS original_caption, b.caption AS best_caption,
            {literal(how)} AS drawn_by, d.weight,
            CASE WHEN k.is_kept THEN '{KEEP}' WHEN NOT k.is_kept THEN '{DROP}' END AS review
        FROM drawn d JOIN samples s USING (uid) LEFT JOIN best_captions b USING (uid) LEFT JOIN decided k USING (uid)
        ORDER BY d.place
    """)  # noqa: S608
        .to_arrow_table()
        .select(SAMPLE.names)
        .cast(SAMPLE)
    )


def _quoted(name: str) -> str:
    return f'"{name}"'
