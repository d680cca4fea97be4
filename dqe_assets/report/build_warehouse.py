"""The tables and views of the warehouse, and the quality report read from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.caption.views import CAPTION_TABLES, CAPTION_VIEWS, CAPTIONERS_REPORT, generated_captions
from dqe_assets.concepts.views import CONCEPT_READ, CONCEPT_TABLES, CONCEPT_VIEW_OF, CONCEPT_VIEWS, CONCEPTS_REPORT
from dqe_assets.core.relations import Table, View, columns, literal, meaning
from dqe_assets.core.schema import Column, table_schema
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, DUPLICATE_CLUSTERS
from dqe_assets.dedup.views import CAPTION_DUPLICATE_TABLE, REPEATED_CAPTIONS
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.filtering.masks import PAIRS, STEPS
from dqe_assets.filtering.tables import filter_masks_schema
from dqe_assets.filtering.views import FILTER_TABLES, FILTERS_REPORT, kept_by_filter, masks_table
from dqe_assets.improve.best_views import BEST_READ, BEST_REASONS, BEST_TABLE, BEST_VIEW_OF
from dqe_assets.improve.judging_views import (
    AGREEMENT_REPORT,
    JUDGED_REPORT,
    JUDGEMENT_READ,
    JUDGEMENT_TABLES,
    JUDGEMENT_VIEW_OF,
    JUDGEMENT_VIEWS,
    judgement_statistics,
    places_in_words,
)
from dqe_assets.improve.refining_views import (
    FINAL_REFINED,
    REFINED_READ,
    REFINED_ROWS,
    REFINING_REPORT,
    REFINING_TABLE,
    REFINING_VIEW,
)
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.ingest.views import FETCHED, HOST_OF, INGEST_VIEWS
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, POOL_UTILITIES
from dqe_assets.score.signal_views import SIGNAL_READ, SIGNAL_TABLES, SIGNAL_VIEW_OF, SIGNAL_VIEWS, SUSPECTS_REPORT
from dqe_assets.score.tables import CAPTION_PREFERENCE, CAPTION_SCORES
from dqe_assets.score.views import (
    LONG_CAPTIONS,
    LONG_COLUMNS,
    PREFERENCE_TABLE,
    long_captions_in_words,
    preference_intervals,
)
from dqe_assets.search.tables import COLLECTION_MAP
from dqe_assets.search.views import SAMPLE_MAP, TOPIC_TABLES, TOPIC_VIEWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

CAPTIONS_ASSET = "synthetic_captions/"

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


@dataclass(frozen=True, slots=True)
class CaptionerInfo:
    """A captioner of the configuration.

    Attributes:
        name: the caption source that it writes.
        kind: its kind in data/dqe.yaml.
        model: name and version of its model.
        backbones: the image backbones inside.
        shares_backbone_with_scorer: whether the scorer has one of them too, so that its preference proves nothing.
        price_per_hour: what an hour of captioning costs; None if nobody said.
    """

    name: str
    kind: str
    model: str
    backbones: tuple[str, ...]
    shares_backbone_with_scorer: bool
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class WarehouseInputs:
    """What the warehouse is built from.

    Attributes:
        assets: the Parquet files of each asset, one a partition: ``raw_samples``, ``image_features``,
            ``synthetic_captions/<name>``, ``caption_scores``, ``caption_preference``, ``best_captions``,
            ``text_quality``, ``image_text``, ``masked_similarity``, ``duplicate_clusters``,
            ``caption_duplicates``, ``collection_map``, ``pool_utilities``, ``filter_recommendation``,
            ``filter_masks``, ``caption_judgements``. An asset that is absent, or has no files, counts as empty.
        materialisations: what was written when, in the schema ``MATERIALISATIONS``.
        captioners: the captioners of the configuration.
        scorer: name and version of the scorer's model.
        filters: what each filter of ``filter_masks`` is, by its name.
        filter_steps: how many samples each step of each filter leaves, in the schema ``STEPS``.
        filter_pairs: how many samples every two filters keep, in the schema ``PAIRS``.
    """

    assets: Mapping[str, Sequence[Path | str]]
    materialisations: pa.Table
    captioners: Sequence[CaptionerInfo]
    scorer: str
    filters: Mapping[str, str] = field(default_factory=dict)
    filter_steps: pa.Table = field(default_factory=STEPS.empty_table)
    filter_pairs: pa.Table = field(default_factory=PAIRS.empty_table)


@dataclass(frozen=True, slots=True)
class Section:
    """A table for people.

    Attributes:
        title: its heading.
        description: what it says.
        table: its rows.
        upright: whether a row is shown as a field in each line, those that are null left out.
    """

    title: str
    description: str
    table: pa.Table
    upright: bool = False


_UID = columns(RAW_SAMPLES, uid="VARCHAR")
_PLACE = _UID | columns(RAW_SAMPLES, source="VARCHAR", shard="VARCHAR")
_IS_DUPLICATE = "whether another sample of its duplicate cluster (kind any) is the one to keep"

_TABLES = (
    Table(
        "captions",
        "Every sample's caption from every caption source, with its score: one row for each sample and source",
        _UID
        | {
            "caption_source": ("VARCHAR", "original, a captioner's name, or refined: where one was asked for again"),
            "caption": ("VARCHAR", "the caption as found, or the straightforward synthetic caption; null if none"),
        }
        | columns(CAPTION_SCORES, similarity="FLOAT", tokens="INTEGER", truncated="BOOLEAN")
        | LONG_COLUMNS
        | {
            "finish_reason": ("VARCHAR", "how generation ended: stop, length, error or no_image; null for an original"),
            "error": ("VARCHAR", "the error, if finish_reason is error"),
        },
        """
        SELECT c.uid, c.caption_source, c.caption, s.similarity, s.tokens, s.truncated, s.similarity_truncated,
            s.similarity_sentences_mean, s.similarity_sentences_max, c.finish_reason, c.error
        FROM all_captions c LEFT JOIN all_scores s USING (uid, caption_source)
        ORDER BY c.place, c.uid, c.caption_source
        """,
    ),
    BEST_TABLE,
    Table(
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
        },
        """
        WITH original AS (
            SELECT uid, similarity FROM captions WHERE caption_source = 'original'
        ), clustered AS (
            SELECT uid, cluster, is_representative FROM duplicate_clusters WHERE kind = 'any'
        )
        SELECT r.uid, r.source, r.shard, r.row, r.image_name, r.url, r.caption, r.format, r.bytes, r.width, r.height,
            r.width::DOUBLE * r.height / 1e6, r.status, r.reason,
            host_of(r.url), r.attempts, r.http_status, r.final_url, r.seconds, make_timestamp(epoch_us(r.fetched_at)),
            r.source_metadata,
            f.sharpness, f.brightness, f.contrast, f.colourfulness, f.top_label, f.label_probabilities[1],
            original.similarity, best.caption_source, best.similarity,
            coalesce(NOT clustered.is_representative, false), clustered.cluster
        FROM raw_samples r
        LEFT JOIN image_features f USING (uid)
        LEFT JOIN original USING (uid)
        LEFT JOIN best_captions best USING (uid)
        LEFT JOIN clustered USING (uid)
        ORDER BY r.shard, r.row
        """,
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
        """
        WITH pairs AS (
            SELECT c.*, c.similarity - o.similarity AS gain
            FROM captions c LEFT JOIN captions o ON o.uid = c.uid AND o.caption_source = 'original'
            WHERE c.caption_source <> 'original'
        ), written AS (
            SELECT caption_source AS name, count(caption) AS captions,
                count(*) FILTER (finish_reason = 'error') AS errors, avg(similarity) AS mean_similarity,
                avg(gain) AS mean_gain, avg((gain > 0)::INTEGER) AS share_better, avg(tokens) AS mean_tokens,
                avg(truncated::INTEGER) AS truncated_share
            FROM pairs GROUP BY caption_source
        ), models AS (
            SELECT caption_source AS name, max(model) AS model FROM all_captions WHERE model IS NOT NULL GROUP BY ALL
        )
        SELECT coalesce(i.name, w.name) AS captioner, i.kind, coalesce(i.model, models.model),
            coalesce(w.captions, 0), coalesce(w.errors, 0), w.mean_similarity, w.mean_gain, w.share_better,
            NOT i.shares_backbone_with_scorer, w.mean_tokens,
            w.truncated_share, scorer.scorer, i.price_per_hour
        FROM captioner_infos i FULL JOIN written w ON i.name = w.name
        LEFT JOIN models ON models.name = coalesce(i.name, w.name) CROSS JOIN scorer
        ORDER BY captioner
        """,
    ),
    Table(
        "caption_preference",
        "For each pair of caption sources, which of the two captions the scorer prefers, and how surely",
        {
            "source_a": ("VARCHAR", "caption source a"),
            "source_b": ("VARCHAR", "caption source b"),
            "n": ("BIGINT", "samples with both captions"),
            **{
                f"{side}_above_{percent}": ("BIGINT", f"samples where caption {side} is preferred above {percent} %")
                for percent in (70, 80, 90)
                for side in ("a", "b")
            },
            "mean_probability_a": ("DOUBLE", "mean probability of caption a [0 to 1]"),
            "mean_probability_b": ("DOUBLE", "mean probability of caption b [0 to 1]"),
            "independent": ("BOOLEAN", meaning(CAPTION_PREFERENCE, "independent")),
            "scorer": ("VARCHAR", "model that preferred"),
            "note": ("VARCHAR", "why the preference proves nothing, where it does"),
        },
        """
        WITH pairs AS (
            SELECT source_a, source_b, scorer, count(probability_a) AS n,
                count(*) FILTER (probability_a > 0.7::FLOAT) AS a_above_70,
                count(*) FILTER (probability_b > 0.7::FLOAT) AS b_above_70,
                count(*) FILTER (probability_a > 0.8::FLOAT) AS a_above_80,
                count(*) FILTER (probability_b > 0.8::FLOAT) AS b_above_80,
                count(*) FILTER (probability_a > 0.9::FLOAT) AS a_above_90,
                count(*) FILTER (probability_b > 0.9::FLOAT) AS b_above_90,
                avg(probability_a), avg(probability_b), bool_and(independent) AS independent
            FROM preference_rows GROUP BY source_a, source_b, scorer
        ), shared AS (
            SELECT name, name || coalesce(' (' || nullif(backbones, '') || ')', '') AS described
            FROM captioner_infos WHERE shares_backbone_with_scorer
        )
        SELECT pairs.* EXCLUDE (scorer), scorer,
            CASE WHEN NOT independent THEN
                'This preference proves nothing: the scorer ' || scorer || ' shares an image backbone with '
                || coalesce(
                    (SELECT string_agg(described, ' and ' ORDER BY described) FROM shared
                     WHERE shared.name IN (source_a, source_b)),
                    'one of the captioners'
                )
                || ', so it marks its own work'
            END
        FROM pairs ORDER BY source_a, source_b
        """,
    ),
    PREFERENCE_TABLE,
    *CAPTION_TABLES,
    REFINING_TABLE,
    Table(
        "duplicates",
        "Every sample that has a duplicate, once for each kind of cluster that it is in",
        columns(
            DUPLICATE_CLUSTERS,
            kind="VARCHAR",
            cluster="VARCHAR",
            uid="VARCHAR",
            representative="VARCHAR",
            is_representative="BOOLEAN",
            similarity="FLOAT",
            size="INTEGER",
        ),
        """
        SELECT kind, cluster, uid, representative, is_representative, similarity, size
        FROM duplicate_clusters ORDER BY kind, cluster, NOT is_representative, uid
        """,
    ),
    CAPTION_DUPLICATE_TABLE,
    Table(
        "failures",
        "Every sample whose image could not be read, and why",
        _PLACE
        | columns(RAW_SAMPLES, image_name="VARCHAR", url="VARCHAR", reason="VARCHAR", detail="VARCHAR")
        | FETCHED,
        """
        SELECT r.uid, r.source, r.shard, r.image_name, r.url, r.reason, r.detail,
            s.host, r.attempts, r.http_status, r.final_url, r.seconds, s.fetched_at
        FROM raw_samples r JOIN samples s USING (uid) WHERE r.status <> 'ok' ORDER BY r.shard, r."row"
        """,
    ),
    Table(
        "pool_utilities",
        "The fitted scaling law of each pool of data: what its samples are worth, and how fast repetition uses them up",
        columns(
            POOL_UTILITIES,
            metric="VARCHAR",
            pool="VARCHAR",
            rank="INTEGER",
            pool_size="BIGINT",
            **{f"{name}{suffix}": "DOUBLE" for name in ("a", "b", "tau", "d") for suffix in ("", "_low", "_high")},
            points="INTEGER",
            least_samples_seen="BIGINT",
            most_samples_seen="BIGINT",
            epochs="DOUBLE",
            residual="DOUBLE",
            warning="VARCHAR",
            source="VARCHAR",
        ),
        "SELECT * FROM fitted_pools ORDER BY metric, rank",
    ),
    Table(
        "filter_recommendation",
        "For each compute, the error predicted of keeping the best 1, 2 ... pools, and which is best",
        columns(
            FILTER_RECOMMENDATION,
            metric="VARCHAR",
            samples_seen="BIGINT",
            keep="INTEGER",
            pools="VARCHAR[]",
            kept_samples="BIGINT",
            epochs="DOUBLE",
            error="DOUBLE",
            error_low="DOUBLE",
            error_high="DOUBLE",
            is_best="BOOLEAN",
            share_best="DOUBLE",
            is_measured="BOOLEAN",
            source="VARCHAR",
        ),
        "SELECT * FROM recommended_filters ORDER BY metric, samples_seen, keep",
    ),
    *FILTER_TABLES,
    *CONCEPT_TABLES,
    *JUDGEMENT_TABLES,
    *SIGNAL_TABLES,
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
    *TOPIC_TABLES,
)

_GAIN = "best_similarity less original_similarity"
_SUMMARY_COLUMNS = {
    "samples": "samples",
    "share": "share of all samples [0 to 1]",
    "gain": _GAIN,
    "best_caption": "the best caption",
}

_VIEWS = (
    *INGEST_VIEWS,
    *CAPTION_VIEWS,
    REFINING_VIEW,
    LONG_CAPTIONS,
    *CONCEPT_VIEWS,
    *JUDGEMENT_VIEWS,
    *SIGNAL_VIEWS,
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
        _SUMMARY_COLUMNS,
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
        _SUMMARY_COLUMNS,
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
        "failure_reasons",
        "Why images could not be read, the most frequent reason first",
        """
        SELECT reason, count(*) AS samples, count(*) / (SELECT count(*) FROM samples) AS share,
            min(image_name) AS example
        FROM failures GROUP BY reason ORDER BY samples DESC, reason
        """,
        _SUMMARY_COLUMNS | {"example": "name of one such image"},
    ),
    View(
        "duplicate_groups",
        "Groups of samples that show the same picture (duplicate clusters of kind any), the largest first",
        """
        SELECT d.cluster, d.size, arg_max(s.image_name, d.is_representative) AS kept,
            list(s.image_name ORDER BY NOT d.is_representative, s.uid) AS image_names,
            count(DISTINCT s.caption) AS captions, min(d.similarity) AS lowest_similarity
        FROM duplicates d JOIN samples s USING (uid)
        WHERE d.kind = 'any' GROUP BY d.cluster, d.size ORDER BY d.size DESC, d.cluster
        """,
        {
            "kept": "name of the sample to keep",
            "image_names": "names of all, the one to keep first",
            "captions": "different captions among them",
            "lowest_similarity": "similarity of the member that is least like the one to keep [-1 to 1]",
        },
    ),
    View(
        "duplicate_kinds",
        "How many duplicates were found in each way",
        """
        SELECT kind, count(DISTINCT cluster) AS groups, count(*) AS samples,
            count(*) FILTER (NOT is_representative) AS redundant, max(size) AS largest
        FROM duplicates GROUP BY kind ORDER BY kind = 'any', kind
        """,
        {
            "groups": "clusters",
            "samples": "samples in them",
            "redundant": "samples that could go with nothing lost",
            "largest": "samples in the largest cluster",
        },
    ),
    REPEATED_CAPTIONS,
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
        {"shards": "shards of the source", "rows": "samples of the source"},
    ),
    View(
        "caption_quality",
        "The caption sources beside one another: how well their captions fit, and how long they are",
        """
        SELECT caption_source, count(caption) AS captions, avg(similarity) AS mean_similarity,
            quantile_cont(similarity, 0.1) AS p10_similarity, median(similarity) AS median_similarity,
            quantile_cont(similarity, 0.9) AS p90_similarity, avg(tokens) AS mean_tokens,
            avg(truncated::INTEGER) AS truncated_share
        FROM captions GROUP BY caption_source ORDER BY caption_source <> 'original', caption_source
        """,
        {
            "captions": "captions that there are",
            "mean_similarity": "mean similarity of the captions with their images [-1 to 1]",
            "p10_similarity": "a tenth of the captions lies below [-1 to 1]",
            "median_similarity": "half of the captions lies below [-1 to 1]",
            "p90_similarity": "nine tenths of the captions lie below [-1 to 1]",
            "mean_tokens": "mean length of the captions [tokens]",
            "truncated_share": "share of the captions that the scorer could not read whole [0 to 1]",
        },
    ),
    View(
        "best_filters",
        "How many of the best pools to train on for each compute, and the error that is predicted",
        """
        SELECT metric, samples_seen, keep, pools, kept_samples, epochs, error, error_low, error_high, share_best,
            is_measured, source
        FROM filter_recommendation WHERE is_best ORDER BY metric, samples_seen
        """,
        {name: meaning(FILTER_RECOMMENDATION, name) for name in ("metric", "epochs", "error", "source")},
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
    *TOPIC_VIEWS,
    BEST_REASONS,
)

_READ = {
    "raw_samples": (
        RAW_SAMPLES,
        (
            "uid source shard row image_name url caption format bytes width height status reason detail "
            "attempts http_status final_url seconds fetched_at source_metadata truth"
        ),
    ),
    "image_features": (
        IMAGE_FEATURES,
        "uid sharpness brightness contrast colourfulness top_label label_probabilities",
    ),
    "caption_scores": (CAPTION_SCORES, " ".join(CAPTION_SCORES.names)),
    "caption_preference": (CAPTION_PREFERENCE, " ".join(CAPTION_PREFERENCE.names)),
    "collection_map": (COLLECTION_MAP, "uid x y topic topic_name"),
    "duplicate_clusters": (
        DUPLICATE_CLUSTERS,
        "uid kind cluster representative is_representative similarity size",
    ),
    "caption_duplicates": (
        CAPTION_DUPLICATES,
        "uid caption_source kind cluster representative is_representative similarity size",
    ),
    "pool_utilities": (
        POOL_UTILITIES,
        (
            "metric pool rank pool_size a a_low a_high b b_low b_high tau tau_low tau_high d d_low d_high points "
            "least_samples_seen most_samples_seen epochs residual warning source"
        ),
    ),
    "filter_recommendation": (
        FILTER_RECOMMENDATION,
        (
            "metric samples_seen keep pools kept_samples epochs error error_low error_high is_best share_best "
            "is_measured source"
        ),
    ),
    **CONCEPT_READ,
    **BEST_READ,
    **JUDGEMENT_READ,
    **REFINED_READ,
    **SIGNAL_READ,
}
"""The columns that are read of each asset: never image bytes nor embeddings."""

_VIEW_OF = {
    "caption_preference": "preference_rows",
    "collection_map": SAMPLE_MAP,
    "caption_duplicates": "captions_repeated",
    "pool_utilities": "fitted_pools",
    "filter_recommendation": "recommended_filters",
    "filter_masks": "stored_masks",
    "refined_captions": REFINED_ROWS,
    **CONCEPT_VIEW_OF,
    **BEST_VIEW_OF,
    **JUDGEMENT_VIEW_OF,
    **SIGNAL_VIEW_OF,
}
"""What an asset is called while the warehouse is built, where a table of the warehouse has its name."""


def build_warehouse(connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs) -> None:
    """Fill an empty database with the tables and views, every one and every column of them commented.

    DuckDB reads the Parquet files itself, only the columns that are wanted, and spills to disk what does not fit.

    Raises:
        ValueError: a uid stands in more than one row of ``raw_samples``, so that rows cannot be joined.
        duckdb.Error: a file is torn or has not the columns of its schema.
    """
    registered = _register_inputs(connection, inputs)
    repeated = connection.execute(
        "SELECT uid, count(*) FROM raw_samples GROUP BY uid HAVING count(*) > 1 ORDER BY uid LIMIT 1"
    ).fetchall()
    for uid, times in repeated:
        message = f"raw_samples holds the uid {uid} {times} times: uids must be unique across all shards"
        raise ValueError(message)
    comments: dict[str, str] = {}
    connection.execute(HOST_OF)
    for table in (masks_table(inputs.filters), *_TABLES):
        columns = ", ".join(f'"{name}" {sql_type}' for name, (sql_type, _) in table.columns.items())
        connection.execute(f"CREATE TABLE {table.name} ({columns})")
        connection.execute(f"INSERT INTO {table.name} {table.select}")
        _comment(connection, "TABLE", table.name, table.comment, {k: v for k, (_, v) in table.columns.items()})
        comments |= {name: meaning for name, (_, meaning) in table.columns.items() if name not in comments}
    for view in _VIEWS:
        connection.execute(f"CREATE VIEW {view.name} AS {view.select}")
        described = connection.execute(f"DESCRIBE {view.name}").fetchall()
        meanings = {name: (view.columns.get(name) or comments[name]) for name, *_ in described}
        _comment(connection, "VIEW", view.name, view.comment, meanings)
    for name in registered:
        connection.unregister(name)


def quality_report(connection: duckdb.DuckDBPyConnection) -> list[Section]:
    """The quality report: of samples, failures, captions, captioners, duplicates, filters, concepts and shards.

    Args:
        connection: a connection to a warehouse.
    """
    scored_by = _scored_by(connection)
    preference = connection.sql(_PREFERENCE_IN_WORDS).to_arrow_table()
    notes = [note for (note,) in connection.execute(_NOTES).fetchall()]
    warning = f" Where independent says no: {'; '.join(notes)}." if notes else ""
    return [
        Section("Samples", "Every row of every source.", _table(connection, _SAMPLES)),
        Section("Failures", "Why images could not be read.", _table(connection, "SELECT * FROM failure_reasons")),
        Section(
            "Captions",
            f"How well captions fit their images{scored_by}; better is the share above the original, "
            f"cut that of captions too long for the encoder.{long_captions_in_words(connection)}",
            _table(connection, _CAPTIONS),
        ),
        Section(
            "Preference",
            f"Which of two captions the scorer prefers, and how often with a probability above 70 and 90 %.{warning}",
            preference,
        ),
        Section(
            "Captioners",
            "The models beside one another: preferred is the share of the images where a model's caption is preferred "
            "to the original above 70 %, original is that where the original is, and preference counts both, against "
            "each other source.",
            _table(connection, CAPTIONERS_REPORT),
        ),
        *_judgements(connection),
        *_refining(connection),
        Section(
            "Duplicates",
            "Samples that show the same picture, by how they were found; any is their union.",
            _table(connection, "SELECT * FROM duplicate_kinds"),
        ),
        Section(
            "Repeated captions",
            "Captions given to several images in the same words, or nearly: the five most frequent of each source.",
            _table(connection, _REPEATED),
        ),
        Section(
            "Filters",
            "What the filters of data/dqe.yaml keep, and how well the original captions of that and of the rest fit.",
            _table(connection, FILTERS_REPORT),
        ),
        Section(
            "Concepts",
            "How many concepts of the vocabulary are shown, the share that no sample or fewer than 10 show, how uneven "
            "the counts are, and the captions that share no concept with their image.",
            _table(connection, CONCEPTS_REPORT),
        ),
        Section(
            "Suspects",
            "Pairs of image and caption that no signal trusts (view suspects), by reason, of which a pair has several: "
            "the five most frequent of each source.",
            _table(connection, SUSPECTS_REPORT),
        ),
        Section(
            "Shards",
            "The first 20 of those whose original captions fit least.",
            _table(connection, _SHARDS),
        ),
    ]


def _judgements(connection: duckdb.DuckDBPyConnection) -> list[Section]:
    """What a judge thinks of the captions, and how far the scorer agrees; nothing where nothing was judged."""
    judged = _table(connection, JUDGED_REPORT)
    if not judged.num_rows:
        return []
    return [
        Section(
            "Judgements",
            "The judge's mean marks, 1 to 5, of the captions of a draw of the samples; low and high are the ends of "
            f"the 95 % interval of overall.{places_in_words(connection)}",
            judged,
        ),
        Section(
            "Judge and scorer",
            "How far they prefer the same one of two captions: agreed is the share of the pairs without ties, kappa "
            "that beyond chance. Images where they disagree most are in the view judge_disagreements.",
            _table(connection, AGREEMENT_REPORT),
        ),
    ]


_SAMPLES = """
SELECT source, shards, rows, ok, failed, success_rate AS success, duplicates AS redundant,
    mean_original_similarity AS original, mean_best_similarity AS best
