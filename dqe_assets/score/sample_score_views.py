"""The table of scores to choose by, and what each says of a sample."""

from __future__ import annotations

from dqe_assets.core.relations import Explanation, Read, Relations, ReportSection, Table, columns
from dqe_assets.score.tables import SAMPLE_SCORES

RELATIONS = Relations(
    reads=(Read("scores/", SAMPLE_SCORES, " ".join(SAMPLE_SCORES.names), rest="scorer"),),
    tables=(
        Table(
            "sample_scores",
            "What each scorer of the key scorers says of every sample: one row for each of both",
            {
                **columns(SAMPLE_SCORES, uid="VARCHAR"),
                "scorer": ("VARCHAR", "name of the scorer in data/dqe.yaml"),
                **columns(SAMPLE_SCORES, score="FLOAT", reason="VARCHAR"),
            },
            "SELECT uid, scorer, score, reason FROM stored_scores ORDER BY scorer, uid",
            by_shard=True,
        ),
    ),
    report_sections=(
        ReportSection(
            "Scores to choose by",
            "What the scorers of the key scorers say of the samples (table sample_scores): how many have a score, its "
            "quartiles, and how it goes with the similarity by which best captions are chosen (Pearson).",
            """
            SELECT scorer, count(score) AS scored, count(*) - count(score) AS unscored,
                quantile_cont(score, 0.25) AS lower_quartile, median(score) AS median,
                quantile_cont(score, 0.75) AS upper_quartile, corr(score, original_similarity) AS with_similarity
            FROM sample_scores JOIN samples USING (uid) GROUP BY scorer ORDER BY scorer
            """,
            order=45,
            only_with="sample_scores",
        ),
    ),
    explanations=(
        Explanation(
            "Scores to choose by",
            ("scores/",),
            "SELECT scorer, score, reason FROM sample_scores WHERE uid = ? ORDER BY scorer",
            order=45,
        ),
    ),
)
