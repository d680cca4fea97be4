"""Views and report sections of concepts: how often each is shown, where captions and images disagree, what to add."""

from __future__ import annotations

from dqe_assets.concepts.tables import (
    CONCEPT_FREQUENCY,
    CONCEPT_HITS,
    CONCEPT_PERFORMANCE,
    CONCEPT_PLAN,
    CURRICULUM,
    MISALIGNMENT,
    RARE_CONCEPT_RETRIEVAL,
    REBALANCED_SUBSET,
)
from dqe_assets.core.relations import (
    Explanation,
    Problem,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
    meaning,
    sql_file,
)
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.tables import CAPTION_SCORES

_LINES = [
    f"{fit}{name}{suffix}"
    for fit in ("", "unbinned_")
    for name in ("slope", "intercept")
    for suffix in ("", "_low", "_high")
]

_BINS = ["bin_counts", "bin_accuracy", "bin_concepts"]

_TABLES = (
    Table(
        "concept_frequency",
        "How many samples show each concept: in the image, in the caption of each source, and in both",
        columns(
            CONCEPT_FREQUENCY,
            concept="VARCHAR",
            tasks="VARCHAR[]",
            position="INTEGER",
            item="VARCHAR",
            samples="BIGINT",
            agreed="BIGINT",
            searched="BIGINT",
            rank="INTEGER",
            absent_words="VARCHAR[]",
        ),
        """
        SELECT concept, tasks, position, item, samples, agreed, searched, rank, absent_words
        FROM stored_concept_frequency ORDER BY item, rank, position
        """,
    ),
    Table(
        "provisional_concepts",
        "Concepts that captions of a shard do not count as showing: a word of theirs is in no caption of that shard, "
        "but in one of another",
        columns(MISALIGNMENT, shard="VARCHAR")
        | columns(CONCEPT_FREQUENCY, item="VARCHAR")
        | {"concepts": ("VARCHAR[]", "the concepts")},
        """
        SELECT shard, item, list(concept ORDER BY concept)
        FROM (SELECT unnest(provisional_shards) AS shard, item, concept FROM stored_concept_frequency)
        GROUP BY shard, item ORDER BY shard, item
        """,
    ),
    Table(
        "concept_hits",
        "The concepts that each sample shows, in its image and in the caption of each source",
        columns(CONCEPT_HITS, uid="VARCHAR", item="VARCHAR")
        | {"concepts": ("VARCHAR[]", "concepts that it shows; null where there is no such image or caption")},
        sql_file(__file__, "concept_hits"),
        by_shard=True,
    ),
    Table(
        "misalignment",
        "For each shard and caption source, the samples whose caption and image show concepts, but none in common",
        columns(
            MISALIGNMENT,
            shard="VARCHAR",
            caption_source="VARCHAR",
            samples="BIGINT",
            comparable="BIGINT",
            misaligned="BIGINT",
        )
        | {
            "share": ("DOUBLE", "misaligned / samples, the paper's misalignment degree [0 to 1]"),
            "share_of_comparable": ("DOUBLE", "misaligned / comparable [0 to 1]"),
        },
        """
        SELECT shard, caption_source, samples, comparable, misaligned, misaligned / nullif(samples, 0),
            misaligned / nullif(comparable, 0)
        FROM stored_misalignment ORDER BY shard, caption_source
        """,
    ),
    Table(
        "misaligned_samples",
        "The samples whose caption and image show concepts, but none in common",
        columns(RAW_SAMPLES, uid="VARCHAR", shard="VARCHAR", image_name="VARCHAR")
        | columns(MISALIGNMENT, caption_source="VARCHAR")
        | {
            "caption": ("VARCHAR", "the caption"),
            "caption_concepts": ("VARCHAR[]", "concepts that the caption shows"),
            "image_concepts": ("VARCHAR[]", "concepts that the image shows"),
        }
        | columns(CAPTION_SCORES, similarity="FLOAT"),
        sql_file(__file__, "misaligned_samples"),
    ),
    Table(
        "concept_performance",
        "The log-linear fit of each measured model: the accuracy on a concept that its frequency predicts",
        columns(
            CONCEPT_PERFORMANCE,
            model="VARCHAR",
            concepts="INTEGER",
            r="DOUBLE",
            p_value="DOUBLE",
            **dict.fromkeys(_LINES, "DOUBLE"),
            unbinned_r="DOUBLE",
            unbinned_p_value="DOUBLE",
            source="VARCHAR",
        ),
        f"""
        SELECT model, concepts, r, p_value, {", ".join(_LINES)}, unbinned_r, unbinned_p_value, source
        FROM stored_concept_performance ORDER BY model
        """,  # noqa: S608 - names of columns
    ),
    Table(
        "concept_performance_bins",
        "The bins that each fit is made of",
        {
            "model": ("VARCHAR", meaning(CONCEPT_PERFORMANCE, "model")),
            "count": ("DOUBLE", "upper end of the bin, as a count [samples]"),
            "concepts": ("BIGINT", "concepts in the bin"),
            "accuracy": ("DOUBLE", "their mean accuracy; null where the bin is empty [0 to 1]"),
        },
        """
        SELECT model, unnest(bin_counts), unnest(bin_concepts), unnest(bin_accuracy)
        FROM stored_concept_performance ORDER BY model, 2
        """,
    ),
    Table(
        "concept_plan",
        "Every concept, the rarest first: the accuracy that its count predicts, and the samples missing for the target",
        columns(
            CONCEPT_PLAN,
            model="VARCHAR",
            concept="VARCHAR",
            item="VARCHAR",
            place="INTEGER",
            samples="BIGINT",
            predicted_accuracy="DOUBLE",
            predicted_low="DOUBLE",
            predicted_high="DOUBLE",
            target_accuracy="DOUBLE",
            samples_needed="DOUBLE",
            source="VARCHAR",
        ),
        """
        SELECT model, concept, item, place, samples, predicted_accuracy, predicted_low, predicted_high,
            target_accuracy, samples_needed, source
        FROM stored_concept_plan ORDER BY model, place
        """,
    ),
    Table(
        "rare_concept_retrieval",
        "For each of the rarest concepts, the samples whose image or caption is nearest to it: candidates to add",
        columns(
            RARE_CONCEPT_RETRIEVAL,
            concept="VARCHAR",
            item="VARCHAR",
            place="INTEGER",
            uid="VARCHAR",
            score="FLOAT",
        )
        | columns(RAW_SAMPLES, image_name="VARCHAR", caption="VARCHAR"),
        """
        SELECT r.concept, r.item, r.place, r.uid, r.score, s.image_name, s.caption
        FROM stored_rare_concept_retrieval r JOIN samples s USING (uid)
        LEFT JOIN (SELECT concept, min(place) AS place FROM stored_concept_plan GROUP BY concept) p USING (concept)
        ORDER BY p.place, r.concept, r.item, r.place
        """,
    ),
    Table(
        "rebalanced_subset",
        "How often to draw each sample so that rare concepts are shown more",
        columns(REBALANCED_SUBSET, uid="VARCHAR", weight="DOUBLE"),
        "SELECT uid, weight FROM stored_rebalanced_subset ORDER BY weight DESC, uid",
    ),
    Table(
        "curriculum",
        "The samples in an order from easy to hard",
        columns(CURRICULUM, uid="VARCHAR", rank="BIGINT", difficulty="DOUBLE"),
        "SELECT uid, rank, difficulty FROM stored_curriculum ORDER BY rank",
    ),
)

