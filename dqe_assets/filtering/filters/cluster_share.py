"""A share of each cluster of alike samples (TL;DR), and the baselines that say what the clusters are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from dqe_assets.compression.selection import Rule, select_from_clusters
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.hashing import draw_keys
from dqe_assets.core.k_means import default_clusters, k_means, nearest_centroids, training_rows
from dqe_assets.filtering.filters.pool_scores import PoolRows, Score
from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask, Seed
from dqe_assets.filtering.pool import UID, TablePool, batches_of, numbers, whole
from dqe_assets.filtering.subset import UID_TYPE, contains, parse_uids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from dqe_assets.filtering.pool import Pool

    Clustered = tuple[NDArray[np.void], NDArray[np.int32], NDArray[np.floating] | None]

CODE_CLUSTER, CODE_DISTANCE = "code_cluster", "code_distance"

Share = Annotated[float, Field(gt=0, le=1)]


class ShareOfClusters(Filter):
    """Keeps a share of each cluster by a rule; what is kept is found over the whole pool.

    Which samples are kept does not depend on their order, but for ``every_nth``. While it is fitted, memory holds 28
    bytes for each sample, and after that the uids that are kept.

    Attributes:
        share: Share to keep.
        seed: Of the draw.
    """

    pool_wide: ClassVar[bool] = True
    share: Share
    seed: Seed = 0

    _kept: NDArray[np.void] | None = PrivateAttr(None)
    _facts: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def rule_of_choice(self) -> Rule:
        """Which members of a cluster are kept."""
        return "uniform"

    @property
    def facts(self) -> dict[str, Any]:
        """How many clusters there are, and the share that is kept."""
        return self._facts

    def clustered(self, pools: Sequence[Pool]) -> Clustered:
        """Uids, clusters and scores of all samples of the pools [n]; a cluster of -1 is none."""
        raise NotImplementedError

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the uids that are kept."""
        return self._keeping(*self.clustered(pools))

    def _keeping(self, uids: NDArray[np.void], labels: NDArray[np.int32], scores: NDArray[np.floating] | None) -> Self:
        keys = draw_keys(uids["f0"], uids["f1"])
        kept = select_from_clusters(labels, self.share, self.rule_of_choice, scores, self.seed, keys=keys)
        fitted = self.model_copy()
        fitted._kept = np.unique(uids[kept])  # noqa: SLF001 - a copy of its own
        samples = int((labels >= 0).sum())
        fitted._facts = {  # noqa: SLF001
            "clusters": len(np.unique(labels[labels >= 0])),
            "share_kept": int(kept.sum()) / samples if samples else 0.0,
        }
        return fitted

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the uid is one that is kept."""
        if self._kept is None:
            return self.fit([TablePool(table)]).mask(table)
        return contains(self._kept, parse_uids(table.column(UID)))


class Tldr(ShareOfClusters):
    """A share of each cluster of images that a codebook describes alike (TL;DR, arXiv 2305.20087).

    The clusters are those of the asset ``code_clusters``. A sample without codes is not kept. The paper's step by image
    and text, the better half by a score, is a filter of its own: ``tldr(share=0.5) & score_top(share=0.5)``.

    Attributes:
        share: Share of each cluster to keep.
        rule: ``uniform`` (drawn), ``every_nth`` (as published, in the order of the data), ``nearest`` and ``farthest``
            (from the cluster's middle), ``best_score``.
        score: With best_score: the column that says which is best.
        seed: Of the draw.
    """

    name: ClassVar[str] = "tldr"
    meaning: ClassVar[str] = "a share of each cluster of images that a codebook describes alike"
    rule: Rule = "uniform"
    score: str = "similarity"

    @property
    def rule_of_choice(self) -> Rule:
        """As it is set."""
        return self.rule

    @property
    def columns(self) -> tuple[str, ...]:
        """Uid, cluster, and what the rule goes by."""
        return (UID, CODE_CLUSTER, *self._score)

    @property
    def _score(self) -> tuple[str, ...]:
        if self.rule == "best_score":
            return (self.score,)
        return (CODE_DISTANCE,) if self.rule in {"nearest", "farthest"} else ()

    def clustered(self, pools: Sequence[Pool]) -> Clustered:
        """As they are stored."""
        uids, labels, scores = [np.empty(0, UID_TYPE)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        for batch in batches_of(pools, self.columns):
            uids.append(parse_uids(batch.column(UID)))
            clusters = numbers(batch.column(CODE_CLUSTER))
            labels.append(np.where(np.isnan(clusters), -1, clusters).astype(np.int32))
            scores += [numbers(batch.column(name)).astype(np.float32) for name in self._score]
        return np.concatenate(uids), np.concatenate(labels), np.concatenate(scores) if self._score else None


class KmeansEmbeddings(ShareOfClusters):
    """A share of each cluster of plain image embeddings: what a codebook has to beat (in the paper by half a point).

    Euclidean k-means of unit vectors. A sample without an embedding is not kept.

    Attributes:
        share: Share of each cluster to keep, drawn.
        embedding: Column of the embeddings.
        clusters: How many; by default 3,000, or one for each 100 samples if that is less.
        seed: Of the draw and of k-means.
    """

    name: ClassVar[str] = "kmeans_embeddings"
    meaning: ClassVar[str] = "a share of each cluster of image embeddings"
    embedding: str = "image_features"
    clusters: Annotated[int, Field(ge=1)] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Uid and embedding."""
        return (UID, self.embedding)

    def clustered(self, pools: Sequence[Pool]) -> Clustered:
        """By k-means over the samples with the lowest hashes of their uids."""
        total = sum(part.rows for pool in pools for part in pool.parts)
        clusters = self.clusters or default_clusters(total)
        drawn, keys = np.empty((0, 1), np.float32), np.empty(0, np.uint64)
        for uids, vectors in self._embedded(pools):
            keys = np.concatenate([keys, draw_keys(uids["f0"] + np.uint64(self.seed), uids["f1"])])
            drawn = np.concatenate([drawn, vectors]) if len(drawn) else vectors
            order = np.argsort(keys, kind="stable")[: training_rows(clusters, vectors.shape[1])]
            drawn, keys = drawn[order], keys[order]
        if not len(drawn):
            raise FilterError(f"{self.name}: no sample has {self.embedding}")
        centroids = k_means(drawn, clusters, seed=self.seed)
        found: list[NDArray[np.void]] = [np.empty(0, UID_TYPE)]
        labels = [np.empty(0, np.int32)]
        for uids, vectors in self._embedded(pools):
            found.append(uids)
            labels.append(nearest_centroids(vectors, centroids)[0])
        return np.concatenate(found), np.concatenate(labels), None

    def _embedded(self, pools: Sequence[Pool]) -> Iterator[tuple[NDArray[np.void], NDArray[np.float32]]]:
        for batch in batches_of(pools, self.columns):
            rows, vectors = to_matrix(whole(batch.column(self.embedding)))
            if len(rows):
                length = np.linalg.norm(vectors, axis=1, keepdims=True)
                yield parse_uids(batch.column(UID))[rows], vectors / np.maximum(length, 1e-12)


class Random(ShareOfClusters):
    """A random share of exactly this size, whatever the order of the samples: the baseline of every subset.

    Attributes:
        share: Share to keep.
        seed: Another seed keeps other samples.
    """

    name: ClassVar[str] = "random"
    meaning: ClassVar[str] = "a random share, exactly"

    @property
    def columns(self) -> tuple[str, ...]:
        """The uid."""
        return (UID,)

    def clustered(self, pools: Sequence[Pool]) -> Clustered:
        """All samples are one cluster."""
        uids = [np.empty(0, UID_TYPE), *(parse_uids(batch.column(UID)) for batch in batches_of(pools, self.columns))]
        found = np.concatenate(uids)
        return found, np.zeros(len(found), np.int32), None


class ScoreTop(ShareOfClusters):
    """The share with the best score, exactly; equal scores are drawn. A sample without a score is not kept.

    Attributes:
        share: Share of the samples to keep.
        score: The score, higher is better: a column, or one that is found over the whole pool, such as
            ``s_clip_loss`` or ``mix({s_clip_loss: 1, similarity: 0.5})``.
        seed: Of the draw.
    """

    name: ClassVar[str] = "score_top"
    meaning: ClassVar[str] = "the share with the best score"
    score: Score = "similarity"

    _read: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="after")
    def _no_uid(self) -> Self:
        if self.score == UID:
            raise ValueError("score: a uid is no score")
        return self

    @property
    def rule_of_choice(self) -> Rule:
        """The best."""
        return "best_score"

    @property
    def columns(self) -> tuple[str, ...]:
        """Uid and score; of a score over the pool what it is computed from, and once it is fitted nothing of that."""
        if isinstance(self.score, str):
            return (UID, self.score)
        return (UID,) if self._kept is not None else self.score.columns

    @property
    def may_read(self) -> tuple[str, ...]:
        """Those of the score; once it is fitted, those that were mixed."""
        if isinstance(self.score, str):
            return ()
        return tuple(name for name in self.score.may_read if self._kept is None or name in self._read)

    @property
    def targets(self) -> tuple[tuple[str, str | None], ...]:
        """Those of the score."""
        return () if isinstance(self.score, str) else self.score.named_targets

    @property
    def versions(self) -> dict[str, str]:
        """Those of the score."""
        return {} if isinstance(self.score, str) else self.score.versions

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the uids that are kept, and what is to be said of a score over the pool."""
        if isinstance(self.score, str):
            return super().fit(pools)
        rows = PoolRows(pools)
        scores, said = self.score.of(rows)
        fitted = self._keeping(rows.uids, np.zeros(len(scores), np.int32), scores)
        fitted._read = rows.read  # noqa: SLF001
        scored = rows.uids[np.isfinite(scores)]
        fitted._kept = np.intersect1d(np.asarray(fitted._kept), scored)  # noqa: SLF001 - a copy of its own
        fitted._facts |= {"scored": len(scored), **said}  # noqa: SLF001
        return fitted

    def clustered(self, pools: Sequence[Pool]) -> Clustered:
        """All samples are one cluster, and those without a score come last."""
        uids, scores = [np.empty(0, UID_TYPE)], [np.empty(0, np.float32)]
        for batch in batches_of(pools, self.columns):
            uids.append(parse_uids(batch.column(UID)))
            scores.append(numbers(batch.column(str(self.score))).astype(np.float32))
        found, values = np.concatenate(uids), np.concatenate(scores)
        return found, np.zeros(len(found), np.int32), values

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the uid is one that is kept, and there is a score."""
        kept = super().mask(table)
        return kept & np.isfinite(numbers(table.column(self.score))) if isinstance(self.score, str) else kept
