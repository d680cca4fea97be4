"""The warehouse's tables of how sure preferences are, and of what the policy for long captions changes."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.core.relations import Table, View, columns
from dqe_assets.core.schema import ORIGINAL, Column, table_schema
from dqe_assets.score.preference import THRESHOLDS, compare_levels
from dqe_assets.score.tables import CAPTION_SCORES

if TYPE_CHECKING:
    import duckdb

_ENDS = {"": "", "_low": ": lower end of its 95 % interval", "_high": ": higher end of its 95 % interval"}
_SHARES = {
    "share_a": ("above_a / n", "0 to 1"),
    "share_b": ("above_b / n", "0 to 1"),
    "ratio": ("above_b / above_a, how many times as often b is preferred; null where neither is", ""),
}

INTERVALS = table_schema(
    [
        Column("source_a", pa.string(), "caption source a"),
        Column("source_b", pa.string(), "caption source b"),
        Column(
            "against",
            pa.string(),
            "the caption source that each of them was put against; null where they were put against each other",
        ),
        Column("scorer", pa.string(), "model that preferred"),
        Column("threshold", pa.float64(), "probability above which a caption counts as preferred", "0 to 1"),
        Column("n", pa.int64(), "samples that were compared", "samples"),
        Column("above_a", pa.int64(), "samples where the caption of a is preferred", "samples"),
        Column("above_b", pa.int64(), "samples where the caption of b is preferred", "samples"),
        *(
            Column(f"{name}{suffix}", pa.float64(), f"{text}{end}", unit)
            for name, (text, unit) in _SHARES.items()
            for suffix, end in _ENDS.items()
        ),
    ]
)

_SQL_TYPES = {pa.string(): "VARCHAR", pa.float64(): "DOUBLE", pa.int64(): "BIGINT"}

PREFERENCE_TABLE = Table(
    "preference_intervals",
    "How sure preferences are: each pair of caption sources, and captioners by how often each beats the original",
    columns(INTERVALS, **{field.name: _SQL_TYPES[field.type] for field in INTERVALS}),
    "SELECT * FROM computed_intervals "
    "ORDER BY against IS NOT NULL, source_a <> 'original', source_a, source_b, scorer, threshold",
)

LONG_COLUMNS = columns(
    CAPTION_SCORES,
    similarity_truncated="FLOAT",
    similarity_sentences_mean="FLOAT",
    similarity_sentences_max="FLOAT",
)


def preference_intervals(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """``INTERVALS`` of the preferences in ``preference_rows``: counted there, so that no row leaves the database."""
    levels = " + ".join(f"(probability > {threshold}::FLOAT)::INTEGER" for threshold in THRESHOLDS)
    level_a, level_b = (levels.replace("probability", f"probability_{side}") for side in "ab")
    connection.execute(f"""
        CREATE TEMP VIEW levels AS
        SELECT uid, source_a, source_b, scorer, {level_a} AS level_a, {level_b} AS level_b
        FROM preference_rows WHERE probability_a IS NOT NULL AND probability_b IS NOT NULL
    """)  # noqa: S608
    counted = connection.execute(f"""
        WITH beside AS (
            SELECT uid, scorer, source_b AS source, level_b AS level FROM levels WHERE source_a = '{ORIGINAL}'
            UNION ALL
            SELECT uid, scorer, source_a, level_a FROM levels WHERE source_b = '{ORIGINAL}'
        )
        SELECT source_a, source_b, NULL::VARCHAR AS against, scorer, level_a, level_b, count(*)
        FROM levels GROUP BY ALL
        UNION ALL
        SELECT a.source, b.source, '{ORIGINAL}', a.scorer, a.level, b.level, count(*)
        FROM beside a JOIN beside b ON a.uid = b.uid AND a.scorer = b.scorer AND a.source < b.source GROUP BY ALL
        ORDER BY ALL
    """).fetchall()  # noqa: S608
    connection.execute("DROP VIEW levels")
    rows = []
    for (source_a, source_b, against, scorer), cells in groupby(counted, key=lambda row: row[:4]):
        table = np.zeros((len(THRESHOLDS) + 1,) * 2, np.int64)
        for *_, above_a, above_b, samples in cells:
            table[above_a, above_b] = samples
        rows += [asdict(one) | {"scorer": scorer} for one in compare_levels(source_a, source_b, against, table)]
    found = pa.Table.from_pylist(rows, INTERVALS)
    # A ratio of nothing to nothing is no number.
    for place, field in enumerate(INTERVALS):
        if field.name.startswith("ratio"):
            found = found.set_column(place, field, pa.array(found[field.name].to_numpy(), from_pandas=True))
    return found


_POLICIES = {"mean": "similarity_sentences_mean", "max": "similarity_sentences_max"}
_MEANS = ", ".join(
    f"CASE WHEN count({column}) > 0 THEN avg(coalesce({column}, cut)) END AS mean_sentences_{name}"
    for name, column in _POLICIES.items()
)
_CHANGED = ", ".join(
    f"CASE WHEN any_value({name}_compared) > 0 THEN any_value({name}_changed) END AS changed_by_{name}"
    for name in _POLICIES
)
_CHANGES = ", ".join(
    f"""
    count(*) FILTER (c.{column} IS NOT NULL OR o.{column} IS NOT NULL) AS {name}_compared,
    count(*) FILTER (
        (c.{column} IS NOT NULL OR o.{column} IS NOT NULL)
        AND sign(c.cut - o.cut) <> sign(coalesce(c.{column}, c.cut) - coalesce(o.{column}, o.cut))
    ) AS {name}_changed"""
    for name, column in _POLICIES.items()
)

LONG_CAPTIONS = View(
    "long_captions",
    "What the policy for captions longer than the encoder reads changes: how well each source's captions fit under "
    "each, and how often the preference against the original turns. Sentences are there where scorer.long_captions "
    "asks for them",
    f"""
    WITH scored AS (
        SELECT *, coalesce(similarity_truncated, similarity) AS cut FROM captions WHERE similarity IS NOT NULL
    ), paired AS (
        SELECT c.caption_source, count(*) AS pairs, {_CHANGES}
        FROM scored c JOIN scored o ON o.uid = c.uid AND o.caption_source = '{ORIGINAL}'
        WHERE c.caption_source <> '{ORIGINAL}' GROUP BY c.caption_source
    )
    SELECT s.caption_source, count(*) AS captions, count(*) FILTER (truncated) AS cut_captions,
        avg(truncated::INTEGER) AS truncated_share, avg(cut) AS mean_truncated,
        {_MEANS},
        any_value(pairs) AS compared, {_CHANGED}
    FROM scored s LEFT JOIN paired USING (caption_source)
    GROUP BY s.caption_source ORDER BY s.caption_source <> '{ORIGINAL}', s.caption_source
    """,  # noqa: S608
    {
        "captions": "captions with a score",
        "cut_captions": "those of them longer than the encoder reads",
        "truncated_share": "cut_captions / captions [0 to 1]",
        "mean_truncated": "mean similarity if of long captions only the beginning counts [-1 to 1]",
        "mean_sentences_mean": "mean similarity if of long captions the mean over sentences counts [-1 to 1]",
        "mean_sentences_max": "mean similarity if of long captions the best sentence counts [-1 to 1]",
        "compared": "samples whose original caption has a score too; null for the originals",
        "changed_by_mean": "those where the mean over sentences turns which of the two fits better",
        "changed_by_max": "those where the best sentence does",
    },
)


def long_captions_in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """Sentences that say what the policy for long captions changes; none where it changes nothing."""
    found = connection.execute(
        "SELECT caption_source, compared, mean_truncated, mean_sentences_mean, mean_sentences_max, changed_by_mean, "
        "changed_by_max FROM long_captions WHERE mean_sentences_mean IS NOT NULL"
    ).fetchall()
    words = []
    for source, compared, cut, mean, highest, by_mean, by_max in found:
        turned = f" and turns {by_mean or 0:,} or {by_max or 0:,} of {compared:,} preferences" if compared else ""
        words.append(
            f" Reading {source}'s long captions by sentences makes {cut:.3f} a mean of {mean:.3f}, or {highest:.3f} by "
            f"the best sentence{turned}."
        )
    return "".join(words)