FROM quality_by_source
"""

_CAPTIONS = """
SELECT q.caption_source AS source, q.captions, q.mean_similarity AS similarity, c.mean_gain AS gain,
    c.share_better_than_original AS better, q.mean_tokens AS tokens, q.truncated_share AS cut,
    CASE WHEN c.independent THEN 'yes' WHEN NOT c.independent THEN 'no' END AS independent
FROM caption_quality q LEFT JOIN captioners c ON c.name = q.caption_source
ORDER BY q.caption_source <> 'original', q.caption_source
"""

_PREFERENCE_IN_WORDS = """
WITH pairs AS (
    SELECT source_a AS preferred, source_b AS other, a_above_70 AS wins, b_above_70 AS losses, a_above_90 AS sure,
        n, independent
    FROM caption_preference WHERE a_above_70 > b_above_70
    UNION ALL
    SELECT source_b, source_a, b_above_70, a_above_70, b_above_90, n, independent
    FROM caption_preference WHERE a_above_70 <= b_above_70
)
SELECT CASE
        WHEN n = 0 THEN preferred || ' and ' || other || ': no image has both captions'
        WHEN wins = losses THEN preferred || ' and ' || other || ' equally'
        ELSE preferred || ' over ' || other
    END AS preference,
    n AS images, wins AS above_70, losses AS other_above_70, sure AS above_90,
    CASE WHEN independent THEN 'yes' ELSE 'no' END AS independent
