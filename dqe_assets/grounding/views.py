"""What people read of grounding."""

from __future__ import annotations

from dqe_assets.core.relations import Explanation, Read, Relations, ReportSection, Table, View, columns
from dqe_assets.grounding.tables import GROUNDING

_COLUMNS = columns(
    GROUNDING,
    uid="VARCHAR",
    caption_source="VARCHAR",
    entities="VARCHAR[]",
    ungrounded="VARCHAR[]",
    missing="VARCHAR[]",
    precision="FLOAT",
    recall="FLOAT",
    f1="FLOAT",
    flagged="BOOLEAN",
)

RELATIONS = Relations(
    reads=(Read("grounding", GROUNDING, " ".join(_COLUMNS)),),
    tables=(
        Table(
            "grounding",
            "Which things each caption names that its image shows, and which of the image's concepts it lacks; empty "
            "where grounding is off",
            _COLUMNS,
            "SELECT * FROM stored_grounding ORDER BY caption_source, uid",
            by_shard=True,
        ),
    ),
    views=(
        View(
            "grounding_by_source",
            "The caption sources side by side: how far their images bear out what the captions name",
            """
            SELECT caption_source, count(entities) AS captions, avg(len(entities)) AS mean_entities,
                avg("precision") AS mean_precision, avg(recall) AS mean_recall, avg(f1) AS mean_f1,
                avg(flagged::INTEGER) AS share_ungrounded
            FROM grounding GROUP BY caption_source ORDER BY caption_source <> 'original', caption_source
            """,
            {
                "captions": "captions of samples with an image",
                "mean_entities": "mean number of things that a caption names",
                "mean_precision": "mean share of a caption's things that the image shows [0 to 1]",
                "mean_recall": "mean share of an image's concepts that the caption names [0 to 1]",
                "mean_f1": "mean of the harmonic mean of both, where both are there [0 to 1]",
                "share_ungrounded": "share of the captions that are flagged as ungrounded [0 to 1]",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Grounding",
            "How far images bear out what their captions name (table grounding): by words, tags and the scorer's "
            "space, so a coarse measure. It compares caption sources better than it finds a single wrong word.",
            """
            SELECT caption_source AS source, captions, mean_entities AS things, mean_precision AS "precision",
                mean_recall AS recall, mean_f1 AS f1, share_ungrounded AS ungrounded
            FROM grounding_by_source
            """,
            order=55,
            only_with="grounding",
        ),
    ),
    explanations=(
        Explanation(
            "Grounding",
            ("grounding",),
            """
            SELECT caption_source, "precision", recall, array_to_string(ungrounded, ', ') AS ungrounded,
                array_to_string(missing, ', ') AS missing, flagged
            FROM grounding WHERE uid = ? AND entities IS NOT NULL
            ORDER BY caption_source <> 'original', caption_source
            """,
            order=55,
        ),
    ),
)
