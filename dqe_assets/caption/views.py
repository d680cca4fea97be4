"""Views and report sections of captions: how they were made, what they cost, and how the models compare."""

from __future__ import annotations

from dqe_assets.caption.flags import FLAGS
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.core.relations import (
    Explanation,
    Problem,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
    occurrences,
    sql_file,
)
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.ingest.tables import RAW_SAMPLES

_GENERATED = columns(
    SYNTHETIC_CAPTIONS,
    finish_reason="VARCHAR",
    flags="VARCHAR[]",
    model="VARCHAR",
    revision="VARCHAR",
    prompt="VARCHAR",
    prompt_hash="VARCHAR",
    prompt_tokens="INTEGER",
    completion_tokens="INTEGER",
    seconds="DOUBLE",
    finished_at="TIMESTAMP",
    attempts="INTEGER",
    error="VARCHAR",
)
_PLACE = {"shard": ("VARCHAR", "partition key"), "caption_source": ("VARCHAR", "captioner")}
_BUSY = "time for which at least one of its captions was under way [seconds]"


def busy(group: str, of: str) -> str:
    """SQL that gives ``busy_seconds`` for each group: as ``dqe_assets.caption.accounting.busy_seconds``."""
    return f"""
        SELECT {group}, sum(greatest(epoch_us(finished_at) - greatest(start, covered), 0)) / 1e6 AS busy_seconds
        FROM (
            SELECT {group}, finished_at, start, coalesce(max(epoch_us(finished_at)) OVER (
                PARTITION BY {group} ORDER BY start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), start) AS covered
            FROM (
                SELECT *, epoch_us(finished_at) - round(seconds * 1e6)::BIGINT AS start
                FROM {of} WHERE seconds IS NOT NULL
            )
        ) GROUP BY {group}
    """  # noqa: S608


_ACCOUNT = {
    "captions": ("BIGINT", "captions written"),
    "errors": ("BIGINT", "samples that it failed to caption"),
    "attempts": ("BIGINT", "requests to the model, those that failed among them"),
    "prompt_tokens": ("BIGINT", "tokens of its prompts and images [tokens]"),
    "completion_tokens": ("BIGINT", "tokens of its captions [tokens]"),
    "request_seconds": ("DOUBLE", "sum of the times of its captions, many of which ran at once [seconds]"),
    "busy_seconds": ("DOUBLE", _BUSY),
    "captions_per_second": ("DOUBLE", "captions / busy_seconds [captions per second]"),
    "cost": ("DOUBLE", "busy_seconds at the price of an hour; null if no price is configured"),
}

COMPARISON = """
SELECT caption_source AS source, captions, seconds_per_caption AS seconds_each, cost_per_thousand AS cost_per_1000,
    mean_similarity AS similarity, preferred_to_original AS preferred, original_preferred AS original, preference,
    errors, flagged, CASE WHEN independent THEN 'yes' WHEN NOT independent THEN 'no' END AS independent
FROM captioner_comparison
"""
"""The captioners, as people read them."""

RELATIONS = Relations(
    reads=(
        Read(
            SYNTHETIC_CAPTIONS_PREFIX,
            SYNTHETIC_CAPTIONS,
            " ".join(["uid", "caption", *_GENERATED]),
            rest="caption_source",
        ),
    ),
    tables=(
        Table(
            "caption_generation",
            "How each synthetic caption was made: model, prompt, tokens, time, attempts, and what is wrong with it",
            {"uid": columns(RAW_SAMPLES, uid="VARCHAR")["uid"], **_PLACE, **_GENERATED},
            f"""
            SELECT uid, r.shard, caption_source, {", ".join(f"c.{name}" for name in _GENERATED)}
            FROM stored_synthetic_captions c JOIN stored_raw_samples r USING (uid) ORDER BY caption_source, shard, uid
            """,  # noqa: S608 - names of columns
            by_shard=True,
        ),
        Table(
            "busy_times",
            "The times in which at least one caption of a shard was under way, those without a pause as one",
            _PLACE
            | {
                "finished_at": ("TIMESTAMP", "when the last caption of that time was finished, UTC"),
                "seconds": ("DOUBLE", "how long it took [seconds]"),
            },
            sql_file(__file__, "busy_times"),
            by_shard=True,
        ),
        Table(
            "caption_accounting",
            "What captions took, by captioner and shard: tokens, time, cost",
            _PLACE | _ACCOUNT,
            sql_file(__file__, "caption_accounting"),
            by_shard=True,
        ),
        Table(
            "captioner_comparison",
            "The models side by side, and next to the captions that the images came with",
            {
                "caption_source": ("VARCHAR", "original, or a captioner's name"),
                "model": ("VARCHAR", "model that wrote the captions; null for the originals"),
                "captions": ("BIGINT", "captions that there are"),
                "errors": ("BIGINT", "samples that it failed to caption; null for the originals"),
                "seconds_per_caption": ("DOUBLE", "busy seconds for each caption; null where no model ran [seconds]"),
                "cost_per_thousand": ("DOUBLE", "cost of a thousand captions; null if no price is configured"),
                "mean_completion_tokens": ("DOUBLE", "mean length as the model counts it [tokens]"),
                "mean_similarity": ("DOUBLE", "mean similarity of the captions with their images [-1 to 1]"),
                "independent": (
                    "BOOLEAN",
                    "false where the scorer shares its image backbone, and similarity and preference prove nothing",
                ),
                "preferred_to_original": (
                    "DOUBLE",
                    "share of the images with both captions where it is preferred above 70 % to the original [0 to 1]",
                ),
                "original_preferred": ("DOUBLE", "share of them where the original is [0 to 1]"),
                "preference": (
                    "VARCHAR",
                    (
                        "against each other source: on how many images it is preferred above 70 %, and on how many the "
                        "other"
                    ),
                ),
                "flagged": ("BIGINT", "captions with at least one flag; null for the originals"),
                "flags": ("VARCHAR", "how many captions have each flag"),
            },
            sql_file(__file__, "captioner_comparison", busy=busy("caption_source", "busy_times")),
        ),
    ),
    views=(
        View(
            "caption_flags",
            "What is wrong with synthetic captions: how many have each flag, by captioner",
            occurrences("caption_generation", "flags", "flag", FLAGS),
            {
                "caption_source": _PLACE["caption_source"][1],
                "flag": "what is wrong",
                "meaning": "what that means",
                "captions": "captions with this flag",
                "share": "of all texts that it wrote [0 to 1]",
                "example": "one of them",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Captioners",
            "The models side by side. A caption is preferred where its preference is above 70 %. Column preferred: the "
            "share of the images where the model's caption is preferred to the original. Column original: the share "
            "where the original is preferred. Column preference: on how many images each of the two is preferred, "
            "against each other source.",
            COMPARISON,
            order=50,
        ),
    ),
    problems=(
        Problem(
            "captions by models are missing or flawed",
            """
            SELECT count(*) FILTER (error IS NOT NULL OR len(flags) > 0), count(*),
                (SELECT 'most: ' || first(flag) FROM caption_flags)
            FROM caption_generation WHERE finish_reason <> 'no_image'
            """,
            "SELECT * FROM caption_flags",
        ),
    ),
    explanations=(
        Explanation(
            "Synthetic captions",
            (SYNTHETIC_CAPTIONS_PREFIX,),
            """
            SELECT caption_source, model, prompt, finish_reason, flags, seconds, attempts, error
            FROM caption_generation WHERE uid = ? ORDER BY caption_source
            """,
            order=40,
        ),
    ),
)
