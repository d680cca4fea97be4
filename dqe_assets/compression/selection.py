"""Clusters of samples by the codes of their images, and the share that is kept of each.

After TL;DR (Wang et al., ICCV 2023, arXiv 2305.20087): images that a codebook describes alike are one cluster, and a
share of each cluster stands for all of it. Everything here is deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from dqe_assets.compression.code_features import CodeFeatures, Features
from dqe_assets.core.hashing import mixed
from dqe_assets.core.k_means import k_means, nearest_centroids, training_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule: TypeAlias = Literal["uniform", "every_nth", "nearest", "farthest", "best_score"]
"""Which members of a cluster are kept: see ``select_from_clusters``."""

_TRIES = 3
_BLOCK_BYTES = 64 << 20
_FITTED_ROWS = 100_000
_FINEST_SHARE = 10**9
"""Denominator of the fraction that a share is taken for: products with as many samples fit 64 bits."""


@dataclass(frozen=True)
class CodeClusters:
    """Clusters of codes.

    Attributes:
        features: what is clustered.
        centroids: float32 [clusters, width].
    """

    features: CodeFeatures
    centroids: NDArray[np.float32]

    @classmethod
    def fitted_to(
        cls,
        codes: NDArray[np.integer],
        n_codes: int,
        clusters: int,
        features: Features = "histogram",
        *,
        codebook: NDArray[np.float32] | None = None,
        seed: int = 0,
    ) -> CodeClusters:
        """k-means (Euclidean, 20 iterations, the best of three) of at most ``training_rows`` samples.

        Arguments and errors are those of ``cluster_codes``.
        """
        codes = np.asarray(codes)
        _check_codes(codes, n_codes)
        if clusters < 1:
            raise ValueError(f"clusters={clusters}: expected at least 1")
        names = canonical_codes(codes, n_codes)
        order = np.lexsort(content_keys(codes if features == "numbers" else names[codes], seed))
        fitted = CodeFeatures.fitted_to(codes[order[:_FITTED_ROWS]], features, n_codes, codebook, names)
        width = fitted.width(codes.shape[1])
        if not len(codes):
            return cls(fitted, np.zeros((1, width), np.float32))
        vectors = fitted.vectors(codes[order[: training_rows(clusters, width)]])
        tries = _TRIES if vectors.size < _TRIES * _BLOCK_BYTES else 1
        return cls(fitted, k_means(vectors, clusters, tries=tries, seed=seed))

    def assigned(self, codes: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The nearest centroid of each sample, int32 [n], and its squared distance, float32 [n].

        Args:
            codes: integers [n, tokens].
        """
        codes = np.asarray(codes)
        _check_codes(codes, self.features.n_codes)
        labels, distances = np.empty(len(codes), np.int32), np.empty(len(codes), np.float32)
        rows = max(1, _BLOCK_BYTES // (4 * self.centroids.shape[1]))
        for start in range(0, len(codes), rows):
            block = slice(start, start + rows)
            labels[block], distances[block] = nearest_centroids(self.features.vectors(codes[block]), self.centroids)
        return labels, distances


def canonical_codes(codes: NDArray[np.integer], n_codes: int) -> NDArray[np.integer]:
    """Another number for each code, [n_codes], that does not depend on the number it has.

    The rarest code gets 0. Of codes as frequent, the samples decide in which they stand, by the frequencies of all
    codes in these (a round of Weisfeiler and Leman's refinement). Codes that differ in their number alone keep its
    order.

    Args:
        codes: integers [n, tokens] of 0 to ``n_codes`` - 1.
        n_codes: size of the codebook.
    """
    counts = np.zeros(n_codes, np.int64)
    for token in range(codes.shape[1]):
        counts += np.bincount(codes[:, token].astype(np.int64), minlength=n_codes)
    rarity, samples = mixed(counts.astype(np.uint64)), np.zeros(len(codes), np.uint64)
    for token in range(codes.shape[1]):
        samples += rarity[codes[:, token]]
    samples, company = mixed(samples), np.zeros(n_codes, np.uint64)
    for token in range(codes.shape[1]):
        np.add.at(company, codes[:, token], samples)
    found: NDArray[np.integer] = np.empty(n_codes, np.uint16 if n_codes <= 1 << 16 else np.int32)
    found[np.lexsort((company, counts))] = np.arange(n_codes)
    return found


def content_keys(codes: NDArray[np.integer], seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two hashes of each sample's codes, uint64 [n] each: an order that does not depend on that of the rows.

    Samples with the same codes have the same hashes, and it makes no difference which of them comes first.
    """
    random = np.random.default_rng(seed)
    weights = random.integers(2**64, size=(2, codes.shape[1]), dtype=np.uint64) | np.uint64(1)
    keys = np.zeros((2, len(codes)), np.uint64)
    for token in range(codes.shape[1]):
        keys += mixed(codes[:, token].astype(np.uint64) + weights[0, token]) * weights[1, token]
        keys[1] = mixed(keys[1])
    return keys[1], keys[0]


def cluster_codes(
    codes: NDArray[np.integer],
    n_codes: int,
    clusters: int,
    features: Features = "histogram",
    seed: int = 0,
    *,
    codebook: NDArray[np.float32] | None = None,
) -> NDArray[np.int32]:
    """Clusters of samples by their codes: int32 [n], numbered from 0 without gaps, the largest first.

    The order of the rows changes nothing. Memory is bounded: one block of vectors, and the samples that k-means reads
    (``training_rows``). So do the numbers of the codes, but for ``numbers``.

    Args:
        codes: the code of each token, integers [n, tokens] of 0 to ``n_codes`` - 1.
        n_codes: size of the codebook.
        clusters: how many at most.
        features: ``histogram``, ``numbers`` or ``embedding``: see ``CodeFeatures``.
        seed: of k-means.
        codebook: the codes' vectors [n_codes, d], for ``embedding``.

    Raises:
        ValueError: codes of another shape or type, or out of range; no cluster is asked for; features of another name;
            ``embedding`` without its codebook.
    """
    fitted = CodeClusters.fitted_to(codes, n_codes, clusters, features, codebook=codebook, seed=seed)
    return _numbered_by_size(fitted.assigned(codes)[0])


def _numbered_by_size(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    numbers, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    place = np.empty(len(numbers), np.int32)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(numbers), dtype=np.int32)
    return place[inverse]


def _check_codes(codes: NDArray[np.integer], n_codes: int) -> None:
    if codes.ndim != 2 or codes.dtype.kind not in "iu" or not codes.shape[1]:
        raise ValueError(f"codes are {codes.dtype} {list(codes.shape)}; expected integers [n, tokens]")
    outside = (codes < 0) | (codes >= n_codes)
    if outside.any():
        row, token = np.argwhere(outside)[0].tolist()
        raise ValueError(
            f"row {row}, token {token}: code {codes[row, token]}; expected 0 to {n_codes - 1} (n_codes={n_codes})"
        )


def select_from_clusters(
    labels: NDArray[np.integer],
    share: float,
    rule: Rule,
    scores: NDArray[np.floating] | None = None,
    seed: int = 0,
    *,
    keys: NDArray[np.uint64] | None = None,
) -> NDArray[np.bool_]:
    """Which samples are kept of each cluster: bool [n].

    - ``uniform``: drawn, by the seed and the keys.
    - ``every_nth``: in the order of the rows, as published: for a share of 1/5 the members 0, 5, 10 ... of a cluster.
    - ``nearest``, ``farthest``: those with the least, or largest, ``scores``, which are distances to the centroid.
    - ``best_score``: those with the largest ``scores``. A score that is not finite comes last in these three.

    Of a cluster of m samples ``every_nth`` keeps m * share, rounded up. The other rules keep m * share rounded up or
    down, at least 1, so that all clusters together keep n * share, rounded, or, if that is less, a sample of each.
    Those clusters are rounded up whose m * share has the largest fraction.

    Args:
        labels: the cluster of each sample [n]; a negative number is no cluster, and is not kept.
        share: more than 0, at most 1.
        rule: which.
        scores: [n], for the rules by score.
        seed: of the draw.
        keys: a number of each sample [n], such as a part of its uid, by which it is drawn and ties are broken, so that
            the order of the rows changes nothing. By default the row.

    Raises:
        ValueError: a share out of range; another rule; scores that are missing or of another length.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected more than 0, at most 1")
    if rule not in get_args(Rule):
        raise ValueError(f"rule={rule!r}: expected {', '.join(get_args(Rule))}")
    labels = np.asarray(labels)
    kept = np.zeros(len(labels), bool)
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        return kept
    order = rows[np.lexsort((*_priority(rule, scores, keys, len(labels), seed, rows), labels[rows]))]
    sizes, place = _places(labels[order])
    exact = _fraction(share)
    if rule == "every_nth":
        # Member j is kept where ceil((j + 1) * share) is more than ceil(j * share).
        above = [-(-count * exact.numerator // exact.denominator) for count in (place, place + 1)]
        kept[order] = above[1] > above[0]
    else:
        kept[order] = place < np.repeat(_quotas(sizes, exact), sizes)
    return kept


def _priority(
    rule: Rule,
    scores: NDArray[np.floating] | None,
    keys: NDArray[np.uint64] | None,
    count: int,
    seed: int,
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.generic], ...]:
    """Sort keys of the rows, the most important last."""
    if rule == "every_nth":
        return (rows,)
    own = np.arange(count, dtype=np.uint64) if keys is None else np.asarray(keys, np.uint64)
    drawn = _drawn(own, seed)[rows]
    if rule == "uniform":
        return (drawn,)
    if scores is None or len(scores) != count:
        found = "none" if scores is None else f"{len(scores)} of them"
        raise ValueError(f"rule={rule!r} needs a score for each of the {count} samples; found {found}")
    values = np.asarray(scores, np.float64)[rows]
    values = np.where(np.isfinite(values), values if rule == "nearest" else -values, math.inf)
    return (drawn, values)


def kept_of_some(
    labels: NDArray[np.integer], keys: NDArray[np.uint64], sizes: NDArray[np.integer], share: float, seed: int = 0
) -> NDArray[np.bool_]:
    """What ``select_from_clusters`` keeps by ``uniform`` of some whole clusters, bool [n], without the others.

    Args:
        labels: the cluster of each of their samples [n].
        keys: a number of each sample [n].
        sizes: of all clusters, by number, none empty.
        share: as there.
        seed: as there.
    """
    order = np.lexsort((_drawn(keys, seed), labels))
    own, place = _places(labels[order])
    kept = np.zeros(len(labels), bool)
    kept[order] = place < np.repeat(_quotas(np.asarray(sizes), _fraction(share))[np.unique(labels)], own)
    return kept


def _places(clustered: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes of clusters [clusters], and the place of each sample in its own [n], by their labels in order."""
    starts = np.flatnonzero(np.r_[True, clustered[1:] != clustered[:-1]][: len(clustered)])
    sizes = np.diff(np.r_[starts, len(clustered)])
    return sizes, np.arange(len(clustered)) - np.repeat(starts, sizes)


def _fraction(share: float) -> Fraction:
    return max(Fraction(float(share)).limit_denominator(_FINEST_SHARE), Fraction(1, _FINEST_SHARE))


def _drawn(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    return mixed(keys ^ mixed(np.array([seed % 2**64], np.uint64)))


def _quotas(sizes: NDArray[np.int64], share: Fraction) -> NDArray[np.int64]:
    """How many to keep of clusters of some sizes, [clusters]: the largest-remainder method, at least 1 of each."""
    parts = sizes * share.numerator
    quotas = np.maximum(parts // share.denominator, 1)
    total = round(int(sizes.sum()) * share)
    missing = max(0, total - int(quotas.sum()))
    remainders = np.where(quotas * share.denominator > parts, -1, parts % share.denominator)
    raised = np.argsort(-remainders, kind="stable")[:missing]
    quotas[raised] += 1
    return np.minimum(quotas, sizes)
