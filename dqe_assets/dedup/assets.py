"""Duplicates over all shards."""

from __future__ import annotations

from dataclasses import replace
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets import describe
from dqe_assets.arrow import to_matrix
from dqe_assets.checks import finite, unique
from dqe_assets.dedup.clusters import find_caption_duplicates, find_duplicates
from dqe_assets.schemas import IMAGE_FEATURES, RAW_SAMPLES
from dqe_assets.stage import Check, Stage, Verdict, Work, stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.dedup.clusters import DuplicateRules

RAW_COLUMNS = ["uid", "sha256"]
FEATURE_COLUMNS = ["pixel_digest", "perceptual_hash", "contrast"]


def _one_representative(*cluster: str) -> Check:
    def one_each(_: Work, table: pa.Table) -> Verdict:
        clusters = table.group_by(list(cluster)).aggregate(
            [("is_representative", "sum"), ("uid", "count"), ("size", "max"), ("size", "min")]
        )
        kept = pc.equal(clusters["is_representative_sum"], 1)
        sized = pc.and_(
            pc.equal(clusters["uid_count"], clusters["size_max"]), pc.equal(clusters["size_max"], clusters["size_min"])
        )
        wrong = clusters.num_rows - (pc.sum(pc.and_(kept, sized)).as_py() or 0)
        return Verdict(
            wrong == 0,
            f"{clusters.num_rows:,} clusters, {wrong} without exactly one representative or of another size than said",
            {"clusters": clusters.num_rows, "wrong": wrong},
        )

    return Check("one_representative", "Each cluster has one sample to keep, and the size it states.", one_each)


def duplicate_clusters_of(rules: DuplicateRules) -> Stage:
    """The asset ``duplicate_clusters``, which reads the scores only if they decide what is kept."""
    scores = ["caption_scores"] if rules.representative == "best_caption" else []

    @stage(
        group="duplicates",
        kinds={"parquet", "faiss"},
        code_version="2",
        inputs=["raw_samples", "image_features", *scores],
        partitioned=False,
        checks=[unique("uid", "kind"), _one_representative("kind", "cluster"), finite("similarity", -1, 1)],
        describe=describe.duplicate_clusters,
        signature=lambda work: work.settings.duplicates.model_dump(exclude={"min_jaccard"}),
    )
    def duplicate_clusters(work: Work) -> pa.Table:
        """Clusters of images that are the same file or picture, look the same, or show the same, and which to keep."""
        with TemporaryFile() as file:
            samples, embeddings, preference = _gathered(work, file)
            return find_duplicates(samples, embeddings, preference, work.settings.duplicates)

    return duplicate_clusters


def caption_duplicates_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``caption_duplicates``, over the captions of these stages."""

    @stage(
        group="duplicates",
        kinds={"parquet", "python"},
        code_version="1",
        inputs=["raw_samples", *(captions.name for captions in synthetic)],
        partitioned=False,
        checks=[
            unique("uid", "caption_source", "kind"),
            _one_representative("caption_source", "kind", "cluster"),
            finite("similarity", 0, 1),
        ],
        describe=describe.caption_duplicates,
        signature=lambda work: work.settings.duplicates.min_jaccard,
    )
    def caption_duplicates(work: Work) -> pa.Table:
        """Captions that are given to several images in the same words, or nearly: what says little of any of them."""
        shards = [replace(work, partition=shard) for shard in work.shards]
        uids = [shard.read("raw_samples", ["uid"])["uid"] for shard in shards]
        captions = [shard.captions() for shard in shards]
        return find_caption_duplicates(
            _joined(uids),
            {source: _joined([of_shard[source] for of_shard in captions]) for source in work.settings.caption_sources},
            work.settings.duplicates.min_jaccard,
        )

    return caption_duplicates


def _joined(arrays: Sequence[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    chunks = [chunk for array in arrays for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    return pa.chunked_array(chunks, pa.string())


def _gathered(work: Work, file: IO[bytes]) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The samples of all shards that have an image, their features mapped from a file, and which are to be preferred.

    A broken file has no features: it takes no part, even if it equals another.
    """
    schema = pa.schema([*map(RAW_SAMPLES.field, RAW_COLUMNS), *map(IMAGE_FEATURES.field, FEATURE_COLUMNS)])
    kept, preferences = [schema.empty_table()], [np.empty(0)]
    dimension = before = 0
    for shard in work.shards:
        of_shard = replace(work, partition=shard)
        raw = of_shard.read("raw_samples", [*RAW_COLUMNS, "width", "height"])
        features = of_shard.read("image_features", [*FEATURE_COLUMNS, "embedding"])
        rows, vectors = to_matrix(features["embedding"])
        dimension = dimension or vectors.shape[1]
        file.write(vectors.astype(np.float16).tobytes())
        columns = [*raw.select(RAW_COLUMNS).columns, *features.select(FEATURE_COLUMNS).columns]
        kept.append(pa.Table.from_arrays(columns, schema=schema).take(pa.array(rows)))
        preferences.append(_preference(of_shard, raw)[rows] - before)
        before += raw.num_rows if work.settings.duplicates.representative == "earliest" else 0
    file.flush()
    samples = pa.concat_tables(kept)
    shape = (samples.num_rows, dimension)
    embeddings = np.memmap(file, np.float16, mode="r", shape=shape) if samples.num_rows else np.empty(shape, np.float16)
    return samples, embeddings, np.concatenate(preferences)


def _preference(work: Work, raw: pa.Table) -> np.ndarray:
    """Which rows of a shard are rather to be kept: those with the greater number."""
    match work.settings.duplicates.representative:
        case "largest":
            return pc.multiply(raw["width"].cast(pa.float64()), raw["height"].cast(pa.float64())).to_numpy()
        case "best_caption":
            scores = work.read("caption_scores", ["uid", "similarity"])
            best = scores.group_by("uid").aggregate([("similarity", "max")])
            return best["similarity_max"].take(pc.index_in(raw["uid"], best["uid"])).cast(pa.float64()).to_numpy()
        case "earliest":
            return -np.arange(raw.num_rows, dtype=np.float64)
