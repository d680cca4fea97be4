"""Duplicates over all shards."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.dedup import metadata
from dqe_assets.dedup.checks import one_representative
from dqe_assets.dedup.clusters import clusters_of_pairs
from dqe_assets.dedup.kept_features import kept_features, vectors_of
from dqe_assets.dedup.pairs import find_pairs
from dqe_assets.dedup.semantic import EXACT_BELOW
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS, DUPLICATE_PAIRS
from dqe_assets.dedup.views import RELATIONS
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_assets.dedup.settings import DuplicateRules, PairRules, Representative

_PAIRS_VERSION = "2"


def _within_rules(_: Work, pairs: pa.Table, rules: PairRules) -> CheckResult:
    least = {"exact": 1.0, "perceptual": 1 - rules.max_distance / 64, "semantic": rules.min_cosine}
    far = sum(
        pc.sum(pc.and_(pc.equal(pairs["kind"], kind), pc.less(pairs["similarity"], np.float32(bound)))).as_py() or 0
        for kind, bound in least.items()
    )
    return CheckResult(
        far == 0,
        f"{pairs.num_rows:,} pairs, {far:,} less alike than the settings ask for",
        {"pairs": pairs.num_rows, "less_alike": far},
    )


def _in_order(work: Work, pairs: pa.Table) -> CheckResult:
    uids = _joined([table["uid"] for table in work.scan("raw_samples", ["uid"])])
    foreign = sum(pc.sum(pc.invert(pc.is_in(pairs[end], value_set=uids))).as_py() or 0 for end in ("uid_a", "uid_b"))
    turned = pc.sum(pc.greater_equal(pairs["uid_a"], pairs["uid_b"])).as_py() or 0
    return CheckResult(
        foreign == turned == 0,
        f"{pairs.num_rows:,} pairs, {foreign:,} uids of no sample, {turned:,} pairs the wrong way round",
        {"pairs": pairs.num_rows, "foreign": foreign, "turned": turned},
    )


@stage(
    kinds={"parquet", "faiss"},
    code_version=_PAIRS_VERSION,
    schema=DUPLICATE_PAIRS,
    resources={"rules": "duplicates.pairs"},
    inputs=["raw_samples", "image_features"],
    partitioned=False,
    checks=[
        unique("kind", "uid_a", "uid_b"),
        Check("within_rules", "Each pair is as alike as the settings ask for.", _within_rules),
        Check("two_samples", "Each pair is of two samples that are there, the smaller uid first.", _in_order),
    ],
    metadata=metadata.duplicate_pairs,
)
def duplicate_pairs(work: Work, rules: PairRules) -> pa.Table:
    """Pairs of images that are the same file or picture, look the same, or show the same, and how alike they are.

    Pairs within and between shards that have not changed since it was last made are kept and not looked for again.
    """
    # Taken before they are read: later changes were not looked at.
    versions = _versions(work)
    kept = kept_features(work, versions, rules.min_cosine, exact_below=EXACT_BELOW)
    earlier, unchanged, buckets = _earlier(work, rules, versions)
    work.log(f"{len(unchanged):,} shards unchanged, {len(versions) - len(unchanged):,} new or changed")
    is_unchanged = np.array([shard in unchanged for shard in versions], np.bool_)
    pairs = find_pairs(
        kept.samples,
        kept.vectors,
        rules,
        earlier=earlier,
        unchanged=is_unchanged[kept.shard],
        prepared=kept.prepared,
        same_buckets=buckets == kept.codebook,
    )
    facts = {"rules": fingerprint(rules.model_dump()), "shards": versions, "buckets": kept.codebook}
    return with_facts(pairs, facts)


def _versions(work: Work) -> dict[str, str]:
    """Of each shard, what changes whenever its pairs may."""
    return {shard: _shard_version(work, shard) for shard in work.shards}


def _shard_version(work: Work, shard: str) -> str:
    of_shard = work.of_shard(shard)
    return fingerprint(*(of_shard.version_of(asset) for asset in ("raw_samples", "image_features")))


def _earlier(work: Work, rules: PairRules, versions: Mapping[str, str]) -> tuple[pa.Table | None, set[str], str | None]:
    """The pairs found last time, those of the shards that are still the same, and the buckets that were searched."""
    # Where they cannot be read, all are looked for again.
    with suppress(StorageError):
        stored = None if work.force else work.store.get(work.asset, None)
        if stored is None or stored.stamp.failed_checks or stored.stamp.code_version != _PAIRS_VERSION:
            return None, set(), None
        if stored.stamp.facts["rules"] != fingerprint(rules.model_dump()):
            return None, set(), None
        before = stored.stamp.facts["shards"]
        unchanged = {shard for shard, version in versions.items() if before.get(shard) == version}
        return work.read(work.asset), unchanged, stored.stamp.facts["buckets"]
    return None, set(), None


def duplicate_clusters_of(rules: DuplicateRules) -> Stage:
    """The asset ``duplicate_clusters``, which reads the best captions only if they decide what is kept."""
    scores = ["best_captions"] if rules.representative == "best_caption" else []

    @stage(
        kinds={"parquet", "python"},
        relations=RELATIONS,
        code_version="3",
        schema=DUPLICATE_CLUSTERS,
        resources={"representative": "duplicates.representative", "rules": "duplicates.pairs"},
        inputs=["raw_samples", "image_features", *scores],
        unpartitioned_inputs=["duplicate_pairs"],
        partitioned=False,
        checks=[unique("uid", "kind"), one_representative("kind", "cluster"), finite("similarity", -1, 1)],
        metadata=metadata.duplicate_clusters,
    )
    def duplicate_clusters(work: Work, representative: Representative) -> pa.Table:
        """Clusters of duplicate images, everything that is connected by pairs, and which of each to keep."""
        pairs = work.read_unpartitioned("duplicate_pairs")
        uids = pc.unique(pa.chunked_array([*pairs["uid_a"].chunks, *pairs["uid_b"].chunks], pa.string()))
        preferences = _preferences(work, representative)
        # A sample of a shard that is left out here keeps the others together, but is not preferred.
        preference = preferences["preference"].take(pc.index_in(uids, preferences["uid"])).to_numpy()
        return clusters_of_pairs(pairs, uids, vectors_of(work, _versions(work), uids), preference)

    return duplicate_clusters


def _joined(arrays: Sequence[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    chunks = [chunk for array in arrays for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    return pa.chunked_array(chunks, pa.string())


def _preferences(work: Work, representative: Representative) -> pa.Table:
    """Which samples to keep first: those with the greater number."""
    tables, before = [pa.table({"uid": pa.array([], pa.string()), "preference": pa.array([], pa.float64())})], 0
    for shard in work.shards:
        of_shard = work.of_shard(shard)
        raw = of_shard.read("raw_samples", ["uid", "width", "height"])
        tables.append(pa.table({"uid": raw["uid"], "preference": _preference(of_shard, raw, before, representative)}))
        before += raw.num_rows
    return pa.concat_tables(tables)


def _preference(work: Work, raw: pa.Table, before: int, representative: Representative) -> pa.ChunkedArray | pa.Array:
    """The preferences of a shard's rows; ``before`` counts the rows of the shards before it."""
    match representative:
        case "largest":
            return pc.multiply(raw["width"].cast(pa.float64()), raw["height"].cast(pa.float64()))
        case "best_caption":
            return work.read("best_captions", ["similarity"])["similarity"].cast(pa.float64())
        case "earliest":
            return pa.array(-np.arange(before, before + raw.num_rows, dtype=np.float64))
