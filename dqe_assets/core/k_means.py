"""k-means by faiss, the same again for the same vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import faiss
    from numpy.typing import NDArray

ITERATIONS = 20

MOST_CLUSTERS = 3_000
SAMPLES_PER_CLUSTER = 100
"""By default there is a cluster for so many samples, and no more than MOST_CLUSTERS, as in TL;DR (arXiv 2305.20087)."""

_ROWS_PER_CENTROID = 256
_TRAINING_BYTES = 768 << 20


def k_means(
    vectors: NDArray[np.floating], clusters: int, *, iterations: int = ITERATIONS, tries: int = 1, seed: int = 0
) -> NDArray[np.float32]:
    """Euclidean k-means over all of some vectors: centroids, float32 [k, d], in no order.

    Args:
        vectors: float32 or float16 [n, d], n at least 1. Those of 16 bits are read block by block, so that they may be
            a memory map and are never in memory as 32 bits.
        clusters: how many; k is less if there are fewer vectors.
        iterations: of Lloyd's algorithm.
        tries: how often it begins anew; the best is kept.
        seed: which vectors it begins with.
    """
    import faiss

    rows, width = vectors.shape
    clustering = faiss.Clustering(width, min(clusters, rows))
    clustering.niter, clustering.nredo, clustering.seed = iterations, tries, seed % 2**31
    # Every row is used, and few rows to a centroid are no fault of a small pool's.
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, rows
    index: faiss.Index = faiss.IndexFlatL2(width)
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    if vectors.dtype == np.float16:
        codec = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        clustering.train_encoded(np.ascontiguousarray(vectors).view(np.uint8), codec, index)
    else:
        clustering.train(np.ascontiguousarray(vectors, np.float32), index)
    centroids: NDArray[np.float32] = faiss.vector_float_to_array(clustering.centroids).reshape(-1, width)
    return centroids


def nearest_centroids(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The centroid with the least Euclidean distance to each vector, int32 [n], and its square, float32 [n].

    Args:
        vectors: [n, d].
        centroids: [k, d].
    """
    import faiss

    distances, labels = faiss.knn(np.ascontiguousarray(vectors, np.float32), centroids, 1)
    return labels[:, 0].astype(np.int32), distances[:, 0]


def default_clusters(samples: int) -> int:
    """How many clusters there are of so many samples where no number is given."""
    return max(1, min(MOST_CLUSTERS, samples // SAMPLES_PER_CLUSTER))


def training_rows(clusters: int, width: int) -> int:
    """How many vectors k-means reads at most: 256 for each cluster, and no more than take 768 MiB."""
    return min(clusters * _ROWS_PER_CENTROID, max(clusters, _TRAINING_BYTES // (4 * width)))
