"""Buckets that stay: their centroids depend on few shards, so that a new shard is put into those that there are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.dedup.buckets import RECALL, UnitRows, border_margin, near_buckets, partner_rank, spread, trained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CODE_LENGTH = 128
"""Numbers of a code."""

_SEED = 0
_DEVIATIONS = 4
_GROWTH = 4
_BUCKETS_PER_ROOT = 2
_TRAINED_PER_BUCKET = 64
_DISTORTION = 1.3
_SAMPLED = 5_000
_ROUNDING = 2e-3


def _margin(threshold: float) -> float:
    # Codes are up to so much farther apart than their vectors.
    return _DISTORTION * border_margin(threshold)


def codes(vectors: NDArray[np.floating]) -> NDArray[np.float16]:
    """Vectors in fewer dimensions: a random projection (Johnson and Lindenstrauss 1984), the same for all of a length.

    Args:
        vectors: floats [n, d], none zero.

    Returns:
        float16 [n, CODE_LENGTH] of length 1; where d is no more than that, the vectors themselves.
    """
    found = vectors.astype(np.float32)
    if found.shape[1] > CODE_LENGTH:
        shape = found.shape[1], CODE_LENGTH
        found = found @ np.random.default_rng(_SEED).normal(size=shape).astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
    return (found / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float16)


def code_threshold(threshold: float, dimension: int) -> float:
    """The cosine of codes that nearly all pairs have whose vectors, of so many dimensions, have this cosine.

    The cosine of two codes deviates by (1 - c**2) / sqrt(CODE_LENGTH): a pair with the cosine c itself is missed once
    in 30,000, and one that is more alike hardly ever.
    """
    if dimension <= CODE_LENGTH:
        return threshold - _ROUNDING
    return threshold - _DEVIATIONS * (1 - threshold**2) / CODE_LENGTH**0.5


def _partners(vectors: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    """A vector at random that has this cosine with each: float32 [n, d]."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = np.random.default_rng(_SEED).normal(size=unit.shape).astype(np.float32)
    noise -= np.einsum("ij,ij->i", noise, unit)[:, None] * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return cosine * unit + np.float32((1 - cosine**2) ** 0.5) * noise


@dataclass(frozen=True)
class Plan:
    """What a codebook is trained on. It changes only when the rows have become four times as many, or its shards do.

    Attributes:
        buckets: how many.
        shards: the first shards of each source in turn, as many as it takes.
        rows: how many of their rows.
    """

    buckets: int
    shards: tuple[str, ...]
    rows: int


def plan_for(rows: Mapping[str, int], exact_below: int) -> Plan | None:
    """The plan for shards of so many rows each; None if they are so few that all pairs are tried."""
    total = sum(rows.values())
    if total <= exact_below:
        return None
    least = exact_below
    while least * _GROWTH <= total:
        least *= _GROWTH
    buckets = round(_BUCKETS_PER_ROOT * (2 * least) ** 0.5)
    wanted = min(_TRAINED_PER_BUCKET * buckets, least)
    chosen: list[str] = []
    there = 0
    for shard in _in_turn({shard: count for shard, count in rows.items() if count}):
        if there >= wanted:
            break
        chosen.append(shard)
        there += rows[shard]
    return Plan(buckets, tuple(chosen), wanted)


def _in_turn(shards: Mapping[str, int]) -> list[str]:
    by_source: dict[str, list[str]] = {}
    for shard in sorted(shards):
        by_source.setdefault(shard.rpartition("-")[0], []).append(shard)
    turns = zip_longest(*by_source.values())
    return [shard for turn in turns for shard in turn if shard is not None]


@dataclass(frozen=True)
class Codebook:
    """Centroids of codes, and in how many buckets each code is looked up.

    Attributes:
        centroids: float32 [K, d].
        probes: buckets that each code is looked up in, its own included.
        threshold: cosine of codes from which two are a candidate.
    """

    centroids: NDArray[np.float32]
    probes: int
    threshold: float

    @classmethod
    def trained(cls, plan: Plan, made: NDArray[np.float16], vectors: Any, threshold: float) -> Codebook:
        """Train one, and measure in how many buckets a pair is to be looked for.

        There may be no pair among the rows: some of them get partners, made at random, that are just alike enough. A
        real pair is more alike than that, and so is missed less often.

        Args:
            plan: how many buckets.
            made: the codes of the rows to train on, float16 [n, d].
            vectors: their vectors, floats [n, D].
            threshold: cosine of a pair.
        """
        index = trained(UnitRows(made, np.arange(len(made)), are_unit=True), plan.buckets)
        of_codes = code_threshold(threshold, vectors.shape[1])
        sampled = vectors[spread(len(vectors), _SAMPLED)].astype(np.float32)
        both = codes(np.concatenate([sampled, _partners(sampled, threshold)]))
        near = near_buckets(UnitRows(both, np.arange(len(both)), are_unit=True), index, index.ntotal, _margin(of_codes))
        pairs = np.arange(len(both)).reshape(2, -1).T
        rank = partner_rank(near, pairs)
        probes = min(int(np.quantile(rank, RECALL, method="higher")) + 1, index.ntotal)
        return cls(index.reconstruct_n(0, index.ntotal), probes, of_codes)

    def near(self, made: NDArray[np.float16]) -> NDArray[np.int32]:
        """The buckets of each code, its own first: int32 [n, probes], -1 for one that need not be searched."""
        return near_buckets(
            UnitRows(made, np.arange(len(made)), are_unit=True), self._index, self.probes, _margin(self.threshold)
        )

    @cached_property
    def _index(self) -> Any:
        import faiss

        index = faiss.IndexFlatIP(self.centroids.shape[1])
        index.add(self.centroids)
        return index
