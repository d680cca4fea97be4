"""What people read of the truth of captions, and how far it goes with similarity."""

from __future__ import annotations

from dqe_assets.core.relations import Read, Relations, ReportSection, Table, View, columns
from dqe_assets.score.tables import VQA_SCORES

_STORED = columns(
    VQA_SCORES,
    score="FLOAT",
    answered="FLOAT",
    finish_reason="VARCHAR",
    error="VARCHAR",
    model="VARCHAR",
    revision="VARCHAR",
    prompt_tokens="BIGINT",
    completion_tokens="BIGINT",
    seconds="DOUBLE",
    attempts="INTEGER",
    cost="DOUBLE",
    finished_at="TIMESTAMP",
)

_RANK = """
    rank() OVER (PARTITION BY caption_source ORDER BY {0})
        + (count(*) OVER (PARTITION BY caption_source, {0}) - 1) / 2.0 AS {0}_rank
"""

RELATIONS = Relations(
    reads=(Read("vqa_scores/", VQA_SCORES, " ".join(["uid", *_STORED]), rest="caption_source"),),
    tables=(
        Table(
            "vqa_scores",
            "What a vision-language model says of the truth of every caption; empty where there is no vqa scorer",
            {
                **columns(VQA_SCORES, uid="VARCHAR"),
                "caption_source": ("VARCHAR", "original, or a captioner's name"),
                **_STORED,
            },
            f"SELECT uid, caption_source, {', '.join(_STORED)} FROM stored_vqa_scores ORDER BY caption_source, uid",  # noqa: S608
            by_shard=True,
        ),
    ),
    views=(
        View(
            "scorer_agreement",
            "How far similarity and the vqa scorer agree: over the captions of a source, and which of a "
            "caption and the original each prefers",
            f"""
            WITH scored AS (FROM captions WHERE similarity IS NOT NULL AND vqa IS NOT NULL),
            ranked AS (SELECT *, {_RANK.format("similarity")}, {_RANK.format("vqa")} FROM scored),
            pairs AS (
                SELECT c.caption_source, sign(c.similarity - o.similarity) AS by_similarity,
                    sign(c.vqa - o.vqa) AS by_vqa
                FROM scored c JOIN scored o ON o.uid = c.uid AND o.caption_source = 'original'
                WHERE c.caption_source <> 'original' AND c.similarity <> o.similarity AND c.vqa <> o.vqa
            ), agreed AS (
                SELECT caption_source, count(*) AS pairs, avg((by_similarity = by_vqa)::INTEGER) AS same_preference,
                    avg((by_similarity > 0)::INTEGER) AS similarity_prefers, avg((by_vqa > 0)::INTEGER) AS vqa_prefers
                FROM pairs GROUP BY caption_source
            )
            SELECT r.caption_source, count(*) AS captions, avg(similarity) AS mean_similarity, avg(vqa) AS mean_vqa,
                CASE WHEN count(*) > 2 THEN corr(similarity_rank, vqa_rank) END AS rank_correlation,
                any_value(pairs) AS pairs, any_value(same_preference) AS same_preference,
                any_value(similarity_prefers) AS similarity_prefers, any_value(vqa_prefers) AS vqa_prefers
            FROM ranked r LEFT JOIN agreed USING (caption_source)
            GROUP BY r.caption_source ORDER BY r.caption_source <> 'original', r.caption_source
            """,  # noqa: S608
            {
                "captions": "captions that both have scored",
                "mean_similarity": "mean similarity of these [-1 to 1]",
                "mean_vqa": "mean score by the vqa scorer [0 to 1]",
                "rank_correlation": "Spearman's correlation of the two scores [-1 to 1]",
                "pairs": "samples where both prefer one of the caption and the original; null for the originals",
                "same_preference": "share of them where both prefer the same one [0 to 1]",
                "similarity_prefers": "share of them where similarity prefers the caption of this source [0 to 1]",
                "vqa_prefers": "share of them where the vqa scorer does [0 to 1]",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Agreement of the scorers",
            "How similarity and the truth of captions, as a vision-language model sees it (column vqa), go together: "
            "Spearman's correlation over the captions of a source, and how often both prefer the same one of a caption "
            "and the original.",
            """
            SELECT caption_source AS source, captions, mean_similarity AS similarity, mean_vqa AS vqa,
                rank_correlation AS correlation, pairs, same_preference AS same, similarity_prefers, vqa_prefers
            FROM scorer_agreement
            """,
            order=42,
            only_with="scorer_agreement",
        ),
    ),
)
