"""What the view shows of each sample, read from the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.relations import literal
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_resources.warehouse import BUILD_MEMORY, of_this_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

ROWS_AT_ONCE = 100_000
"""Samples that are read at once: as many whole shards as have no more, or one."""

CAPTION, SIMILARITY, VQA = "caption_", "similarity_", "vqa_"
"""How the columns of a caption source begin; those of the original captions are called as in ``samples``."""

NEIGHBOURS = pa.struct([("ids", pa.list_(pa.string())), ("distances", pa.list_(pa.float32()))])
"""Uids of the nearest samples, the nearest first, and their distances: 1 less the cosine of the images."""

_SPLIT = "CASE WHEN json_valid(s.source_metadata) THEN json_extract_string(s.source_metadata, '$.split') END"


@dataclass(frozen=True, slots=True)
class Facts:
    """The query for what is known of the samples of some shards.

    Attributes:
        columns: SQL of each column beyond those of ``samples``, by name.
        joins: the joins that they need.
    """

    columns: dict[str, str]
    joins: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The query, with ``?`` for the list of shards."""
        more = "".join(f", {sql} AS {quoted(name)}" for name, sql in self.columns.items())
        return f"""
            WITH chosen AS (SELECT * FROM samples WHERE shard IN (SELECT unnest(?)))
            SELECT s.*{more} FROM chosen s {" ".join(self.joins)} ORDER BY s.shard, s."row"
        """  # noqa: S608 - names of our own columns, quoted


_NOTHING = Facts({}, ())


def facts_of(connection: duckdb.DuckDBPyConnection) -> Facts:
    """What this warehouse knows of samples: captions and scores by source, and whatever of the rest it has.

    A source or a table that holds nothing adds no column.

    Raises:
        WarehouseError: it was made by another version.
    """
    with of_this_version():
        return _facts_of(connection)


def _facts_of(connection: duckdb.DuckDBPyConnection) -> Facts:
    own = [row[0] for row in connection.execute("SELECT column_name FROM (DESCRIBE samples)").fetchall()]
    columns: dict[str, str] = {}
    joins: list[str] = []
    for part in (_captions(connection), _best(connection), _words(connection), _seen(connection), _kept(connection)):
        joins += part.joins
        for name, sql in part.columns.items():
            # A signal may be called so too.
            columns[f"{name}_" if name in own else name] = sql
    return Facts(columns, tuple(joins))


def _has(connection: duckdb.DuckDBPyConnection, table: str, counted: str = "*") -> bool:
    return bool((connection.execute(f"SELECT count({counted}) FROM {table}").fetchone() or (0,))[0])  # noqa: S608


def _captions(connection: duckdb.DuckDBPyConnection) -> Facts:
    """Of each caption source its captions and their scores."""
    sources = connection.execute(
        "SELECT caption_source, count(vqa) > 0 FROM captions GROUP BY caption_source "
        "ORDER BY caption_source <> 'original', caption_source"
    ).fetchall()
    columns: dict[str, str] = {}
    joins = []
    for place, (source, is_asked) in enumerate(sources):
        table = f"c{place}"
        joins.append(
            f"LEFT JOIN (FROM captions WHERE caption_source = {literal(source)}) {table} ON {table}.uid = s.uid"
        )
        if source != ORIGINAL:
            columns |= {f"{CAPTION}{source}": f"{table}.caption", f"{SIMILARITY}{source}": f"{table}.similarity"}
        if is_asked:
            columns[f"{VQA}{source}"] = f"{table}.vqa"
    return Facts(columns, tuple(joins))


def _best(connection: duckdb.DuckDBPyConnection) -> Facts:
    """The best caption, and why it is."""
    if not _has(connection, "best_captions"):
        return _NOTHING
    gain = "s.best_similarity - s.original_similarity"
    columns = {"best_caption": "b.caption", "best_reason": "b.reason", "gain": gain}
    return Facts(columns, ("LEFT JOIN best_captions b ON b.uid = s.uid",))


