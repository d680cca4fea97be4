"""What contamination adds to the warehouse, the report, the gallery and the explanations."""

from __future__ import annotations

from dqe_assets.contamination.pictures import REFERENCE_PREFIX, pairs, reference_pictures
from dqe_assets.contamination.tables import CONTAMINATION, PLANTED_COPIES, REFERENCE_FEATURES
from dqe_assets.core.relations import (
    Explanation,
    GalleryGroups,
    Problem,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
)

_FOUND = columns(
    CONTAMINATION,
    uid="VARCHAR",
    kind="VARCHAR",
    reference_set="VARCHAR",
    reference_row="INTEGER",
    reference="VARCHAR",
    similarity="FLOAT",
    reference_text="VARCHAR",
)

_COPIES = columns(
    PLANTED_COPIES,
    reference_set="VARCHAR",
    reference_row="INTEGER",
    reference="VARCHAR",
    copy="VARCHAR",
    distance="SMALLINT",
    cosine="FLOAT",
    other_distance="SMALLINT",
    other_cosine="FLOAT",
    is_found="BOOLEAN",
    is_mistaken="BOOLEAN",
)

RELATIONS = Relations(
    reads=(
        Read("contamination", CONTAMINATION, " ".join(_FOUND)),
        Read(REFERENCE_PREFIX, REFERENCE_FEATURES, "variant perceptual_hash texts", rest="reference_set"),
        Read("planted_copies", PLANTED_COPIES, " ".join(_COPIES)),
    ),
    tables=(
        Table(
            "contamination",
            "The samples that are in a reference set: of each, kind and set the row that is most like it",
            _FOUND,
            f"SELECT {', '.join(_FOUND)} FROM stored_contamination ORDER BY uid, kind, reference_set",  # noqa: S608
            by_shard=True,
        ),
        Table(
            "reference_sets",
            "The sets that nothing may be trained on, with how many samples are in each",
            columns(CONTAMINATION, reference_set="VARCHAR")
            | {
                "pictures": ("BIGINT", "pictures of the set"),
                "texts": ("BIGINT", "texts of the set: captions or answers"),
                "samples": ("BIGINT", "samples that are in it"),
                "rows_found": ("BIGINT", "rows of the set that a sample was found to be"),
            },
            """
            SELECT r.reference_set, count(r.perceptual_hash), coalesce(sum(len(r.texts)), 0),
                any_value(coalesce(c.samples, 0)), any_value(coalesce(c.found, 0))
            FROM stored_reference_features r LEFT JOIN (
                SELECT reference_set, count(DISTINCT uid) AS samples, count(DISTINCT reference_row) AS found
                FROM contamination GROUP BY ALL
            ) c USING (reference_set)
            WHERE r.variant = 'whole' GROUP BY r.reference_set ORDER BY r.reference_set
            """,
        ),
        Table(
            "planted_copies",
            "Copies of some pictures of the reference sets, made to see how many would be found",
            _COPIES,
            f"SELECT {', '.join(_COPIES)} FROM stored_planted_copies ORDER BY ALL",  # noqa: S608
        ),
    ),
    views=(
        View(
            "contamination_kinds",
            "How many samples are in each reference set, by how they were found",
            """
            SELECT r.reference_set, c.kind, count(DISTINCT c.uid) AS samples,
                count(DISTINCT c.reference_row) AS rows_found, min(c.similarity) AS lowest_similarity
            FROM reference_sets r JOIN contamination c USING (reference_set) GROUP BY ALL ORDER BY ALL
            """,
            {
                "reference_set": "name of the reference set",
                "samples": "samples that are in it",
                "rows_found": "rows of the set that a sample was found to be",
                "lowest_similarity": "similarity of the pair that is least alike [0 to 1]",
            },
        ),
        View(
            "planted_copies_found",
            "How many planted copies are found, and how many are taken for another picture",
            """
            SELECT reference_set, copy, count(*) AS copies, avg(is_found::INTEGER) AS recall,
                sum(is_found::INTEGER) / nullif(sum(is_found::INTEGER) + sum(is_mistaken::INTEGER), 0) AS "precision"
            FROM planted_copies GROUP BY ALL ORDER BY ALL
            """,
            {
                "copies": "copies that were planted",
                "recall": "share of them that is found [0 to 1]",
                "precision": "share of what is found that is right, beside a set with its picture and one without "
                "[0 to 1]",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Contamination",
            "Samples that are in a set that models are evaluated on: by the same picture, one that looks or shows the "
            "same, or a text.",
            """
            SELECT r.reference_set, r.pictures, r.texts, r.samples, r.rows_found, k.kind AS most_found_by
            FROM reference_sets r LEFT JOIN (
                SELECT reference_set, arg_max(kind, samples) AS kind FROM contamination_kinds GROUP BY ALL
            ) k USING (reference_set) ORDER BY r.reference_set
            """,
            order=87,
            only_with="reference_sets",
        ),
        ReportSection(
            "Planted copies found",
            "Copies made of pictures of the reference sets: how many of them would be found, and how much of what is "
            "found is right.",
            "SELECT * FROM planted_copies_found",
            order=88,
            only_with="planted_copies",
        ),
    ),
    problems=(
        Problem(
            "samples are in a reference set",
            "SELECT count(*) FILTER (contaminated), count(*), NULL FROM samples WHERE status = 'ok'",
            "FROM contamination_kinds",
        ),
    ),
    gallery_groups=(
        GalleryGroups(
            "contamination",
            "Contamination",
            "Samples, each beside what it was found to be in a reference set: of each kind the least alike first.",
            pairs,
            order=45,
        ),
    ),
    pictures=(reference_pictures,),
    explanations=(
        Explanation(
            "Contamination",
            ("contamination",),
            """
            SELECT kind, reference_set, reference, similarity, reference_text
            FROM contamination WHERE uid = ? ORDER BY kind, reference_set
            """,
            order=105,
        ),
    ),
)
