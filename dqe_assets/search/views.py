"""Views and report sections of topics: the map of the samples, and a row for each topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.relations import GalleryPlots, Read, Relations, Table, View, columns
from dqe_assets.search.plots import map_by_score, map_by_source, map_by_topic, sample_map
from dqe_assets.search.tables import COLLECTION_MAP

if TYPE_CHECKING:
    import duckdb

    from dqe_assets.core.relations import Drawing

_MAP = columns(COLLECTION_MAP, uid="VARCHAR", x="FLOAT", y="FLOAT", topic="INTEGER", topic_name="VARCHAR")


def _maps(connection: duckdb.DuckDBPyConnection, _: int) -> list[Drawing]:
    mapped = connection.sql(
        "SELECT m.x, m.y, m.topic, m.topic_name, s.source, s.original_similarity AS similarity "
        "FROM sample_map m JOIN samples s USING (uid) ORDER BY m.uid"
    ).to_arrow_table()
    if not mapped.num_rows:
        return []
    shown = sample_map(mapped)
    return [
        ("What the images show, by topic", lambda theme: map_by_topic(shown, theme)),
        ("How well the captions fit, on the same map", lambda theme: map_by_score(shown, theme)),
        ("Where the images come from, on the same map", lambda theme: map_by_source(shown, theme)),
    ]


RELATIONS = Relations(
    reads=(Read("collection_map", COLLECTION_MAP, " ".join(_MAP)),),
    tables=(
        Table(
            "sample_map",
            "The map of the samples by what their images show: a place and a topic for each sample on it",
            _MAP,
            "SELECT uid, x, y, topic, topic_name FROM stored_collection_map ORDER BY topic, uid",
        ),
    ),
    views=(
        View(
            "topics",
            "What the images are about: topics of the map, the largest first, with how well their captions fit",
            """
            SELECT m.topic, m.topic_name, count(*) AS n, count(*) / sum(count(*)) OVER () AS share,
                avg(s.original_similarity) AS mean_original_similarity,
                avg(s.is_duplicate::INTEGER) AS share_duplicates, count(DISTINCT s.source) AS sources
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
    ),
    gallery_plots=(GalleryPlots(_maps, order=60),),
)