_VIEWS = (
    View(
        "concept_tail",
        "How long the tail is: for images and the captions of each source, how many concepts are hardly shown",
        sql_file(__file__, "concept_tail"),
        {
            "concepts": "concepts of the vocabulary",
            "shown": "those that a sample shows",
            "never": "share of the concepts that no sample shows [0 to 1]",
            "under_10": "share of the concepts that fewer than 10 samples show [0 to 1]",
            "under_100": "share of the concepts that fewer than 100 samples show [0 to 1]",
            "under_1000": "share of the concepts that fewer than 1,000 samples show [0 to 1]",
            "gini": "Gini coefficient of the counts: 0 where all are equal, towards 1 where few have all",
        },
    ),
    View(
        "recaptioned_concepts",
        "For each concept and captioner, what recaptioning does: samples that show it before and after",
        """
        SELECT s.concept, s.item AS caption_source, o.samples AS original_samples, s.samples,
            s.samples - o.samples AS gain
        FROM concept_frequency s JOIN concept_frequency o ON o.concept = s.concept AND o.item = 'original'
        WHERE s.item NOT IN ('original', 'image') ORDER BY gain, s.concept, s.item
        """,
        {
            "caption_source": "a captioner's name, or refined: where one was asked for again",
            "original_samples": "samples whose original caption shows it",
            "samples": "samples whose synthetic caption shows it",
            "gain": "samples less original_samples",
        },
    ),
    View(
        "kept_concepts",
        "What captions keep: how many of the concepts that the original caption shows, each other caption shows too",
        """
        SELECT h.item AS caption_source, count(*) AS samples, sum(len(o.concepts))::BIGINT AS original_concepts,
            sum(len(list_intersect(o.concepts, h.concepts)))::BIGINT AS kept,
            sum(len(list_intersect(o.concepts, h.concepts))) / sum(len(o.concepts)) AS share
        FROM concept_hits h JOIN concept_hits o ON o.uid = h.uid AND o.item = 'original'
        WHERE h.item NOT IN ('original', 'image') AND h.concepts IS NOT NULL AND len(o.concepts) > 0
        GROUP BY h.item ORDER BY share DESC, h.item
        """,
        {
            "caption_source": "a captioner's name",
            "samples": "samples with both captions, whose original shows a concept",
            "original_concepts": "concepts that their originals show, each counted for each sample",
            "kept": "those that the caption shows too",
            "share": "kept / original_concepts [0 to 1]",
        },
    ),
)

