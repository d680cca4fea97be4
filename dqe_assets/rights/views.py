"""What rights add to the warehouse, the report and the explanations."""

from __future__ import annotations

from dqe_assets.core.relations import Explanation, Read, Relations, ReportSection, Table, View, columns
from dqe_assets.rights.tables import RIGHTS

_COLUMNS = columns(
    RIGHTS,
    uid="VARCHAR",
    license="VARCHAR",
    attribution="VARCHAR",
    notice="VARCHAR",
    creator="VARCHAR",
    credit="VARCHAR",
    terms="VARCHAR",
    web_statement="VARCHAR",
    data_mining="VARCHAR",
    source_type="VARCHAR",
    c2pa="BOOLEAN",
)

_COUNTS = """
    count(*) FILTER (r.notice IS NOT NULL) AS with_notice, count(*) FILTER (r.creator IS NOT NULL) AS with_creator,
    count(*) FILTER (starts_with(r.data_mining, 'DMI-PROHIBITED')) AS mining_prohibited,
    count(*) FILTER (r.source_type LIKE '%lgorithmicMedia') AS made_by_algorithm, count(*) FILTER (r.c2pa) AS with_c2pa
"""

RELATIONS = Relations(
    reads=(Read("rights", RIGHTS, " ".join(_COLUMNS)),),
    tables=(
        Table(
            "rights",
            "What each sample's source and image file say of licence, author and use",
            _COLUMNS,
            f"SELECT {', '.join(_COLUMNS)} FROM stored_rights ORDER BY uid",  # noqa: S608
            by_shard=True,
        ),
    ),
    views=(
        View(
            "licences",
            "The licences of the samples with an image, and what their files say, the most frequent first",
            f"""
            SELECT s.source, r.license, count(*) AS samples, {_COUNTS}
            FROM rights r JOIN samples s USING (uid) WHERE s.status = 'ok' GROUP BY ALL
            ORDER BY samples DESC, s.source, r.license
            """,  # noqa: S608
            {
                "samples": "samples with an image",
                "with_notice": "of them, those whose file has a copyright notice",
                "with_creator": "those whose file names who made it",
                "mining_prohibited": "those whose file prohibits data mining, for all or for some uses",
                "made_by_algorithm": "those whose file says that an algorithm made the image or a part of it",
                "with_c2pa": "those whose file holds a C2PA manifest",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Rights",
            "The licences that the sources state, and what the image files themselves say.",
            "SELECT * FROM licences",
            order=25,
            only_with="rights",
        ),
    ),
    explanations=(
        Explanation(
            "Rights",
            ("rights",),
            "SELECT * EXCLUDE uid FROM rights WHERE uid = ?",
            order=22,
            upright=True,
        ),
    ),
)
