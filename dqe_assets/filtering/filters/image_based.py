"""DataComp's image-based filter."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.k_means import k_means
from dqe_assets.filtering.embedding_files import read_embeddings
from dqe_assets.filtering.english import Detector, english
from dqe_assets.filtering.filters.caption_length import has_tokens
from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, as_mask
from dqe_assets.filtering.pool import TEXT, TablePool, batch_rows, whole
from dqe_resources.cache import in_data_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import faiss
    import pyarrow as pa
    from numpy.typing import NDArray

    from dqe_assets.filtering.pool import Pool

_ROWS_PER_CLUSTER = 128
"""What DataComp's small pool has: 12.8 million rows in 100,000 clusters."""


class ImageBased(Filter):
    """Images that lie in a cluster of the pool in which some reference image lies, with an English caption.

    DataComp (arXiv 2304.14108): the captions must be English by fastText, of more than one fastText token and more than
    five characters. Those rows' embeddings are clustered by faiss k-means (Euclidean, 20 iterations, seed 0, every row
    used). A sample, and likewise each reference image, lies in the cluster whose centroid has the largest inner
    product with its embedding. The paper's references are ImageNet-1k's training images, by CLIP ViT-L/14.

    The embeddings to cluster are kept in a temporary file of 16-bit floats, so that memory does not grow with the pool.

    Attributes:
        reference: Path of the reference embeddings [m, d], from the data folder: .npy; .npz with an array of the
            name that is ``embedding``; or .pt of a tensor, or of a dict with ``image_features``, as DataComp's.
        embedding: Column of the pool's embeddings, of the same model. One that is null or not finite is not kept.
        centroids: Path of centroids [k, d] in place of clustering: .npy, or .pt, as the paper's own.
        clusters: Clusters at most. A pool of less than 12.8 million rows gets one for every 128 rows.
        iterations: Iterations of k-means.
        seed: Seed of k-means: which rows it starts from.
        language_model: As in basic_filter.
    """

    name: ClassVar[str] = "image_based"
    meaning: ClassVar[str] = "English, and an image in a cluster that has a reference image"
    reference: str
    embedding: str = "l14_img"
    centroids: str | None = None
    clusters: Annotated[int, Field(ge=1)] = 100_000
    iterations: Annotated[int, Field(ge=1)] = 20
    seed: Annotated[int, Field(ge=0)] = 0
    language_model: str | None = None

    _wanted: Wanted | None = PrivateAttr(None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Caption and embedding."""
        return (TEXT, self.embedding)

    @property
    def detector(self) -> Detector:
        """FastText."""
        return Detector("fasttext", self.language_model)

    @property
    def versions(self) -> dict[str, str]:
        """The detector's, faiss's, and digests of the files of embeddings."""
        import faiss

        files = [in_data_directory(name) for name in (self.reference, self.centroids) if name]
        digests = {file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files}
        return {**super().versions, "faiss": faiss.__version__, **digests}

    @property
    def facts(self) -> dict[str, Any]:
        """How many clusters there are, and how many of them have a reference image."""
        if self._wanted is None:
            return {}
        return {"clusters": len(self._wanted.has_reference), "with_reference": int(self._wanted.has_reference.sum())}

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the centroids found, or read, and the reference images put into their clusters.

        Raises:
            FilterError: a file of embeddings cannot be read, or is of another width than the pool's; no row is left to
                cluster.
        """
        reference = read_embeddings(self.reference, self.embedding, "image_features")
        centroids = read_embeddings(self.centroids, "centroids") if self.centroids else self.train(pools)
        if reference.shape[1] != centroids.shape[1]:
            raise FilterError(
                f"{self.reference}: embeddings of {reference.shape[1]} numbers, and the pool's have "
                f"{centroids.shape[1]}; both must be of one model"
            )
        fitted = self.model_copy()
        fitted._wanted = Wanted.of(centroids, reference)  # noqa: SLF001 - a copy of its own
        return fitted

    def train(self, pools: Sequence[Pool]) -> NDArray[np.float32]:
        """Centroids [k, d] of the pools' rows with a passable caption; raises FilterError if there are none."""
        with tempfile.TemporaryFile() as file:
            rows, kept, width = 0, 0, 0
            for table in _tables(pools, self.columns):
                _, embeddings = self._passable(table)
                embeddings.astype("<f2").tofile(file)
                rows, kept, width = rows + table.num_rows, kept + len(embeddings), embeddings.shape[1] or width
            if not kept:
                raise FilterError(f"image_based: none of the {rows:,} rows has an embedding and an English caption")
            file.flush()
            embeddings = np.memmap(file, np.float16, "r", shape=(kept, width))
            k = min(self.clusters, max(1, rows // _ROWS_PER_CLUSTER), kept)
            return k_means(embeddings, k, iterations=self.iterations, seed=self.seed)

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the caption is passable and the image in a wanted cluster."""
        if self._wanted is None:
            return self.fit([TablePool(table)]).mask(table)
        rows, embeddings = self._passable(table)
        kept = np.zeros(table.num_rows, bool)
        kept[rows] = self._wanted.holds(embeddings)
        return kept

    def _passable(self, table: pa.Table | pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows whose captions pass, [m], and their embeddings [m, d]."""
        column = whole(table.column(self.embedding))
        passes = english(table, self.detector, has_tokens(table.column(TEXT)) & as_mask(column.is_valid()))
        _, embeddings = to_matrix(column.filter(passes))
        finite = np.isfinite(embeddings).all(axis=1)
        return np.flatnonzero(passes)[finite], embeddings[finite]


@dataclass(frozen=True)
class Wanted:
    """Clusters, and which of them have a reference image.

    Attributes:
        index: of the centroids, for inner products.
        has_reference: [k].
    """

    index: faiss.IndexFlatIP
    has_reference: NDArray[np.bool_]

    @classmethod
    def of(cls, centroids: NDArray[np.float32], reference: NDArray[np.float32]) -> Wanted:
        """From centroids [k, d] and reference embeddings [m, d]."""
        import faiss

        index = faiss.IndexFlatIP(centroids.shape[1])
        index.add(np.ascontiguousarray(centroids, np.float32))
        has_reference = np.zeros(len(centroids), bool)
        has_reference[_nearest(index, reference)] = True
        return cls(index, has_reference)

    def holds(self, embeddings: NDArray[np.float32]) -> Mask:
        """Which of some embeddings [m, d] lie in a cluster that has a reference image: [m]."""
        return self.has_reference[_nearest(self.index, embeddings)]


def _tables(pools: Sequence[Pool], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return (batch for pool in pools for part in pool.parts for batch in part.batches(columns, batch_rows(columns)))


def _nearest(index: faiss.IndexFlatIP, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
    if not len(embeddings):
        return np.empty(0, np.int64)
    return index.search(np.ascontiguousarray(embeddings, np.float32), 1)[1][:, 0]
