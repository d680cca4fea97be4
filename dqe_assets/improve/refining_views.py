"""What asking again for captions brought: the warehouse's table of every answer, and the view of rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.views import busy
from dqe_assets.core import schema as schemas
from dqe_assets.core.relations import Table, View, columns
from dqe_assets.improve.tables import REFINED_CAPTIONS

if TYPE_CHECKING:
    import pyarrow as pa

REFINED_ROWS = "refined_rows"
"""What the asset ``refined_captions`` is called while the warehouse is built."""

REFINED_READ = {
    "refined_captions": (
        REFINED_CAPTIONS,
        (
            "uid caption_source round candidate reason text caption flags veto finish_reason error similarity "
            "previous_similarity accepted words previous_words tokens truncated independent model revision prompt "
            "prompt_hash temperature prompt_tokens completion_tokens seconds attempts cost finished_at"
        ),
    )
}

FINAL_REFINED = f"""
SELECT r.shard, f.uid, '{schemas.REFINED}' AS caption_source, f.caption, f.finish_reason, f.error, f.model,
    f.similarity, f.tokens, f.truncated
FROM {REFINED_ROWS} f JOIN raw_samples r USING (uid)
WHERE f.accepted QUALIFY row_number() OVER (PARTITION BY f.uid ORDER BY f.round DESC) = 1
"""  # noqa: S608
"""The refined caption of each sample that has one, with its score."""

REFINING_TABLE = Table(
    "refined_captions",
    "Every answer of every round in which captions were asked for again, and which were accepted",
    columns(
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
    ),
    f"""
    SELECT * REPLACE (make_timestamp(epoch_us(finished_at)) AS finished_at) FROM {REFINED_ROWS}
    ORDER BY uid, round, candidate
    """,  # noqa: S608
)

_ROUNDS = f"""
WITH busy AS ({busy("caption_source, round", of="refined_captions")}), asked AS (
    SELECT caption_source, round, uid, any_value(previous_similarity) AS before,
        any_value(previous_words) AS words_before, bool_or(accepted) AS accepted,
        any_value(similarity) FILTER (accepted) AS after, any_value(words) FILTER (accepted) AS words_after
    FROM refined_captions GROUP BY caption_source, round, uid
), outcome AS (
    SELECT caption_source, round, count(*) AS asked, count(*) FILTER (accepted) AS accepted,
        count(*) FILTER (accepted) / count(*) AS accepted_share, avg(after - before) AS mean_gain,
        avg(before) AS mean_before, avg(coalesce(after, before)) AS mean_after,
        avg(words_before) FILTER (accepted) AS words_before, avg(words_after) AS words_after
    FROM asked GROUP BY caption_source, round
), taken AS (
    SELECT caption_source, round, count(*) AS candidates, count(caption) AS answers, count(veto) AS vetoed,
        sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens,
        sum(cost) AS cost, bool_and(independent) AS independent
    FROM refined_captions GROUP BY caption_source, round
)
SELECT caption_source, round, asked, candidates, answers, vetoed, accepted, accepted_share, mean_gain, mean_before,
    mean_after, words_before, words_after, prompt_tokens, completion_tokens, busy_seconds, cost, independent
FROM outcome JOIN taken USING (caption_source, round) LEFT JOIN busy USING (caption_source, round)
ORDER BY caption_source, round
"""  # noqa: S608

REFINING_VIEW = View(
    "refining_rounds",
    "What each round of asking again brought, and what it took; where independent is false, a gain proves nothing",
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
)

REFINING_REPORT = """
SELECT caption_source AS source, round, asked, accepted, accepted_share AS share, mean_gain AS gain,
    mean_before AS before, mean_after AS after, words_before AS words, words_after AS now, vetoed,
    prompt_tokens + completion_tokens AS tokens, busy_seconds AS seconds, cost,
    CASE WHEN independent THEN 'yes' ELSE 'no' END AS independent
FROM refining_rounds
"""

REFINED_SAMPLES = """
SELECT r.uid FROM refined_captions r WHERE r.accepted
GROUP BY r.uid ORDER BY arg_max(r.similarity, r.round) - arg_min(r.previous_similarity, r.round) DESC NULLS LAST, r.uid
"""
"""Samples whose caption was refined, those first that gained most."""


def rounds_of(refined_captions: pa.Table) -> pa.Table:
    """The view ``refining_rounds`` of a table of ``REFINED_CAPTIONS``."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("refined_captions", refined_captions)
        return connection.sql(_ROUNDS).to_arrow_table()