def _words(connection: duckdb.DuckDBPyConnection) -> Facts:
    """What is wrong with captions, by their text."""
    found = {"flags": "caption_generation", "patterns": "text_quality"}
    there = {name: table for name, table in found.items() if _has(connection, table, f"nullif(len({name}), 0)")}
    return Facts({name: f"{name}.found" for name in there}, tuple(_lists(*one) for one in there.items()))


def _seen(connection: duckdb.DuckDBPyConnection) -> Facts:
    """What the image shows: concepts, topic and place on the map."""
    columns: dict[str, str] = {}
    joins = []
    if _has(connection, "concept_hits", f"CASE WHEN item = {literal(IMAGE)} THEN len(concepts) END"):
        joins.append(f"LEFT JOIN (FROM concept_hits WHERE item = {literal(IMAGE)}) h ON h.uid = s.uid")
        columns["concepts"] = "h.concepts"
    if _has(connection, "sample_map"):
        joins.append("LEFT JOIN sample_map m ON m.uid = s.uid")
        columns |= {"topic": "m.topic_name", "map_x": "m.x", "map_y": "m.y"}
    return Facts(columns, tuple(joins))


def _kept(connection: duckdb.DuckDBPyConnection) -> Facts:
    """Which filters keep it, and the split that its source has it in."""
    split = {"split": _SPLIT} if _has(connection, "samples s", _SPLIT) else {}
    filters = [row[0] for row in connection.execute("SELECT filter FROM filters ORDER BY filter").fetchall()]
    if not filters:
        return Facts(split, ())
    kept = ", ".join(f"CASE WHEN f.{quoted(name)} THEN {literal(name)} END" for name in filters)
    columns = {"filters": f"list_filter([{kept}], lambda x: x IS NOT NULL)", **split}
    return Facts(columns, ("LEFT JOIN filter_masks f ON f.uid = s.uid",))


def _lists(name: str, table: str) -> str:
    """The join of a list of all that a table says of a sample's captions in a column of lists."""
    return f"""
        LEFT JOIN (
            SELECT uid, list(found ORDER BY found) AS found FROM (
                SELECT t.uid, caption_source || ': ' || unnest({name}) AS found FROM {table} t
                SEMI JOIN chosen ON chosen.uid = t.uid
            ) GROUP BY uid
        ) {name} ON {name}.uid = s.uid
    """  # noqa: S608


def read_samples(connection: duckdb.DuckDBPyConnection, spill: Path) -> Iterator[pa.Table]:
    """What is known of all samples, a shard at a time, in the order of shards and rows.

    Memory holds ``ROWS_AT_ONCE`` samples, or a shard if it has more.

    Args:
        connection: to the warehouse.
        spill: a folder for what does not fit in memory.

    Raises:
        WarehouseError: as ``facts_of``.
    """
    connection.execute(f"SET temp_directory = {literal(str(spill))}")
    connection.execute(f"SET memory_limit = {literal(BUILD_MEMORY)}")
    facts = facts_of(connection)
    counts = connection.execute("SELECT shard, count(*) FROM samples GROUP BY shard ORDER BY shard").fetchall()
    for shards in _together(counts):
        table = connection.sql(facts.sql, params=[[shard for shard, _ in shards]]).to_arrow_table()
        start = 0
        for _, count in shards:
            yield table.slice(start, count)
            start += count
    if not counts:
        yield connection.sql(facts.sql, params=[[]]).to_arrow_table()


def _together(counts: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Shards that are read at once, each with its samples."""
    some: list[tuple[str, int]] = []
    for shard, count in counts:
        if some and sum(rows for _, rows in some) + count > ROWS_AT_ONCE:
            yield some
            some = []
        some.append((shard, count))
    if some:
        yield some


def quoted(name: str) -> str:
    """A name of a column as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
