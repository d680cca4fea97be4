"""Duplicates over all shards."""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets import describe
from dqe_assets.arrow import to_matrix
from dqe_assets.checks import finite, unique
from dqe_assets.dedup.clusters import find_duplicates
from dqe_assets.schemas import IMAGE_FEATURES, RAW_SAMPLES
from dqe_assets.stage import Check, Verdict, Work, stage

RAW_COLUMNS = ["uid", "sha256", "width", "height"]
HASHES = ["perceptual_hash", "contrast"]


def _one_representative_each(_: Work, table: pa.Table) -> Verdict:
    clusters = table.group_by(["kind", "cluster"]).aggregate(
        [("is_representative", "sum"), ("uid", "count"), ("size", "max"), ("size", "min")]
    )
    kept = pc.equal(clusters["is_representative_sum"], 1)
    sized = pc.and_(
        pc.equal(clusters["uid_count"], clusters["size_max"]), pc.equal(clusters["size_max"], clusters["size_min"])
    )
    wrong = clusters.num_rows - (pc.sum(pc.and_(kept, sized)).as_py() or 0)
    return Verdict(
        wrong == 0,
        f"{clusters.num_rows:,} clusters, {wrong} without exactly one representative or of another size than stated",
        {"clusters": clusters.num_rows, "wrong": wrong},
    )


@stage(
    group="duplicates",
    kinds={"parquet", "numpy"},
    code_version="1",
    inputs=["raw_samples", "image_features"],
    partitioned=False,
    checks=[
        unique("uid", "kind"),
        Check(
            "one_representative",
            "Each cluster has one sample to keep, and the size it states.",
            _one_representative_each,
        ),
        finite("similarity", -1, 1),
    ],
    describe=describe.duplicate_clusters,
    signature=lambda work: work.settings.duplicates.model_dump(),
)
def duplicate_clusters(work: Work) -> pa.Table:
    """Clusters of images that are the same file, look the same, or show the same, with the one of each to keep."""
    with TemporaryFile() as file:
        samples, embeddings = _gathered(work, file)
        return find_duplicates(samples, embeddings, work.settings.duplicates)


def _gathered(work: Work, file: IO[bytes]) -> tuple[pa.Table, np.ndarray]:
    """The samples of all shards that have an image, and their features, float16 [n, d], mapped from a file.

    A broken file has no features: it takes no part, even if it equals another.
    """
    kept = [pa.schema([*map(RAW_SAMPLES.field, RAW_COLUMNS), *map(IMAGE_FEATURES.field, HASHES)]).empty_table()]
    dimension = 0
    for raw, features in zip(
        work.scan("raw_samples", RAW_COLUMNS), work.scan("image_features", [*HASHES, "embedding"]), strict=True
    ):
        rows, vectors = to_matrix(features["embedding"])
        file.write(vectors.astype(np.float16).tobytes())
        dimension = dimension or vectors.shape[1]
        table = pa.Table.from_arrays([*raw.columns, *features.select(HASHES).columns], schema=kept[0].schema)
        kept.append(table.take(pa.array(rows)))
    file.flush()
    samples = pa.concat_tables(kept)
    if not samples.num_rows:
        return samples, np.empty((0, 0), np.float16)
    return samples, np.memmap(file, np.float16, mode="r", shape=(samples.num_rows, dimension))
