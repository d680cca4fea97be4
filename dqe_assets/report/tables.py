"""Tables that join several stages: samples, captions, shards and captioners, with their views and report sections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.relations import (
    Explanation,
    GallerySection,
    OverAll,
    Problem,
    Relations,
    ReportSection,
    Table,
    Temporary,
    View,
    columns,
    meaning,
    sql_file,
)
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX, Column, table_schema
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.ingest.views import FETCHED
from dqe_assets.report.signal_views import sample_columns
from dqe_assets.reviews.tables import REVIEWS
from dqe_assets.rights.tables import PREFIX, RIGHTS
from dqe_assets.score.tables import CAPTION_SCORES, VQA_SCORES
from dqe_assets.score.views import long_captions_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

    from dqe_assets.core.signals import Signal

MATERIALISATIONS = table_schema(
    [
        Column("asset", pa.string(), "asset key", nullable=False),
        Column("partition", pa.string(), "partition key; null for an asset without partitions"),
        Column("materialised_at", pa.timestamp("us", tz="UTC"), "when it was last written, UTC"),
        Column("code_version", pa.string(), "version of the code that wrote it"),
        Column("rows", pa.int64(), "rows written", "rows"),
        Column("bytes", pa.int64(), "size of what was written", "bytes"),
        Column("fingerprint", pa.string(), "hex digest of everything that went into it"),
    ]
)
"""Schema of what was written when: a row for each asset and partition."""

_UID = columns(RAW_SAMPLES, uid="VARCHAR")
_PLACE = _UID | columns(RAW_SAMPLES, source="VARCHAR", shard="VARCHAR")
_RIGHTS = {
    f"{PREFIX}{name}": ("BOOLEAN" if name == "c2pa" else "VARCHAR", meaning(RIGHTS, name))
    for name in RIGHTS.names
    if name != "uid"
}
_IS_DUPLICATE = "whether another sample of its duplicate cluster (kind any) is the one to keep"

_TABLES = (
    Table(
        "captions",
        "Every sample's caption from every caption source, with its score: one row for each sample and source",
        _UID
        | {
            "caption_source": (
                "VARCHAR",
                "original, a captioner's name, refined (one was asked for again), or reviewed (a person chose it)",
            ),
            "caption": ("VARCHAR", "the caption as found, or the straightforward synthetic caption; null if none"),
        }
        | columns(
            CAPTION_SCORES,
            similarity="FLOAT",
            tokens="INTEGER",
            truncated="BOOLEAN",
            similarity_truncated="FLOAT",
            similarity_sentences_mean="FLOAT",
            similarity_sentences_max="FLOAT",
        )
        | {
            "vqa": ("FLOAT", meaning(VQA_SCORES, "score")),
            "finish_reason": ("VARCHAR", "how generation ended: stop, length, error or no_image; null for an original"),
            "error": ("VARCHAR", "the error, if finish_reason is error"),
        },
        """
        SELECT c.uid, c.caption_source, c.caption, s.similarity, s.tokens, s.truncated, s.similarity_truncated,
            s.similarity_sentences_mean, s.similarity_sentences_max, v.score, c.finish_reason, c.error
        FROM all_captions c LEFT JOIN all_scores s USING (uid, caption_source)
        LEFT JOIN stored_vqa_scores v USING (uid, caption_source)
        ORDER BY c.place, c.uid, c.caption_source
        """,
        by_shard=True,
    ),
    Table(
        "captions_by_shard",
        "The captions of each shard and caption source: how many, and how well they fit, as counts and sums",
        columns(RAW_SAMPLES, shard="VARCHAR")
        | {
            "caption_source": ("VARCHAR", "caption source"),
            "captions": ("BIGINT", "captions"),
            "errors": ("BIGINT", "samples that failed to be captioned"),
            "scored": ("BIGINT", "captions with a similarity"),
            "sum_similarity": ("DOUBLE", "sum of their similarities"),
            "compared": ("BIGINT", "those of them whose original caption has a similarity too"),
            "sum_gain": ("DOUBLE", "sum of their similarities less those of the originals"),
            "better": ("BIGINT", "those of them that fit better than the original"),
            "measured": ("BIGINT", "captions of which the scorer counted the tokens"),
            "sum_tokens": ("BIGINT", "their tokens [tokens]"),
            "truncated": ("BIGINT", "those of them that the scorer could not read whole"),
            "model": ("VARCHAR", "model that wrote them; null for originals and reviewed ones"),
        },
        sql_file(__file__, "captions_by_shard"),
        by_shard=True,
    ),
    Table(
        "shards",
        "Every shard: how many samples were read, how well they fit their captions, how many are duplicates",
        columns(RAW_SAMPLES, source="VARCHAR", shard="VARCHAR")
        | {
            "rows": ("BIGINT", "samples of the shard"),
            "ok": ("BIGINT", "samples with a readable image"),
            "failed": ("BIGINT", "samples without"),
            "success_rate": ("DOUBLE", "ok / rows [0 to 1]"),
            "mean_original_similarity": ("DOUBLE", "mean similarity of the original captions [-1 to 1]"),
            "mean_best_similarity": ("DOUBLE", "mean similarity of each sample's best caption [-1 to 1]"),
            "duplicates": ("BIGINT", "samples that another one of their duplicate cluster stands for"),
            "bytes": ("BIGINT", "size of the image files [bytes]"),
        },
        """
        SELECT source, shard, count(*), count(*) FILTER (status = 'ok'), count(*) FILTER (status <> 'ok'),
            count(*) FILTER (status = 'ok') / count(*), avg(original_similarity), avg(best_similarity),
            count(*) FILTER (is_duplicate), coalesce(sum(bytes), 0)
        FROM samples GROUP BY source, shard ORDER BY source, shard
        """,
    ),
    Table(
        "captioners",
        "Every captioner: what it wrote, and how its captions compare with the originals",
        {
            "name": ("VARCHAR", "captioner, as caption_source"),
            "kind": ("VARCHAR", "kind of captioner; null if it is no longer in the configuration"),
            "model": ("VARCHAR", "model that wrote the captions"),
            "captions": ("BIGINT", "captions written"),
            "errors": ("BIGINT", "samples that it failed to caption"),
            "mean_similarity": ("DOUBLE", "mean similarity of its captions with their images [-1 to 1]"),
            "mean_gain": ("DOUBLE", "mean of its similarity less that of the original caption, where both have one"),
            "share_better_than_original": ("DOUBLE", "share of those samples whose similarity it raised [0 to 1]"),
            "independent": (
                "BOOLEAN",
                "false where the scorer shares its image backbone, and its similarities prove nothing; null if unknown",
            ),
            "mean_tokens": ("DOUBLE", "mean length of its captions [tokens]"),
            "truncated_share": ("DOUBLE", "share of its captions that the scorer could not read whole [0 to 1]"),
            "scorer": ("VARCHAR", "model that scored them"),
            "price_per_hour": ("DOUBLE", "what an hour of captioning costs; null if no price is configured"),
        },
        sql_file(__file__, "captioners"),
    ),
    Table(
        "materialisations",
        "What was last written to each asset and partition, when, and by which version of the code",
        columns(
            MATERIALISATIONS,
            asset="VARCHAR",
            partition="VARCHAR",
            materialised_at="TIMESTAMP",
            code_version="VARCHAR",
            rows="BIGINT",
            bytes="BIGINT",
            fingerprint="VARCHAR",
        ),
        """
        SELECT asset, partition, materialised_at, code_version, "rows", bytes, fingerprint
        FROM materialised ORDER BY asset, partition
        """,
    ),
)


def _samples_of(signals: Mapping[str, Signal]) -> Table:
    """The table of samples, with a column for each signal."""
    of_signals, selected, joins = sample_columns(signals)
    return Table(
        "samples",
        "Every sample of every source, failed ones too, with its features, its scores and its duplicate cluster",
        _PLACE
        | columns(
            RAW_SAMPLES,
            row="INTEGER",
            image_name="VARCHAR",
            url="VARCHAR",
            caption="VARCHAR",
            format="VARCHAR",
            bytes="BIGINT",
            width="INTEGER",
            height="INTEGER",
        )
        | {"megapixels": ("FLOAT", "width x height [million pixels]")}
        | columns(RAW_SAMPLES, status="VARCHAR", reason="VARCHAR")
        | FETCHED
        | columns(RAW_SAMPLES, source_metadata="VARCHAR")
        | columns(
            IMAGE_FEATURES,
            sharpness="FLOAT",
            brightness="FLOAT",
            contrast="FLOAT",
            colourfulness="FLOAT",
            top_label="VARCHAR",
        )
        | {
            "top_label_probability": ("FLOAT", "probability of the most probable class [0 to 1]"),
            "original_similarity": ("FLOAT", "similarity of the original caption and the image [-1 to 1]"),
            "best_source": ("VARCHAR", "caption source of its best caption; null if it has no caption or no image"),
            "best_similarity": ("FLOAT", "its similarity [-1 to 1]"),
            "is_duplicate": ("BOOLEAN", _IS_DUPLICATE),
            "cluster": ("VARCHAR", "duplicate cluster (kind any); null if it is alone"),
            **_RIGHTS,
            "review": ("VARCHAR", meaning(REVIEWS, "review")),
            "review_tags": ("VARCHAR[]", meaning(REVIEWS, "review_tags")),
            "contaminated": ("BOOLEAN", "whether it is in a reference set; null where there is no such set"),
        }
        | of_signals,
        sql_file(__file__, "samples", signals=selected, joins=joins),
        by_shard=True,
        over_all=OverAll(
            {
                "is_duplicate": "coalesce(NOT d.is_representative, false)",
                "cluster": "d.cluster",
                "contaminated": (
                    "CASE WHEN EXISTS (FROM stored_reference_features) "
                    "THEN t.uid IN (SELECT uid FROM contamination) END"
                ),
            },
            "LEFT JOIN duplicates d ON d.uid = t.uid AND d.kind = 'any'",
        ),
    )


_NO_CAPTION = "coalesce(trim(caption), '') = ''"

_ORIGINAL_CAPTION = meaning(RAW_SAMPLES, "caption")

_VIEWS = (
    View(
        "worst_captions",
        "Images with a caption, those first whose original caption fits least, and the best caption that there is",
        """
        SELECT s.uid, s.shard, s.image_name, s.caption, s.original_similarity, s.best_source,
            b.caption AS best_caption, s.best_similarity
        FROM samples s LEFT JOIN best_captions b USING (uid)
        WHERE s.status = 'ok' AND s.original_similarity IS NOT NULL
        ORDER BY s.original_similarity, s.uid
        """,
        {"caption": _ORIGINAL_CAPTION, "best_caption": "the best caption"},
    ),
    View(
        "best_originals",
        "Images with a caption, those first whose original caption fits best",
        """
        SELECT uid, shard, image_name, caption, original_similarity
        FROM samples WHERE status = 'ok' AND original_similarity IS NOT NULL
        ORDER BY original_similarity DESC, uid
        """,
    ),
    View(
        "most_improved",
        "Images whose best caption fits better than the original, those first that gain most; "
        "independent is false where the scorer shares a backbone with that captioner",
        """
        SELECT s.uid, s.shard, s.image_name, s.caption, s.original_similarity, s.best_source,
            b.caption AS best_caption, s.best_similarity, s.best_similarity - s.original_similarity AS gain,
            b.independent
        FROM samples s JOIN best_captions b USING (uid)
        WHERE s.best_similarity > s.original_similarity
        ORDER BY gain DESC, s.uid
        """,
        {
            "caption": _ORIGINAL_CAPTION,
            "best_caption": "the best caption",
            "gain": "best_similarity less original_similarity",
        },
    ),
    View(
        "well_aligned_unique",
        "Images that are nobody's duplicate and whose original caption fits at least as well as half of all do: "
        "a first choice to train on",
        """
        SELECT uid, shard, image_name, caption, original_similarity, width, height
        FROM samples
        WHERE status = 'ok' AND NOT is_duplicate
            AND original_similarity >= (SELECT median(original_similarity) FROM samples)
        ORDER BY original_similarity DESC, uid
        """,
    ),
    View(
        "quality_by_shard",
        "The shards, those first whose original captions fit least",
        """
        SELECT shard, "rows", success_rate, mean_original_similarity, mean_best_similarity,
            mean_best_similarity - mean_original_similarity AS gain, duplicates / "rows" AS duplicate_share,
            (SELECT max(materialised_at) FROM materialisations m
             WHERE m.asset = 'raw_samples' AND m.partition = shards.shard) AS materialised_at
        FROM shards ORDER BY mean_original_similarity, shard
        """,
        {
            "rows": "samples of the shard",
            "gain": "mean_best_similarity less mean_original_similarity",
            "duplicate_share": "duplicates / rows [0 to 1]",
        },
    ),
    View(
        "quality_by_source",
        "The sources, each with all its shards",
        """
        SELECT source, count(DISTINCT shard) AS shards, count(*) AS "rows", count(*) FILTER (status = 'ok') AS ok,
            count(*) FILTER (status <> 'ok') AS failed, count(*) FILTER (status = 'ok') / count(*) AS success_rate,
            count(*) FILTER (is_duplicate) AS duplicates, avg(original_similarity) AS mean_original_similarity,
            avg(best_similarity) AS mean_best_similarity
        FROM samples GROUP BY source ORDER BY source
        """,
        {
            "shards": "shards of the source",
            "rows": "samples of the source",
            "ok": "samples with a readable image",
            "failed": "samples without",
            "success_rate": "ok / rows [0 to 1]",
            "duplicates": "samples that another one of their duplicate cluster stands for",
            "mean_original_similarity": "mean similarity of the original captions [-1 to 1]",
            "mean_best_similarity": "mean similarity of each sample's best caption [-1 to 1]",
        },
    ),
    View(
        "caption_quality",
        "The caption sources side by side: how well their captions fit, and how long they are",
        """
        SELECT caption_source, count(caption) AS captions, avg(similarity) AS mean_similarity,
            quantile_cont(similarity, 0.1) AS p10_similarity, median(similarity) AS median_similarity,
            quantile_cont(similarity, 0.9) AS p90_similarity, avg(vqa) AS mean_vqa, avg(tokens) AS mean_tokens,
            avg(truncated::INTEGER) AS truncated_share
        FROM captions GROUP BY caption_source ORDER BY caption_source <> 'original', caption_source
        """,
        {
            "captions": "captions that there are",
            "mean_similarity": "mean similarity of the captions with their images [-1 to 1]",
            "p10_similarity": "a tenth of the captions lies below [-1 to 1]",
            "median_similarity": "half of the captions lies below [-1 to 1]",
            "p90_similarity": "nine tenths of the captions lie below [-1 to 1]",
            "mean_vqa": "mean truth of the captions by the vqa scorer; null without one [0 to 1]",
            "mean_tokens": "mean length of the captions [tokens]",
            "truncated_share": "share of the captions that the scorer could not read whole [0 to 1]",
        },
    ),
    View(
        "asset_sizes",
        "What the store holds of each asset",
        """
        SELECT asset, count(*) AS partitions, sum("rows")::BIGINT AS "rows", sum(bytes)::BIGINT AS bytes,
            max(materialised_at) AS materialised_at
        FROM materialisations GROUP BY asset ORDER BY asset
        """,
        {
            "partitions": "partitions written",
            "rows": "rows in all partitions [rows]",
            "bytes": "size of all partitions [bytes]",
            "materialised_at": "when the last of them was written, UTC",
        },
    ),
)


def _captions_in_words(connection: duckdb.DuckDBPyConnection) -> str:
    """What the scores are, who gave them, and what long captions change."""
    scorers = connection.execute("SELECT DISTINCT scorer FROM captioners ORDER BY scorer").fetchall()
    scored_by = f", by {scorers[0][0]}" if scorers else ""
    return (
        f"How well captions fit their images{scored_by}. Column better: the share that fits better than the original. "
        f"Column cut: the share that is too long for the encoder.{long_captions_in_words(connection)}"
    )


_RELATIONS = Relations(
    temporary=(
        Temporary("all_captions", sql_file(__file__, "all_captions")),
        Temporary(
            "all_scores",
            """
            FROM stored_caption_scores
            UNION ALL BY NAME SELECT uid, caption_source, similarity, tokens, truncated FROM final_refined
            UNION ALL BY NAME SELECT uid, caption_source, similarity, tokens, truncated FROM reviewed_captions
            """,
        ),
    ),
    views=_VIEWS,
    report_sections=(
        ReportSection(
            "Samples",
            "Every row of every source.",
            """
            SELECT source, shards, rows, ok, failed, success_rate AS success, duplicates AS redundant,
                mean_original_similarity AS original, mean_best_similarity AS best
            FROM quality_by_source
            """,
            order=10,
        ),
        ReportSection(
            "Captions",
            _captions_in_words,
            """
            SELECT q.caption_source AS source, q.captions, q.mean_similarity AS similarity, q.mean_vqa AS vqa,
                c.mean_gain AS gain,
                c.share_better_than_original AS better, q.mean_tokens AS tokens, q.truncated_share AS cut,
                CASE WHEN c.independent THEN 'yes' WHEN NOT c.independent THEN 'no' END AS independent
            FROM caption_quality q LEFT JOIN captioners c ON c.name = q.caption_source
            ORDER BY q.caption_source <> 'original', q.caption_source
            """,
            order=30,
        ),
        ReportSection(
            "Shards",
            "The first 20 of those whose original captions fit least.",
            """
            SELECT shard, rows, success_rate AS success, mean_original_similarity AS original,
                mean_best_similarity AS best, gain, duplicate_share AS redundant
            FROM quality_by_shard LIMIT 20
            """,
            order=1000,
        ),
    ),
    problems=(
        Problem(
            "images have no caption of their own",
            f"SELECT count(*) FILTER ({_NO_CAPTION}), count(*), NULL FROM samples WHERE status = 'ok'",  # noqa: S608
            f"SELECT * FROM samples WHERE status = 'ok' AND {_NO_CAPTION} LIMIT 10",  # noqa: S608
        ),
    ),
    gallery_sections=(
        GallerySection(
            "improved",
            "Most improved",
            "Where a synthetic caption fits so much better than the caption that came with the image.",
            "SELECT uid FROM most_improved",
            order=10,
        ),
        GallerySection(
            "worst",
            "Worst aligned",
            "The original captions that fit their images least.",
            "SELECT uid FROM worst_captions",
            order=40,
        ),
        GallerySection(
            "best",
            "Best aligned",
            "The original captions that fit their images best.",
            "SELECT uid FROM best_originals",
            order=50,
        ),
        GallerySection(
            "all",
            "A sample of everything",
            "Drawn without looking at any score.",
            "SELECT uid FROM samples WHERE status = 'ok' ORDER BY uid",
            order=1000,
        ),
    ),
    explanations=(
        Explanation(
            "Captions",
            ("raw_samples", SYNTHETIC_CAPTIONS_PREFIX, "joint_embeddings", "caption_scores"),
            """
            SELECT caption_source, similarity, vqa, tokens, truncated, caption FROM captions WHERE uid = ?
            ORDER BY caption_source <> 'original', caption_source
            """,
            order=30,
            glance=True,
        ),
    ),
)


def relations_of(signals: Mapping[str, Signal]) -> Relations:
    """What joins the stages, with the signals among the columns of samples."""
    return replace(_RELATIONS, tables=(*_TABLES, _samples_of(signals)))
