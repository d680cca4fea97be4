"""What the warehouse knows of topics: the map of the samples, and a row for each topic."""

from __future__ import annotations

from dqe_assets.core.relations import Table, View, columns
from dqe_assets.search.tables import COLLECTION_MAP

SAMPLE_MAP = "mapped_samples"
"""What the asset collection_map is called while the warehouse is built."""

TOPIC_TABLES = (
    Table(
        "sample_map",
        "The map of the samples by what their images show: a place and a topic for each sample on it",
        columns(COLLECTION_MAP, uid="VARCHAR", x="FLOAT", y="FLOAT", topic="INTEGER", topic_name="VARCHAR"),
        f"SELECT uid, x, y, topic, topic_name FROM {SAMPLE_MAP} ORDER BY topic, uid",  # noqa: S608
    ),
)

TOPIC_VIEWS = (
    View(
        "topics",
        "What the images are about: topics of the map, the largest first, with how well their captions fit",
        """
        SELECT m.topic, m.topic_name, count(*) AS n, count(*) / sum(count(*)) OVER () AS share,
            avg(s.original_similarity) AS mean_original_similarity, avg(s.is_duplicate::INTEGER) AS share_duplicates,
            count(DISTINCT s.source) AS sources
        FROM sample_map m JOIN samples s USING (uid) GROUP BY m.topic, m.topic_name ORDER BY m.topic
        """,
        {
            "n": "samples of the topic on the map",
            "share": "share of the samples on the map [0 to 1]",
            "mean_original_similarity": "mean similarity of image and original caption [-1 to 1]",
            "share_duplicates": "share of the topic's samples that are redundant duplicates [0 to 1]",
            "sources": "sources that the topic's samples come from",
        },
    ),
)
