"""The warehouse's tables of how captions were made, what they took, and how the models compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.flags import FLAGS
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.core.relations import Table, View, columns, occurrences
from dqe_assets.ingest.tables import RAW_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def generated_captions(files: Iterable[tuple[str, str]]) -> str:
    """SQL that gives a row for each sample and captioner, as ``caption_generation`` has them.

    Args:
        files: a captioner's name as an SQL literal, and the SQL that reads its files.
    """
    wanted = {"shard": "VARCHAR", "uid": "VARCHAR", "caption_source": "VARCHAR"} | {
        name: sql_type for name, (sql_type, _) in _GENERATED.items()
    }
    nothing = ", ".join(f"NULL::{sql_type} AS {name}" for name, sql_type in wanted.items())
    read = ", ".join(
        "make_timestamp(epoch_us(c.finished_at)) AS finished_at" if name == "finished_at" else f"c.{name}"
        for name in _GENERATED
    )
    return " UNION ALL ".join(
        [
            f"SELECT {nothing} WHERE false",
            *(
                f"SELECT r.shard, c.uid, {name} AS caption_source, {read} "  # noqa: S608
                f"FROM {parquet} c JOIN raw_samples r USING (uid)"
                for name, parquet in files
            ),
        ]
    )


def busy(group: str, of: str = "caption_generation") -> str:
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


_WRITTEN = "count(*) FILTER (finish_reason IN ('stop', 'length'))"
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

CAPTION_TABLES = (
    Table(
        "caption_generation",
        "How each synthetic caption was made: model, prompt, tokens, time, attempts, and what is wrong with it",
        {"uid": columns(RAW_SAMPLES, uid="VARCHAR")["uid"], **_PLACE, **_GENERATED},
        f"SELECT uid, shard, caption_source, {', '.join(_GENERATED)} FROM generated "  # noqa: S608
        "ORDER BY caption_source, shard, uid",
    ),
    Table(
        "caption_accounting",
        "What captions took, by captioner and shard: tokens, time, cost",
        _PLACE | _ACCOUNT,
        f"""
        WITH busy AS ({busy("caption_source, shard")}), taken AS (
            SELECT shard, caption_source, {_WRITTEN} AS captions, count(*) FILTER (finish_reason = 'error') AS errors,
                sum(attempts)::BIGINT AS attempts, sum(prompt_tokens)::BIGINT AS prompt_tokens,
                sum(completion_tokens)::BIGINT AS completion_tokens, sum(seconds) AS request_seconds
            FROM caption_generation GROUP BY caption_source, shard
        )
        SELECT taken.*, busy_seconds, taken.captions / nullif(busy_seconds, 0), busy_seconds / 3600 * price_per_hour
        FROM taken LEFT JOIN busy USING (caption_source, shard) LEFT JOIN captioners ON name = caption_source
        ORDER BY caption_source, shard
        """,  # noqa: S608
    ),
    Table(
        "captioner_comparison",
        "The models beside one another, and beside the captions that the images came with",
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
                "against each other source: on how many images it is preferred above 70 %, and on how many the other",
            ),
            "flagged": ("BIGINT", "captions with at least one flag; null for the originals"),
            "flags": ("VARCHAR", "how many captions have each flag"),
        },
        f"""
        WITH busy AS ({busy("caption_source")}), quality AS (
            SELECT caption_source, count(caption) AS captions, avg(similarity) AS mean_similarity
            FROM captions GROUP BY caption_source
        ), made AS (
            SELECT caption_source, count(*) FILTER (finish_reason = 'error') AS errors,
                avg(completion_tokens) AS mean_completion_tokens, count(*) FILTER (len(flags) > 0) AS flagged
            FROM caption_generation GROUP BY caption_source
        ), flagged AS (
            SELECT caption_source, string_agg(flag || ' ' || n, ', ' ORDER BY n DESC, flag) AS flags
            FROM (
                SELECT caption_source, flag, count(*) AS n
                FROM (SELECT caption_source, unnest(flags) AS flag FROM caption_generation)
                GROUP BY caption_source, flag
            )
            GROUP BY caption_source
        ), pairs AS (
            SELECT source_a AS caption_source, source_b AS other, a_above_70 AS wins, b_above_70 AS losses, n
            FROM caption_preference
            UNION ALL
            SELECT source_b, source_a, b_above_70, a_above_70, n FROM caption_preference
        ), preferred AS (
            SELECT caption_source,
                sum(wins) FILTER (other = 'original') / nullif(sum(n) FILTER (other = 'original'), 0) AS wins,
                sum(losses) FILTER (other = 'original') / nullif(sum(n) FILTER (other = 'original'), 0) AS losses,
                string_agg(other || ' ' || wins || ':' || losses, ', ' ORDER BY other <> 'original', other)
                    AS preference
            FROM pairs WHERE n > 0 GROUP BY caption_source
        )
        SELECT q.caption_source, c.model, q.captions, made.errors, busy_seconds / nullif(q.captions, 0),
            1000 * busy_seconds / 3600 * c.price_per_hour / nullif(q.captions, 0), made.mean_completion_tokens,
            q.mean_similarity, c.independent, preferred.wins, preferred.losses, preferred.preference,
            made.flagged, flagged.flags
        FROM quality q
        LEFT JOIN captioners c ON c.name = q.caption_source
        LEFT JOIN made USING (caption_source)
        LEFT JOIN busy USING (caption_source)
        LEFT JOIN flagged USING (caption_source)
        LEFT JOIN preferred USING (caption_source)
        ORDER BY q.caption_source <> 'original', q.caption_source
        """,  # noqa: S608
    ),
)

CAPTION_VIEWS = (
    View(
        "caption_flags",
        "What is wrong with synthetic captions: how many have each flag, by captioner",
        occurrences("caption_generation", "flags", "flag", FLAGS),
        {
            "flag": "what is wrong",
            "meaning": "what that means",
            "captions": "captions with this flag",
            "share": "of all texts that it wrote [0 to 1]",
            "example": "one of them",
        },
    ),
)

CAPTIONERS_REPORT = """
SELECT caption_source AS source, captions, seconds_per_caption AS seconds_each, cost_per_thousand AS cost_per_1000,
    mean_similarity AS similarity, preferred_to_original AS preferred, original_preferred AS original, preference,
    errors, flagged, CASE WHEN independent THEN 'yes' WHEN NOT independent THEN 'no' END AS independent
FROM captioner_comparison
"""
