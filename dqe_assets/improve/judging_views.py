"""The warehouse's tables of judgements: what a judge thinks of each source, and how far the scorer agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.relations import Table, View, columns
from dqe_assets.improve.agreement import MEASURES, agreement, means
from dqe_assets.improve.tables import CAPTION_JUDGEMENTS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_STORED = columns(
    CAPTION_JUDGEMENTS,
    uid="VARCHAR",
    caption_source="VARCHAR",
    faithful="TINYINT",
    complete="TINYINT",
    fluent="TINYINT",
    invents_nothing="TINYINT",
    overall="FLOAT",
    reasons="STRUCT(faithful VARCHAR, complete VARCHAR, fluent VARCHAR, invents_nothing VARCHAR)",
    stratum="TINYINT",
    place="TINYINT",
    finish_reason="VARCHAR",
    error="VARCHAR",
    text="VARCHAR",
    model="VARCHAR",
    revision="VARCHAR",
    prompt_hash="VARCHAR",
    prompt_tokens="BIGINT",
    completion_tokens="BIGINT",
    attempts="INTEGER",
    seconds="DOUBLE",
    cost="DOUBLE",
    finished_at="TIMESTAMP",
)

JUDGEMENT_READ = {"caption_judgements": (CAPTION_JUDGEMENTS, " ".join(_STORED))}
"""The columns that are read of each asset."""

JUDGEMENT_VIEW_OF = {"caption_judgements": "stored_judgements"}
"""What each asset is called while the warehouse is built: its table has its name."""

_MEANS = {
    "judged": ("BIGINT", "captions judged"),
    **{
        f"{measure}{suffix}": ("DOUBLE", meaning)
        for measure in MEASURES
        for suffix, meaning in (
            ("", f"mean of {measure.replace('_', ' ')} [1 to 5]"),
            ("_low", f"lower end of the 95 % interval of mean {measure.replace('_', ' ')} (Student's t)"),
            ("_high", f"upper end of the 95 % interval of mean {measure.replace('_', ' ')} (Student's t)"),
        )
    },
}
_READ_AS_TIMESTAMP = ", ".join(
    f"make_timestamp(epoch_us({name}))" if name == "finished_at" else name for name in _STORED
)

JUDGEMENT_TABLES = (
    Table(
        "caption_judgements",
        "What a judge thinks of the captions of a draw of the samples; empty where no judge is configured. Tokens, "
        "cost and attempts are of the request, which asks about all captions of a sample: count them once for a sample",
        _STORED,
        f"SELECT {_READ_AS_TIMESTAMP} FROM stored_judgements ORDER BY uid, place",  # noqa: S608
    ),
    Table(
        "judged_sources",
        "The judge's mean marks of each caption source, with 95 % intervals",
        {"caption_source": _STORED["caption_source"], **_MEANS},
        "SELECT * FROM judged_by_source",
    ),
    Table(
        "judged_places",
        "The judge's mean marks by the place at which a caption was shown: alike, unless the judge favours a place",
        {"place": _STORED["place"], **_MEANS},
        "SELECT * FROM judged_by_place",
    ),
    Table(
        "judge_agreement",
        "For each pair of caption sources, how far judge and scorer prefer the same caption of an image",
        {
            "source_a": ("VARCHAR", "caption source a"),
            "source_b": ("VARCHAR", "caption source b"),
            "pairs": ("BIGINT", "images with both captions judged and scored"),
            "ties": ("BIGINT", "those of them where judge or scorer finds both captions equal"),
            "judge_prefers_a": ("BIGINT", "of the others, those where the judge prefers a: the higher mean mark"),
            "scorer_prefers_a": ("BIGINT", "of the others, those where the scorer prefers a: the higher similarity"),
            "agreed": ("DOUBLE", "share of the others on which they agree [0 to 1]"),
            "kappa": (
                "DOUBLE",
                "Cohen's kappa: 1 if they always agree, 0 if as by chance; null where chance explains all",
            ),
            "independent": (
                "BOOLEAN",
                "false where the scorer shares an image backbone with a captioner, and its preference proves nothing",
            ),
        },
        """
        SELECT j.*, p.independent FROM judged_pairs j LEFT JOIN caption_preference p
            ON (p.source_a, p.source_b) IN ((j.source_a, j.source_b), (j.source_b, j.source_a))
        ORDER BY j.source_a <> 'original', j.source_a, j.source_b
        """,
    ),
)

JUDGEMENT_VIEWS = (
    View(
        "judge_disagreements",
        "Images where judge and scorer prefer opposite captions, those first where both are sure",
        """
        WITH judged AS (
            SELECT uid, caption_source, overall, similarity, caption
            FROM caption_judgements JOIN captions USING (uid, caption_source)
            WHERE overall IS NOT NULL AND similarity IS NOT NULL
        )
        SELECT j.uid, m.shard, m.image_name, j.caption_source AS judge_prefers, j.caption AS judge_caption,
            s.caption_source AS scorer_prefers, s.caption AS scorer_caption,
            j.overall - s.overall AS overall_gap, s.similarity - j.similarity AS similarity_gap,
            overall_gap * similarity_gap AS disagreement
        FROM judged j JOIN judged s ON s.uid = j.uid AND s.overall < j.overall AND s.similarity > j.similarity
        JOIN samples m ON m.uid = j.uid
        ORDER BY disagreement DESC, j.uid, judge_prefers, scorer_prefers
        """,
        {
            "judge_prefers": "caption source of the caption with the higher mean mark",
            "judge_caption": "that caption",
            "scorer_prefers": "caption source of the caption with the higher similarity",
            "scorer_caption": "that caption",
            "overall_gap": "by how much the judge's mean mark of the one is higher",
            "similarity_gap": "by how much the similarity of the other is higher",
            "disagreement": "product of the two: large only where both are sure",
        },
    ),
)

JUDGED_REPORT = """
SELECT j.caption_source AS source, j.judged, j.overall, j.overall_low AS low, j.overall_high AS high, j.faithful,
    j.complete, j.fluent, j.invents_nothing, q.mean_similarity AS similarity
FROM judged_sources j LEFT JOIN caption_quality q USING (caption_source)
ORDER BY j.caption_source <> 'original', j.caption_source
"""

AGREEMENT_REPORT = """
SELECT source_a || ' against ' || source_b AS captions, pairs, ties, judge_prefers_a AS judge_first,
    scorer_prefers_a AS scorer_first, agreed, kappa,
    CASE WHEN independent THEN 'yes' WHEN NOT independent THEN 'no' END AS independent
FROM judge_agreement
"""


def judgement_statistics(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """What the tables are filled from beside the judgements themselves, by name.

    Args:
        connection: a database in which ``stored_judgements`` and ``caption_scores`` can be read.
    """
    judged = connection.sql(
        "SELECT * FROM stored_judgements LEFT JOIN caption_scores USING (uid, caption_source) WHERE overall IS NOT NULL"
    ).to_arrow_table()
    return {
        "judged_by_source": means(judged, "caption_source"),
        "judged_by_place": means(judged, "place"),
        "judged_pairs": agreement(judged),
    }


def places_in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """How the marks depend on the place at which a caption was shown; empty where nothing was judged."""
    places = connection.execute("SELECT place, overall, overall_low, overall_high FROM judged_places").fetchall()
    shown = ", ".join(
        f"{place}: {mean:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
        for place, mean, low, high in places
    )
    return f" Mean mark by the place at which a caption was shown: {shown}." if shown else ""
