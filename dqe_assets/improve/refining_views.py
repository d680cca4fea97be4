"""Views and report sections of asking again for captions: every answer, and what each round brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.views import busy
from dqe_assets.core.relations import (
    Explanation,
    GallerySection,
    Read,
    Relations,
    ReportSection,
    Table,
    Temporary,
    View,
    columns,
    sql_file,
)
from dqe_assets.core.schema import REFINED
from dqe_assets.improve.tables import REFINED_CAPTIONS

if TYPE_CHECKING:
    import pyarrow as pa

_STORED = columns(
    REFINED_CAPTIONS,
    uid="VARCHAR",
    caption_source="VARCHAR",
    round="INTEGER",
    candidate="INTEGER",
    reason="VARCHAR",
    text="VARCHAR",
    caption="VARCHAR",
    flags="VARCHAR[]",
    veto="VARCHAR",
    finish_reason="VARCHAR",
    error="VARCHAR",
    similarity="FLOAT",
    previous_similarity="FLOAT",
    accepted="BOOLEAN",
    words="INTEGER",
    previous_words="INTEGER",
    tokens="INTEGER",
    truncated="BOOLEAN",
    independent="BOOLEAN",
    model="VARCHAR",
    revision="VARCHAR",
    prompt="VARCHAR",
    prompt_hash="VARCHAR",
    temperature="FLOAT",
    prompt_tokens="INTEGER",
    completion_tokens="INTEGER",
    seconds="DOUBLE",
    attempts="INTEGER",
    cost="DOUBLE",
    finished_at="TIMESTAMP",
)

_ROUNDS = sql_file(__file__, "refining_rounds", busy=busy("caption_source, round", of="refined_captions"))

RELATIONS = Relations(
    reads=(Read("refined_captions", REFINED_CAPTIONS, " ".join(_STORED)),),
    temporary=(
        # The refined caption of each sample that has one, with its score.
        Temporary(
            "final_refined",
            f"""
            SELECT r.shard, f.uid, '{REFINED}' AS caption_source, f.caption, f.finish_reason, f.error, f.model,
                f.similarity, f.tokens, f.truncated
            FROM stored_refined_captions f JOIN stored_raw_samples r USING (uid)
            WHERE f.accepted QUALIFY row_number() OVER (PARTITION BY f.uid ORDER BY f.round DESC) = 1
            """,  # noqa: S608
        ),
    ),
    tables=(
        Table(
            "refined_captions",
            "Every answer of every round in which captions were asked for again, and which were accepted",
            _STORED,
            "SELECT * FROM stored_refined_captions ORDER BY uid, round, candidate",
            by_shard=True,
        ),
    ),
    views=(
        View(
            "refining_rounds",
            "What each round of asking again brought, and what it took; where independent is false, a gain proves "
            "nothing",
            _ROUNDS,
            {
                "asked": "samples whose caption was asked for again",
                "candidates": "answers asked for",
                "answers": "captions that came",
                "vetoed": "of them, those that were not accepted whatever their similarity: see refined_captions.veto",
                "accepted": "samples whose caption an answer took the place of",
                "accepted_share": "accepted / asked [0 to 1]",
                "mean_gain": "mean of the accepted answers' similarity less that of what was there",
                "mean_before": "mean similarity of the captions of all samples asked about, before the round [-1 to 1]",
                "mean_after": "the same after it [-1 to 1]",
                "words_before": "mean length of the captions that were replaced [words]",
                "words_after": "mean length of what took their place [words]",
                "prompt_tokens": "of all prompts and images [tokens]",
                "completion_tokens": "of all answers [tokens]",
                "busy_seconds": "time for which at least one answer was under way [seconds]",
                "cost": "sum of the answers' cost; null without a price",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Refining",
            "What asking again for captions that fit badly brought, round by round: how many were accepted and what "
            "they gained, how well all that were asked about fit before and after, and the words of what was replaced, "
            "before and now. Where independent says no, the scorer shares a backbone with who was asked or with what "
            "the prompt told, and a gain proves nothing.",
            """
            SELECT caption_source AS source, round, asked, accepted, accepted_share AS share, mean_gain AS gain,
                mean_before AS before, mean_after AS after, words_before AS words, words_after AS now, vetoed,
                prompt_tokens + completion_tokens AS tokens, busy_seconds AS seconds, cost,
                CASE WHEN independent THEN 'yes' ELSE 'no' END AS independent
            FROM refining_rounds
            """,
            order=70,
            only_with="refining_rounds",
        ),
    ),
    gallery_sections=(
        GallerySection(
            "refined",
            "Refined",
            "Captions that were asked for again, those first that gained most, next to the captions before.",
            """
            SELECT uid FROM refined_captions WHERE accepted
            GROUP BY uid ORDER BY arg_max(similarity, round) - arg_min(previous_similarity, round) DESC NULLS LAST, uid
            """,
            order=30,
        ),
    ),
    explanations=(
        Explanation(
            "Asked for again",
            ("refined_captions",),
            """
            SELECT caption_source, round, candidate, reason, previous_similarity, similarity, accepted, veto, caption,
                model, prompt, temperature, error
            FROM refined_captions WHERE uid = ? ORDER BY round, candidate
            """,
            order=80,
        ),
    ),
)


def rounds_of(refined_captions: pa.Table) -> pa.Table:
    """The view ``refining_rounds`` of a table of ``REFINED_CAPTIONS``."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("refined_captions", refined_captions)
        return connection.sql(_ROUNDS()).to_arrow_table()
