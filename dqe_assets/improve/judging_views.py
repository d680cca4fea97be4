"""Views and report sections of judgements: what a judge thinks of each source, and how far the scorer agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.relations import (
    Explanation,
    GalleryPlots,
    GallerySection,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
    sql_file,
)
from dqe_assets.improve.agreement import MEASURES, agreement, means
from dqe_assets.improve.judging_plots import marks_by_source
from dqe_assets.improve.tables import CAPTION_JUDGEMENTS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from dqe_assets.core.relations import Drawing

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
    flags="VARCHAR[]",
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

_TABLES = (
    Table(
        "caption_judgements",
        "What a judge thinks of the captions of a draw of the samples; empty where no judge is configured. Tokens, "
        "cost and attempts are of the request, which asks about all captions of a sample: count them once for a sample",
        _STORED,
        "SELECT * FROM stored_caption_judgements ORDER BY uid, place",
        by_shard=True,
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

_VIEWS = (
    View(
        "judge_disagreements",
        "Images where judge and scorer prefer opposite captions, those first where both are sure",
        sql_file(__file__, "judge_disagreements"),
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


def _statistics(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
    """What the tables are filled from, in addition to the judgements themselves."""
    judged = connection.sql(
        "SELECT j.*, c.similarity FROM caption_judgements j LEFT JOIN captions c USING (uid, caption_source) "
        "WHERE overall IS NOT NULL"
    ).to_arrow_table()
    return {
        "judged_by_source": means(judged, "caption_source"),
        "judged_by_place": means(judged, "place"),
        "judged_pairs": agreement(judged),
    }


def _in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """What the marks are, and how they depend on the place at which a caption was shown."""
    places = connection.execute("SELECT place, overall, overall_low, overall_high FROM judged_places").fetchall()
    shown = ", ".join(
        f"{place}: {mean:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")
        for place, mean, low, high in places
    )
    return (
        "The judge's mean marks, 1 to 5, of the captions of a draw of the samples; low and high are the ends of the "
        f"95 % interval of overall. Mean mark by the place at which a caption was shown: {shown}."
    )


def _marks(connection: duckdb.DuckDBPyConnection, _: int) -> list[Drawing]:
    means_of_sources = connection.sql("FROM judged_sources").to_arrow_table()
    if not means_of_sources.num_rows:
        return []
    return [("What the judge thinks of the captions", lambda theme: marks_by_source(means_of_sources, theme))]


RELATIONS = Relations(
    reads=(Read("caption_judgements", CAPTION_JUDGEMENTS, " ".join(_STORED)),),
    computed=(_statistics,),
    tables=_TABLES,
    views=_VIEWS,
    report_sections=(
        ReportSection(
            "Judgements",
            _in_words,
            """
            SELECT j.caption_source AS source, j.judged, j.overall, j.overall_low AS low, j.overall_high AS high,
                j.faithful, j.complete, j.fluent, j.invents_nothing, q.mean_similarity AS similarity
            FROM judged_sources j LEFT JOIN caption_quality q USING (caption_source)
            ORDER BY j.caption_source <> 'original', j.caption_source
            """,
            order=60,
            only_with="judged_sources",
        ),
        ReportSection(
            "Judge and scorer",
            "How far they prefer the same one of two captions: agreed is the share of the pairs without ties, kappa "
            "that beyond chance. Images where they disagree most are in the view judge_disagreements.",
            """
            SELECT source_a || ' against ' || source_b AS captions, pairs, ties, judge_prefers_a AS judge_first,
                scorer_prefers_a AS scorer_first, agreed, kappa,
                CASE WHEN independent THEN 'yes' WHEN NOT independent THEN 'no' END AS independent
            FROM judge_agreement
            """,
            order=65,
            only_with="judged_sources",
        ),
    ),
    gallery_sections=(
        GallerySection(
            "judged",
            "Judge and scorer disagree",
            "Where the judge prefers one caption and the scorer another, both surely; with the judge's reasons.",
            "SELECT uid FROM judge_disagreements GROUP BY uid ORDER BY max(disagreement) DESC, uid",
            order=20,
        ),
    ),
    gallery_plots=(GalleryPlots(_marks, order=50),),
    explanations=(
        Explanation(
            "Judgements",
            ("caption_judgements",),
            """
            SELECT caption_source, faithful, complete, fluent, invents_nothing, overall,
                concat_ws('; ', reasons.faithful, reasons.complete, reasons.fluent, reasons.invents_nothing) AS reasons,
                place, model, error
            FROM caption_judgements WHERE uid = ? ORDER BY place
            """,
            order=70,
        ),
    ),
)
