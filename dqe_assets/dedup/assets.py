"""Duplicates over all shards."""

from __future__ import annotations

from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.dedup import metadata
from dqe_assets.dedup.checks import one_representative
from dqe_assets.dedup.clusters import clusters_of_pairs
from dqe_assets.dedup.pairs import find_pairs
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS, DUPLICATE_PAIRS
from dqe_assets.dedup.views import RELATIONS
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_assets.dedup.settings import DuplicateRules, PairRules, Representative

RAW_COLUMNS = ["uid", "shard", "sha256"]
FEATURE_COLUMNS = ["pixel_digest", "perceptual_hash", "contrast"]

_PAIRS_VERSION = "1"


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
    versions = {shard: _shard_version(work, shard) for shard in work.shards}
    earlier, unchanged = _earlier(work, rules, versions)
    new = [shard for shard in work.shards if shard not in unchanged]
    work.log(f"{len(unchanged):,} shards unchanged, {len(new):,} new or changed")
    with TemporaryFile() as file:
        samples = _samples(work)
        pairs = find_pairs(
            samples,
            _vectors(work, file, samples["uid"]),
            rules,
            earlier=earlier,
            unchanged=pc.is_in(samples["shard"], value_set=pa.array(sorted(unchanged), pa.string())).to_numpy(),
        )
    return with_facts(pairs, {"rules": fingerprint(rules.model_dump()), "shards": versions})


def _shard_version(work: Work, shard: str) -> str:
    of_shard = work.of_shard(shard)
    return fingerprint(*(of_shard.version_of(asset) for asset in ("raw_samples", "image_features")))


def _earlier(work: Work, rules: PairRules, versions: Mapping[str, str]) -> tuple[pa.Table | None, set[str]]:
    """The pairs found last time, and the shards among which they were found that are still the same."""
    # Where they cannot be read, all are looked for again.
    with suppress(StorageError):
        stored = None if work.force else work.store.get(work.asset, None)
        if stored is None or stored.stamp.failed_checks or stored.stamp.code_version != _PAIRS_VERSION:
            return None, set()
        if stored.stamp.facts["rules"] != fingerprint(rules.model_dump()):
            return None, set()
        before = stored.stamp.facts["shards"]
        return work.read(work.asset), {shard for shard, version in versions.items() if before.get(shard) == version}
    return None, set()


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
        with TemporaryFile() as file:
            return clusters_of_pairs(pairs, uids, _vectors(work, file, uids), preference)

    return duplicate_clusters


def _joined(arrays: Sequence[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    chunks = [chunk for array in arrays for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    return pa.chunked_array(chunks, pa.string())


def _samples(work: Work) -> pa.Table:
    """The samples of all shards that have features, in order of their uids.

    A broken file has none: it takes no part, even if it equals another.
    """
    schema = pa.schema([*map(RAW_SAMPLES.field, RAW_COLUMNS), *map(IMAGE_FEATURES.field, FEATURE_COLUMNS)])
    tables = [schema.empty_table()]
    for shard in work.shards:
        of_shard = work.of_shard(shard)
        raw, features = of_shard.read("raw_samples", RAW_COLUMNS), of_shard.read("image_features", FEATURE_COLUMNS)
        table = pa.Table.from_arrays([*raw.columns, *features.columns], schema=schema)
        tables.append(table.filter(table["perceptual_hash"].is_valid()))
    return pa.concat_tables(tables).sort_by("uid")


def _vectors(work: Work, file: IO[bytes], uids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The features of these samples, float16 [n, d], mapped from a file; 0 if there are none."""
    vectors = np.zeros((len(uids), 0), np.float16)
    for table in work.scan("image_features", ["uid", "embedding"]):
        wanted = table.filter(pc.is_in(table["uid"], value_set=uids))
        rows, found = to_matrix(wanted["embedding"])
        if not len(rows):
            continue
        if not vectors.shape[1]:
            vectors = np.memmap(file, np.float16, mode="w+", shape=(len(uids), found.shape[1]))
        vectors[pc.index_in(wanted["uid"], uids).to_numpy()[rows]] = found
    return vectors


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
