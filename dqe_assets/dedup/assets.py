"""Duplicates over all shards."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets import describe
from dqe_assets.checks import finite, unique
from dqe_assets.dedup.clusters import find_duplicates
from dqe_assets.stage import Check, Verdict, Work, stage

RAW_COLUMNS = ["uid", "sha256", "width", "height"]
FEATURE_COLUMNS = ["perceptual_hash", "contrast", "embedding"]


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
    tables = [
        _side_by_side(raw, features)
        for raw, features in zip(
            work.scan("raw_samples", RAW_COLUMNS), work.scan("image_features", FEATURE_COLUMNS), strict=True
        )
    ]
    return find_duplicates(pa.concat_tables(tables) if tables else _empty(), work.settings.duplicates)


def _side_by_side(raw: pa.Table, features: pa.Table) -> pa.Table:
    for name in features.column_names:
        raw = raw.append_column(name, features[name])
    return raw


def _empty() -> pa.Table:
    from dqe_assets.schemas import IMAGE_FEATURES, RAW_SAMPLES

    fields = [RAW_SAMPLES.field(name) for name in RAW_COLUMNS] + [
        IMAGE_FEATURES.field(name) for name in FEATURE_COLUMNS
    ]
    return pa.schema(fields).empty_table()
