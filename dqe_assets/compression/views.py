"""What the codes of images add to the warehouse."""

from __future__ import annotations

from dqe_assets.compression.pictures import gallery_clusters
from dqe_assets.compression.tables import CODE_CLUSTERS
from dqe_assets.core.relations import GalleryGroups, Read, Relations, Table, View, columns

_COLUMNS = columns(CODE_CLUSTERS, uid="VARCHAR", code_cluster="INTEGER", code_distance="FLOAT")

RELATIONS = Relations(
    reads=(Read("code_clusters", CODE_CLUSTERS, "uid code_cluster code_distance"),),
    tables=(
        Table(
            "code_clusters",
            "The cluster of each image by its codes",
            _COLUMNS,
            "SELECT uid, code_cluster, code_distance FROM stored_code_clusters WHERE code_cluster IS NOT NULL",
        ),
    ),
    views=(
        View(
            "code_cluster_sizes",
            "The clusters of images by their codes, the largest first",
            """
            SELECT code_cluster, count(*) AS images, avg(code_distance) AS mean_distance
            FROM code_clusters GROUP BY code_cluster ORDER BY code_cluster
            """,
            {"images": "images in the cluster", "mean_distance": "mean squared distance to its centroid"},
        ),
    ),
    gallery_groups=(
        GalleryGroups(
            "codes",
            "Alike by their codes",
            "Images that the codebook describes alike, the largest clusters first, and what tldr(share=0.25) keeps.",
            gallery_clusters,
        ),
    ),
)
