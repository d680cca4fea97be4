"""The last stage: what people read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets import describe
from dqe_assets.report.gallery import GalleryInputs, gallery_path, render_gallery
from dqe_assets.report.warehouse import MATERIALISATIONS, CaptionerInfo, WarehouseInputs, build_warehouse
from dqe_assets.schemas import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.stage import Check, Facts, Stage, Verdict, Work, stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_resources.storage import Stamp
    from dqe_resources.warehouse import Warehouse

TABLES = ("raw_samples", "image_features", "joint_embeddings", "caption_scores", "caption_preference")


def warehouse_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``warehouse``, over everything that is made for each shard."""
    names = [*TABLES, *(captions.name for captions in synthetic)]

    def inputs(work: Work) -> WarehouseInputs:
        files = {name: work.paths(name) for name in names}
        files["duplicate_clusters"] = [work.store.path("duplicate_clusters", None)]
        return WarehouseInputs(
            files, _materialisations(work, [*names, "caption_collection"]), _captioners(work), work.settings.scorer.model
        )

    def every_sample_there(work: Work, output: Facts) -> Verdict:
        expected = sum(len(table) for table in work.scan("raw_samples", ["uid"]))
        with work.settings.warehouse.connect() as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT uid) FROM samples").fetchone() or (0, 0)
        return Verdict(
            found == (expected, expected) and output.rows == expected,
            f"{found[0]:,} samples with {found[1]:,} uids in the warehouse, {expected:,} rows in the store",
            {"samples": found[0], "expected": expected},
        )

    @stage(
        name="warehouse",
        group="reports",
        kinds={"duckdb"},
        code_version="1",
        inputs=[*names, "caption_collection"],
        corpus_inputs=["duplicate_clusters"],
        partitioned=False,
        is_table=False,
        checks=[Check("rows_complete", "Every sample of the store is in the warehouse, once.", every_sample_there)],
        describe=describe.warehouse,
        signature=lambda work: [[info.name, info.model] for info in _captioners(work)],
        intact=lambda work, _: work.settings.warehouse.path.exists(),
    )
    def build(work: Work, warehouse: Warehouse) -> Facts:
        """The DuckDB file that people query: samples, captions, preferences, duplicates, failures, and views.

        It is built beside the live file and swapped in, so a reader is neither blocked nor broken.
        """
        prepared = inputs(work)
        warehouse.rebuild(lambda connection: build_warehouse(connection, prepared))
        with warehouse.connect() as connection:
            samples = connection.execute("SELECT count(*) FROM samples").fetchone() or (0,)
        return Facts(samples[0], {"shards": list(work.shards)})

    return build


def sample_gallery_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``sample_gallery``."""
    return NotImplemented


def _captioners(work: Work) -> list[CaptionerInfo]:
    scored_with = work.settings.scorer.backbones
    return [
        CaptionerInfo(
            captioner.name,
            captioner.kind,
            captioner.model,
            tuple(sorted(captioner.backbones)),
            bool(captioner.backbones & scored_with),
        )
        for captioner in work.settings.captioners
    ]


def _materialisations(work: Work, assets: Sequence[str]) -> pa.Table:
    stored = [work.store.get(asset, shard) for asset in assets for shard in work.shards]
    stored.append(work.store.get("duplicate_clusters", None))
    records = [
        {
            "asset": partition.asset,
            "partition": partition.partition,
            "materialised_at": partition.written_at,
            "code_version": partition.stamp.code_version,
            "rows": partition.stamp.rows,
            "bytes": partition.bytes,
        }
        for partition in stored
        if partition is not None
    ]
    return pa.Table.from_pylist(records, MATERIALISATIONS)
