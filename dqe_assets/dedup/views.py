"""Views and report sections of duplicates: pictures shared by several samples, captions shared by several images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.relations import (
    Explanation,
    GalleryPlots,
    Problem,
    Read,
    Relations,
    ReportSection,
    Table,
    View,
    columns,
    sql_file,
)
from dqe_assets.dedup.plots import cluster_sizes
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, DUPLICATE_CLUSTERS

if TYPE_CHECKING:
    import duckdb

    from dqe_assets.core.relations import Drawing


def _sizes(connection: duckdb.DuckDBPyConnection, _: int) -> list[Drawing]:
    sizes: dict[str, list[int]] = {}
    for kind, _cluster, size in connection.execute(
        "SELECT DISTINCT kind, cluster, size FROM duplicates ORDER BY kind = 'any', kind, cluster"
    ).fetchall():
        sizes.setdefault(kind, []).append(size)
    return [("Duplicate clusters by size", lambda theme: cluster_sizes(sizes, theme))]


RELATIONS = Relations(
    reads=(
        Read(
            "duplicate_clusters",
            DUPLICATE_CLUSTERS,
            "uid kind cluster representative is_representative similarity size",
        ),
        Read(
            "caption_duplicates",
            CAPTION_DUPLICATES,
            "uid caption_source kind cluster representative is_representative similarity size",
        ),
    ),
    tables=(
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
            FROM stored_duplicate_clusters ORDER BY kind, cluster, NOT is_representative, uid
            """,
        ),
        Table(
            "caption_duplicates",
            "Every caption that other images have too, in the same words or nearly, once for each kind of cluster it "
            "is in",
            columns(
                CAPTION_DUPLICATES,
                uid="VARCHAR",
                caption_source="VARCHAR",
                kind="VARCHAR",
                cluster="VARCHAR",
                representative="VARCHAR",
                is_representative="BOOLEAN",
                similarity="FLOAT",
                size="INTEGER",
            ),
            """
            SELECT uid, caption_source, kind, cluster, representative, is_representative, similarity, size
            FROM stored_caption_duplicates ORDER BY caption_source, kind, cluster, NOT is_representative, uid
            """,
        ),
    ),
    views=(
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
                "cluster": "duplicate cluster (kind any)",
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
        View(
            "repeated_captions",
            "Captions given to several images in the same words, or nearly, the most frequent first",
            sql_file(__file__, "repeated_captions"),
            {
                "text": "one of the captions",
                "caption_source": "original, a captioner's name, or refined: where one was asked for again",
                "captions": "images with it, in the same words or nearly [captions]",
                "exact": "most of them in the same words [captions]",
                "examples": "names of up to five of the images",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Duplicates",
            "Samples that show the same picture, by how they were found; any is their union.",
            "SELECT * FROM duplicate_kinds",
            order=80,
        ),
        ReportSection(
            "Repeated captions",
            "Captions given to several images in the same words, or nearly: the five most frequent of each source.",
            """
            SELECT caption_source AS source, captions, exact AS in_the_same_words,
                CASE WHEN length(text) > 60 THEN regexp_replace(left(text, 60), '\\s+\\S*$', '') || '…' ELSE text END
                    AS text
            FROM repeated_captions
            QUALIFY row_number() OVER (PARTITION BY caption_source ORDER BY captions DESC, text) <= 5
            ORDER BY caption_source <> 'original', caption_source, captions DESC, text
            """,
            order=85,
        ),
    ),
    problems=(
        Problem(
            "images are copies of others",
            "SELECT count(*) FILTER (is_duplicate), count(*), NULL FROM samples WHERE status = 'ok'",
            "SELECT * FROM duplicate_groups LIMIT 10",
        ),
    ),
    gallery_plots=(GalleryPlots(_sizes, order=40),),
    explanations=(
        Explanation(
            "Duplicates",
            ("duplicate_pairs", "duplicate_clusters"),
            """
            SELECT d.kind, d.size, s.image_name AS kept, d.similarity
            FROM duplicates d JOIN samples s ON s.uid = d.representative WHERE d.uid = ? ORDER BY d.kind
            """,
            order=100,
        ),
        Explanation(
            "Repeated captions",
            ("caption_duplicates",),
            """
            SELECT d.caption_source, d.kind, d.size AS captions, d.similarity, c.caption AS representative
            FROM caption_duplicates d
            JOIN captions c ON c.uid = d.representative AND c.caption_source = d.caption_source
            WHERE d.uid = ? ORDER BY d.caption_source <> 'original', d.caption_source, d.kind
            """,
            order=110,
        ),
    ),
)