_TAIL = """
WITH misaligned AS (
    SELECT caption_source AS item, sum(misaligned)::BIGINT AS misaligned, sum(misaligned) / sum(samples) AS degree
    FROM misalignment GROUP BY caption_source
)
SELECT t.item AS source, t.concepts, t.shown, t.never, t.under_10 AS "under 10", t.gini, m.misaligned, m.degree
FROM concept_tail t LEFT JOIN misaligned m USING (item) ORDER BY t.item <> 'original', t.item = 'image', t.item
"""

RELATIONS = Relations(
    reads=(
        Read("concept_hits", CONCEPT_HITS, "uid item concepts"),
        Read(
            "concept_frequency",
            CONCEPT_FREQUENCY,
            "concept tasks position item samples agreed searched rank absent_words provisional_shards",
        ),
        Read("misalignment", MISALIGNMENT, "shard caption_source samples comparable misaligned misaligned_uids"),
        Read(
            "concept_performance",
            CONCEPT_PERFORMANCE,
            " ".join([*_LINES, "model concepts r p_value unbinned_r unbinned_p_value source", *_BINS]),
        ),
        Read(
            "concept_plan",
            CONCEPT_PLAN,
            "model concept item place samples predicted_accuracy predicted_low predicted_high target_accuracy "
            "samples_needed source",
        ),
        Read("rare_concept_retrieval", RARE_CONCEPT_RETRIEVAL, "concept item place uid score"),
        Read("rebalanced_subset", REBALANCED_SUBSET, "uid weight"),
        Read("curriculum", CURRICULUM, "uid rank difficulty"),
    ),
    tables=_TABLES,
    views=_VIEWS,
    report_sections=(
        ReportSection(
            "Concepts",
            "How many concepts of the vocabulary are shown, the share that no sample or fewer than 10 show, how uneven "
            "the counts are, and the captions that share no concept with their image.",
            _TAIL,
            order=100,
        ),
    ),
    problems=(
        Problem(
            "original captions share no concept with their image",
            f"""
            SELECT coalesce(sum(misaligned), 0), coalesce(sum(comparable), 0), NULL
            FROM misalignment WHERE caption_source = '{ORIGINAL}'
            """,  # noqa: S608
            f"SELECT * FROM misaligned_samples WHERE caption_source = '{ORIGINAL}' LIMIT 10",  # noqa: S608
        ),
    ),
    explanations=(
        Explanation(
            "Concepts",
            ("concept_hits", "concept_frequency", "misalignment"),
            """
            SELECT h.item, array_to_string(h.concepts, ', ') AS concepts,
                EXISTS (FROM misaligned_samples m WHERE m.uid = h.uid AND m.caption_source = h.item) AS misaligned
            FROM concept_hits h WHERE h.uid = ? AND len(h.concepts) > 0
            ORDER BY h.item <> 'image', h.item <> 'original', h.item
            """,
            order=120,
        ),
        Explanation(
            "Order and weight",
            ("curriculum", "rebalanced_subset"),
            """
            SELECT c.rank AS curriculum_rank, c.difficulty, r.weight
            FROM curriculum c FULL JOIN rebalanced_subset r USING (uid) WHERE uid = ?
            """,
            order=130,
            upright=True,
        ),
    ),
)
