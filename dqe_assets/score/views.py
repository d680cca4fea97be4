"""Views and report sections of scores: which captions are preferred and how surely, and what long captions change."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.figures import PLOTTED
from dqe_assets.core.relations import (
    GalleryPlots,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
    meaning,
    sql_file,
)
from dqe_assets.core.schema import ORIGINAL, Column, table_schema
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.plots import Preference, original_vs_synthetic_scatter, preference_bars, similarity_histogram
from dqe_assets.score.preference import THRESHOLDS, compare_levels
from dqe_assets.score.tables import CAPTION_PREFERENCE, CAPTION_SCORES, FURTHER_CAPTION_SCORES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from dqe_assets.core.relations import Drawing

_ENDS = {"": "", "_low": ": lower end of its 95 % interval", "_high": ": higher end of its 95 % interval"}
_SHARES = {
    "share_a": ("above_a / n", "0 to 1"),
    "share_b": ("above_b / n", "0 to 1"),
    "ratio": ("above_b / above_a, how many times as often b is preferred; null where neither is", ""),
}

_INTERVALS = table_schema(
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

_THRESHOLDS = ", ".join(map(str, THRESHOLDS))

_SQL_TYPES = {pa.string(): "VARCHAR", pa.float64(): "DOUBLE", pa.int64(): "BIGINT"}


def _intervals(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """``_INTERVALS`` of the counted preferences."""
    counted = connection.execute("""
        SELECT source_a, source_b, against, scorer, level_a, level_b, sum(samples)::BIGINT
        FROM preference_levels WHERE level_a IS NOT NULL AND level_b IS NOT NULL GROUP BY ALL ORDER BY ALL
    """).fetchall()
    rows = []
    for (source_a, source_b, against, scorer), cells in groupby(counted, key=lambda row: row[:4]):
        table = np.zeros((len(THRESHOLDS) + 1,) * 2, np.int64)
        for *_, above_a, above_b, samples in cells:
            table[above_a, above_b] = samples
        rows += [asdict(one) | {"scorer": scorer} for one in compare_levels(source_a, source_b, against, table)]
    found = pa.Table.from_pylist(rows, _INTERVALS)
    # A ratio of nothing to nothing is no number.
    for place, field in enumerate(_INTERVALS):
        if field.name.startswith("ratio"):
            found = found.set_column(place, field, pa.array(found[field.name].to_numpy(), from_pandas=True))
    return {"computed_intervals": found}


def _level(side: str) -> str:
    """SQL of how many of the thresholds the probability of one side is above; null if there is none."""
    return " + ".join(f"(probability_{side} > {threshold}::FLOAT)::INTEGER" for threshold in THRESHOLDS)


def _levels() -> str:
    """SQL of the counts of each shard."""
    return f"""
        WITH levels AS (
            SELECT shard, uid, source_a, source_b, scorer, independent, probability_a, probability_b,
                {_level("a")} AS level_a, {_level("b")} AS level_b
            FROM stored_caption_preference JOIN stored_raw_samples USING (uid)
        ), compared AS (
            FROM levels WHERE level_a IS NOT NULL AND level_b IS NOT NULL
        ), beside AS (
            SELECT shard, uid, scorer, source_b AS source, level_b AS level
            FROM compared WHERE source_a = '{ORIGINAL}'
            UNION ALL
            SELECT shard, uid, scorer, source_a, level_a FROM compared WHERE source_b = '{ORIGINAL}'
        )
        SELECT shard, source_a, source_b, NULL, scorer, independent, level_a, level_b, count(*),
            sum(probability_a::DOUBLE), sum(probability_b::DOUBLE)
        FROM levels GROUP BY ALL
        UNION ALL
        SELECT a.shard, a.source, b.source, '{ORIGINAL}', a.scorer, NULL, a.level, b.level, count(*), NULL, NULL
        FROM beside a JOIN beside b ON a.uid = b.uid AND a.scorer = b.scorer AND a.source < b.source GROUP BY ALL
        ORDER BY ALL
    """  # noqa: S608


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


def long_captions_in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """Sentences that say what the policy for long captions changes; none if it changes nothing."""
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


def _preference_in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """What the preferences are, and which of them prove nothing."""
    notes = connection.execute(
        "SELECT DISTINCT note FROM caption_preference WHERE note IS NOT NULL ORDER BY note"
    ).fetchall()
    warning = f" Where independent says no: {'; '.join(note for (note,) in notes)}." if notes else ""
    return "Which of two captions the scorer prefers, and how often with a probability above 70 and 90 %." + warning


def _similarities(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Drawing]:
    """How well the captions of each source fit, in all and against the original of each image."""
    sources = [source for (source,) in connection.execute("SELECT caption_source FROM caption_quality").fetchall()]
    scores: dict[str, list[float]] = {source: [] for source in sources}
    for source, similarity in connection.execute(
        "SELECT caption_source, similarity FROM captions WHERE similarity IS NOT NULL "
        "AND uid IN (SELECT uid FROM samples WHERE status = 'ok' ORDER BY uid LIMIT ?)",
        [PLOTTED],
    ).fetchall():
        scores[source].append(similarity)
    yield "How well the captions of each source fit", lambda theme: similarity_histogram(scores, theme)
    names = [source for source in sources if source != ORIGINAL]
    for name in names[:limit]:
        pairs = connection.sql(
            "SELECT o.similarity AS original, c.similarity AS synthetic "
            "FROM captions c JOIN captions o USING (uid) "
            "WHERE o.caption_source = ? AND c.caption_source = ? AND o.similarity + c.similarity IS NOT NULL "
            "ORDER BY uid LIMIT ?",
            params=[ORIGINAL, name, PLOTTED],
        ).to_arrow_table()
        if pairs.num_rows:
            original, synthetic = (pairs[column].to_numpy() for column in ("original", "synthetic"))
            draw = partial(original_vs_synthetic_scatter, original, synthetic, name, names)
            yield f"How well the original captions fit, and {name}'s", draw


def _preferences(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterator[Drawing]:
    intervals: dict[tuple[str, ...], dict[int, tuple[tuple[float, float], tuple[float, float]]]] = {}
    for row in _rows(connection, "SELECT * FROM preference_intervals WHERE against IS NULL"):
        ends = (row["share_a_low"], row["share_a_high"]), (row["share_b_low"], row["share_b_high"])
        pair = row["source_a"], row["source_b"], row["scorer"]
        intervals.setdefault(pair, {})[round(100 * row["threshold"])] = ends
    preferences = [
        Preference(
            row["source_a"],
            row["source_b"],
            row["n"],
            {percent: (row[f"a_above_{percent}"], row[f"b_above_{percent}"]) for percent in (70, 80, 90)},
            independent=row["independent"],
            intervals=intervals.get((row["source_a"], row["source_b"], row["scorer"]), {}),
        )
        for row in _rows(
            connection,
            "SELECT * FROM caption_preference ORDER BY source_a <> 'original', source_a, source_b LIMIT ?",
            [limit],
        )
    ]
    yield "Which caption the scorer prefers", lambda theme: preference_bars(preferences, theme)


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(sql, params=values).to_arrow_table().to_pylist()
    return rows


RELATIONS = Relations(
    reads=(
        Read("caption_scores", CAPTION_SCORES, " ".join(CAPTION_SCORES.names)),
        Read("caption_preference", CAPTION_PREFERENCE, " ".join(CAPTION_PREFERENCE.names)),
        Read("further_caption_scores", FURTHER_CAPTION_SCORES, " ".join(FURTHER_CAPTION_SCORES.names)),
    ),
    computed=(_intervals,),
    tables=(
        Table(
            "preference_levels",
            "For each shard and pair of caption sources, how many samples prefer which caption how surely",
            columns(RAW_SAMPLES, shard="VARCHAR")
            | columns(_INTERVALS, source_a="VARCHAR", source_b="VARCHAR", against="VARCHAR", scorer="VARCHAR")
            | columns(CAPTION_PREFERENCE, independent="BOOLEAN")
            | {
                f"level_{side}": ("INTEGER", f"how many of the probabilities {_THRESHOLDS} that of {side} is above")
                for side in "ab"
            }
            | {"samples": ("BIGINT", "samples")}
            | {f"sum_{side}": ("DOUBLE", f"sum of their probabilities of caption {side}") for side in "ab"},
            _levels,
            by_shard=True,
        ),
        Table(
            "caption_preference",
            "For each pair of caption sources, which of the two captions the scorer prefers, and how surely",
            {
                "source_a": ("VARCHAR", "caption source a"),
                "source_b": ("VARCHAR", "caption source b"),
                "n": ("BIGINT", "samples with both captions"),
                **{
                    f"{side}_above_{percent}": (
                        "BIGINT",
                        f"samples where caption {side} is preferred above {percent} %",
                    )
                    for percent in (70, 80, 90)
                    for side in ("a", "b")
                },
                "mean_probability_a": ("DOUBLE", "mean probability of caption a [0 to 1]"),
                "mean_probability_b": ("DOUBLE", "mean probability of caption b [0 to 1]"),
                "independent": ("BOOLEAN", meaning(CAPTION_PREFERENCE, "independent")),
                "scorer": ("VARCHAR", "model that preferred"),
                "note": ("VARCHAR", "why the preference proves nothing, where it does"),
            },
            sql_file(__file__, "caption_preference"),
        ),
        Table(
            "further_captions",
            "The captions after the first of each sample, where a source has several of an image",
            columns(FURTHER_CAPTION_SCORES, uid="VARCHAR", place="INTEGER")
            | {"caption": ("VARCHAR", "the caption, as the source has it")}
            | columns(FURTHER_CAPTION_SCORES, similarity="FLOAT", tokens="INTEGER", truncated="BOOLEAN"),
            """
            SELECT uid, f.place, r.original_captions[f.place], f.similarity, f.tokens, f.truncated
            FROM stored_further_caption_scores f JOIN stored_raw_samples r USING (uid) ORDER BY uid, f.place
            """,
            by_shard=True,
        ),
        Table(
            "preference_intervals",
            "How sure preferences are: each pair of caption sources, and captioners by how often each beats the "
            "original",
            columns(_INTERVALS, **{field.name: _SQL_TYPES[field.type] for field in _INTERVALS}),
            "SELECT * FROM computed_intervals "
            "ORDER BY against IS NOT NULL, source_a <> 'original', source_a, source_b, scorer, threshold",
        ),
    ),
    views=(
        View(
            "long_captions",
            "What the policy for captions longer than the encoder reads changes: how well each source's captions fit "
            "under each, and how often the preference against the original turns. Sentences are there where "
            "scorer.long_captions asks for them",
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
        ),
    ),
    report_sections=(
        ReportSection("Preference", _preference_in_words, sql_file(__file__, "preference_in_words"), order=40),
    ),
    gallery_plots=(GalleryPlots(_similarities, order=20), GalleryPlots(_preferences, order=25)),
)
