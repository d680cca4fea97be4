"""Duplicates over all shards."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.uids import order_of_uids, packed_alike, places_of_uids, rows_of_uids
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.dedup import metadata
from dqe_assets.dedup.checks import one_representative
from dqe_assets.dedup.clusters import clusters_of_pairs
from dqe_assets.dedup.kept_features import features_of, kept_features
from dqe_assets.dedup.pairs import find_pairs
from dqe_assets.dedup.semantic import EXACT_BELOW
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS, DUPLICATE_PAIRS
from dqe_assets.dedup.views import RELATIONS
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.dedup.settings import DuplicateRules, PairRules, Representative

_PAIRS_VERSION = "2"
_CLUSTERS_VERSION = "3"


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
    there, *ends = packed_alike(uids, pairs["uid_a"], pairs["uid_b"])
    there = there[order_of_uids(there)]
    foreign = sum(int((places_of_uids(there, end) < 0).sum()) for end in ends)
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
    facts = _facts_before(work, _PAIRS_VERSION)
    if facts.get("rules") == fingerprint(rules.model_dump()):
        # Where they cannot be read, all are looked for again.
        with suppress(StorageError):
            return work.read(work.asset), _unchanged(versions, facts), facts["buckets"]
    return None, set(), None


def _facts_before(work: Work, code_version: str) -> Mapping[str, Any]:
    """What the asset's stamp says of what was made last time; nothing if that is of no use."""
    with suppress(StorageError):
        stored = None if work.force else work.store.get(work.asset, None)
        if stored is not None and not stored.stamp.failed_checks and stored.stamp.code_version == code_version:
            return stored.stamp.facts
    return {}


def _unchanged(versions: Mapping[str, str], facts: Mapping[str, Any]) -> set[str]:
    return {shard for shard, version in versions.items() if facts["shards"].get(shard) == version}


def duplicate_clusters_of(rules: DuplicateRules) -> Stage:
    """The asset ``duplicate_clusters``, which reads the best captions only if they decide what is kept."""
    scores = ["best_captions"] if rules.representative == "best_caption" else []

    @stage(
        kinds={"parquet", "python"},
        relations=RELATIONS,
        code_version=_CLUSTERS_VERSION,
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
        versions = _versions(work)
        pairs = work.read_unpartitioned("duplicate_pairs")
        uids = pc.unique(pa.chunked_array([*pairs["uid_a"].chunks, *pairs["uid_b"].chunks], pa.string()))
        features = features_of(work, versions, uids)
        earlier, unchanged = _cosines_before(work, versions)
        is_unchanged = np.array([*(shard in unchanged for shard in versions), False])
        clusters = clusters_of_pairs(
            pairs,
            uids,
            features.vectors,
            _preferred(work, representative, uids),
            directed=features.directed,
            earlier=earlier,
            unchanged=is_unchanged[features.shard],
        )
        return with_facts(clusters, {"shards": versions})

    return duplicate_clusters


def _cosines_before(work: Work, versions: Mapping[str, str]) -> tuple[pa.Table | None, set[str]]:
    """The clusters made last time, for their cosines, and the shards that are still the same."""
    facts = _facts_before(work, _CLUSTERS_VERSION)
    if "shards" in facts:
        with suppress(StorageError):
            return work.read(work.asset, ["uid", "representative", "similarity"]), _unchanged(versions, facts)
    return None, set()


def _joined(arrays: Sequence[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    chunks = [chunk for array in arrays for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    return pa.chunked_array(chunks, pa.string())


def _preferred(work: Work, representative: Representative, uids: pa.ChunkedArray) -> NDArray[np.float64]:
    """Which of some samples to keep first, those with the greater number: float64 [n].

    NaN for a sample of a shard that is left out here: it keeps the others together, but is not preferred.
    """
    there, found, before = [], [np.empty(0)], 0
    for shard in work.shards:
        of_shard = work.of_shard(shard)
        raw = of_shard.read("raw_samples", ["uid", "width", "height"])
        there.append(raw["uid"])
        found.append(_preference(of_shard, raw, before, representative).to_numpy(zero_copy_only=False))
        before += raw.num_rows
    rows = rows_of_uids(*packed_alike(_joined(there), uids))
    return np.append(np.concatenate(found), np.nan)[rows]


def _preference(work: Work, raw: pa.Table, before: int, representative: Representative) -> pa.ChunkedArray | pa.Array:
    """The preferences of a shard's rows; ``before`` counts the rows of the shards before it."""
    match representative:
        case "largest":
            return pc.multiply(raw["width"].cast(pa.float64()), raw["height"].cast(pa.float64()))
        case "best_caption":
            return work.read("best_captions", ["similarity"])["similarity"].cast(pa.float64())
        case "earliest":
            return pa.array(-np.arange(before, before + raw.num_rows, dtype=np.float64))
