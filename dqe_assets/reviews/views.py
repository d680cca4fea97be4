"""What decisions of people add to the warehouse, the report and the explanations."""

from __future__ import annotations

from dqe_assets.core.relations import Explanation, Read, Relations, ReportSection, Table, Temporary, columns
from dqe_assets.core.schema import REVIEWED
from dqe_assets.reviews.tables import REVIEWED_CAPTION_SCORES, REVIEWS

_DECIDED = columns(
    REVIEWS,
    uid="VARCHAR",
    review="VARCHAR",
    review_tags="VARCHAR[]",
    caption="VARCHAR",
    decided_at="TIMESTAMP",
    decided_by="VARCHAR",
    why="VARCHAR",
)

RELATIONS = Relations(
    reads=(
        Read("reviews", REVIEWS, " ".join([*_DECIDED, "decisions"])),
        Read("reviewed_caption_scores", REVIEWED_CAPTION_SCORES, " ".join(REVIEWED_CAPTION_SCORES.names)),
    ),
    temporary=(
        Temporary(
            "reviewed_captions",
            f"""
            SELECT r.shard, v.uid, '{REVIEWED}' AS caption_source, v.caption, NULL::VARCHAR AS finish_reason,
                NULL::VARCHAR AS error, NULL::VARCHAR AS model, s.similarity, s.tokens, s.truncated
            FROM stored_reviews v JOIN stored_raw_samples r USING (uid)
            LEFT JOIN stored_reviewed_caption_scores s USING (uid) WHERE v.caption IS NOT NULL
            """,  # noqa: S608
        ),
    ),
    tables=(
        Table(
            "reviews",
            "What people decided about samples: only those about which something holds",
            _DECIDED,
            f"SELECT {', '.join(_DECIDED)} FROM stored_reviews WHERE decided_at IS NOT NULL ORDER BY uid",  # noqa: S608
            by_shard=True,
        ),
        Table(
            "review_decisions",
            "Every decision of people about samples, those too that hold no longer",
            {
                "uid": _DECIDED["uid"],
                "number": ("BIGINT", "number of the import, as dqe review list shows it: a later one has precedence"),
                "decided_at": ("TIMESTAMP", "when it was made, UTC"),
                "decided_by": ("VARCHAR", "who made it"),
                "decision": ("VARCHAR", "drop, keep, tag, caption, or none: all earlier ones are taken back"),
                "value": ("VARCHAR", "the tag, or the caption"),
                "why": ("VARCHAR", "the reason that was given"),
                "holds": ("BOOLEAN", "false where a later decision took its place, or it was taken back"),
            },
            """
            SELECT uid, d.number, make_timestamp(epoch_us(d.at)), d.by, d.decision, d.value, d.why, d.holds
            FROM (SELECT uid, unnest(decisions) AS d FROM stored_reviews) ORDER BY uid, d.number
            """,
            by_shard=True,
        ),
    ),
    report_sections=(
        ReportSection(
            "Decisions of people",
            "What was decided with dqe review: samples to keep and to drop, tags, and captions.",
            """
            SELECT decided_by, count(*) FILTER (review = 'keep') AS keep,
                count(*) FILTER (review = 'drop') AS "drop", count(review_tags) AS tagged,
                count(caption) AS with_caption, max(decided_at) AS last
            FROM reviews GROUP BY ALL ORDER BY count(*) DESC, decided_by
            """,
            order=28,
            only_with="reviews",
        ),
    ),
    explanations=(
        Explanation(
            "Decisions of people",
            ("reviews",),
            "SELECT * EXCLUDE uid FROM review_decisions WHERE uid = ? ORDER BY number",
            order=23,
            glance=True,
        ),
    ),
)