FROM pairs ORDER BY independent DESC, preference
"""

_REPEATED = """
SELECT caption_source AS source, captions, exact AS in_the_same_words, left(text, 60) AS text FROM repeated_captions
QUALIFY row_number() OVER (PARTITION BY caption_source ORDER BY captions DESC, text) <= 5
ORDER BY caption_source <> 'original', caption_source, captions DESC, text
"""

_SHARDS = """
SELECT shard, rows, success_rate AS success, mean_original_similarity AS original, mean_best_similarity AS best, gain,
    duplicate_share AS redundant
FROM quality_by_shard LIMIT 20
"""

_NOTES = "SELECT DISTINCT note FROM caption_preference WHERE note IS NOT NULL ORDER BY note"


def _refining(connection: duckdb.DuckDBPyConnection) -> list[Section]:
    rounds = _table(connection, REFINING_REPORT)
    description = (
        "What asking again for captions that fit badly brought, round by round: how many were accepted and what they "
        "gained, how well all that were asked about fit before and after, and the words of what was replaced, before "
        "and now. Where independent says no, the scorer shares a backbone with who was asked or with what the prompt "
        "told, and a gain proves nothing."
    )
    return [Section("Refining", description, rounds)] if rounds.num_rows else []


def _table(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


def _scored_by(connection: duckdb.DuckDBPyConnection) -> str:
    scorers = connection.execute("SELECT DISTINCT scorer FROM captioners ORDER BY scorer").fetchall()
    return f", by {scorers[0][0]}" if scorers else ""


def _register_inputs(connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs) -> list[str]:
    """Make the inputs readable as temporary views; returns the names to unregister."""
    registered = []

    def register(name: str, table: pa.Table) -> None:
        connection.register(name, table)
        registered.append(name)

    masks = (filter_masks_schema(inputs.filters), " ".join(["uid", *inputs.filters]))
    for asset, (schema, names) in (_READ | {"filter_masks": masks}).items():
        files = inputs.assets.get(asset, ())
        columns = names.split()
        view = _VIEW_OF.get(asset, asset)
        if files:
            quoted = ", ".join(f'"{name}"' for name in columns)
            connection.execute(f"CREATE TEMP VIEW {view} AS SELECT {quoted} FROM {_parquet(files)}")  # noqa: S608
        else:
            register(view, pa.schema([schema.field(name) for name in columns]).empty_table())
    written = [
        (literal(asset.removeprefix(CAPTIONS_ASSET)), _parquet(files))
        for asset, files in sorted(inputs.assets.items())
        if asset.startswith(CAPTIONS_ASSET) and files
    ]
    connection.execute(f"CREATE TEMP VIEW final_refined AS {FINAL_REFINED}")
    connection.execute(f"CREATE TEMP VIEW all_captions AS {_all_captions(written)}")
    connection.execute(f"CREATE TEMP VIEW all_scores AS {_ALL_SCORES}")
    connection.execute(f"CREATE TEMP VIEW generated AS {generated_captions(written)}")
    register(
        "captioner_infos",
        pa.table(
            {
                "name": pa.array([info.name for info in inputs.captioners], pa.string()),
                "kind": pa.array([info.kind for info in inputs.captioners], pa.string()),
                "model": pa.array([info.model for info in inputs.captioners], pa.string()),
                "backbones": pa.array([", ".join(sorted(info.backbones)) for info in inputs.captioners], pa.string()),
                "shares_backbone_with_scorer": pa.array(
                    [info.shares_backbone_with_scorer for info in inputs.captioners], pa.bool_()
                ),
                "price_per_hour": pa.array([info.price_per_hour for info in inputs.captioners], pa.float64()),
            }
        ),
    )
    connection.execute(f"CREATE TEMP VIEW kept_by_filter AS {kept_by_filter(inputs.filters)}")
    for name, table in judgement_statistics(connection).items():
        register(name, table)
    register("computed_intervals", preference_intervals(connection))
    register("filter_steps", inputs.filter_steps)
    register("filter_pairs", inputs.filter_pairs)
    register("scorer", pa.table({"scorer": pa.array([inputs.scorer], pa.string())}))
    utc = inputs.materialisations.cast(MATERIALISATIONS)
    position = utc.schema.get_field_index("materialised_at")
    register(
        "materialised", utc.set_column(position, "materialised_at", utc["materialised_at"].cast(pa.timestamp("us")))
    )
    return registered


def _all_captions(written: Sequence[tuple[str, str]]) -> str:
    """The original caption of every sample, every captioner's, and the refined one where there is one."""
    return " UNION ALL ".join(
        [
            _ORIGINAL_CAPTIONS,
            *(
                f"SELECT r.shard, c.uid, {name}, c.caption, c.finish_reason, c.error, c.model "  # noqa: S608
                f"FROM {parquet} c JOIN raw_samples r USING (uid)"
                for name, parquet in written
            ),
            "SELECT shard, uid, caption_source, caption, finish_reason, error, model FROM final_refined",
        ]
    )


_ALL_SCORES = """
FROM caption_scores
UNION ALL BY NAME SELECT uid, caption_source, similarity, tokens, truncated FROM final_refined
"""

_ORIGINAL_CAPTIONS = """
SELECT shard AS place, uid, 'original' AS caption_source, caption, NULL::VARCHAR AS finish_reason,
    NULL::VARCHAR AS error, NULL::VARCHAR AS model
FROM raw_samples
"""


def _parquet(files: Sequence[Path | str]) -> str:
    escaped = (str(file).replace("[", "[[]").replace("*", "[*]").replace("?", "[?]") for file in files)
    return f"read_parquet([{', '.join(map(literal, escaped))}], hive_partitioning = false)"


def _comment(
    connection: duckdb.DuckDBPyConnection, kind: str, name: str, comment: str, columns: dict[str, str]
) -> None:
    connection.execute(f"COMMENT ON {kind} {name} IS {literal(comment)}")
    for column, means in columns.items():
        connection.execute(f'COMMENT ON COLUMN {name}."{column}" IS {literal(means)}')
