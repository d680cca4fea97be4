"""The last stage: what people read."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.filtering.masks import pairs_table, steps_table
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report import metadata
from dqe_assets.report.build_warehouse import MATERIALISATIONS, CaptionerInfo, WarehouseInputs, build_warehouse
from dqe_assets.report.gallery import GalleryInputs, render_gallery
from dqe_resources.cache import data_directory
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.store import Store
    from dqe_resources.warehouse import Warehouse

CORPUS_TABLES = (
    *("duplicate_clusters", "caption_duplicates", "collection_map", "pool_utilities", "filter_recommendation"),
    *("concept_frequency", "misalignment", "concept_performance", "concept_plan"),
    *("rare_concept_retrieval", "rebalanced_subset", "curriculum"),
)
CORPUS_MANIFESTS = ("filter_masks",)
TABLES = (
    *("raw_samples", "image_features", "joint_embeddings", "caption_scores", "caption_preference", "concept_hits"),
    "best_captions",
    "text_quality",
)


def warehouse_of(configured: Sequence[Stage], captioners: Sequence[CaptionerInfo], scorer: Scorer) -> Stage:
    """The asset ``warehouse``, over everything that is made for each shard.

    Args:
        configured: of what is made for each shard, the stages that only the settings ask for.
        captioners: who wrote the captions.
        scorer: what scored them.
    """
    names = [*TABLES, *(one.name for one in configured)]

    def inputs(work: Work) -> WarehouseInputs:
        files = {name: work.store.urls(name, work.shards) for name in names}
        files |= {name: work.store.urls(name, [None]) for name in CORPUS_TABLES}
        masks = _facts(work, "filter_masks")
        return WarehouseInputs(
            files | {"filter_masks": work.store.urls("filter_masks", masks["shards"])},
            _materialisations(work, [*names, "caption_collection"]),
            captioners,
            scorer.model,
            {one["filter"]: one["expression"] for one in masks["filters"]},
            steps_table(masks),
            pairs_table(masks),
        )

    def every_sample_there(work: Work, output: Manifest, warehouse: Warehouse) -> CheckResult:
        expected = sum(len(table) for table in work.scan("raw_samples", ["uid"]))
        with warehouse.connect() as connection:
            found = connection.execute("SELECT count(*), count(DISTINCT uid) FROM samples").fetchone() or (0, 0)
        return CheckResult(
            found == (expected, expected) and output.rows == expected,
            f"{expected:,} rows in the store, {output.rows:,} were counted, {found[0]:,} samples with "
            f"{found[1]:,} uids are in the warehouse",
            {"expected": expected, "counted": output.rows, "samples": found[0], "uids": found[1]},
        )

    @stage(
        name="warehouse",
        kinds={"duckdb"},
        code_version="4",
        inputs=[*names, "caption_collection"],
        unpartitioned_inputs=(*CORPUS_TABLES, *CORPUS_MANIFESTS),
        partitioned=False,
        checks=[Check("rows_complete", "Every sample of the store is in the warehouse, once.", every_sample_there)],
        metadata=metadata.warehouse,
        signature=lambda _: [[info.name, info.model, info.price_per_hour] for info in captioners],
        is_valid=lambda _, __, warehouse: warehouse.path.exists(),
    )
    def build(work: Work, warehouse: Warehouse) -> Manifest:
        """The DuckDB file that people query: samples, captions, preferences, duplicates, failures, and views.

        It is built beside the live file and swapped in, so a reader is neither blocked nor broken.
        """
        prepared = inputs(work)

        def fill(connection: duckdb.DuckDBPyConnection) -> None:
            work.store.open_to(connection)
            build_warehouse(connection, prepared)

        warehouse.rebuild(fill)
        with warehouse.connect() as connection:
            samples = connection.execute("SELECT count(*) FROM samples").fetchone() or (0,)
        return Manifest(samples[0], {"shards": list(work.shards)})

    return build


def gallery_path() -> Path:
    """Where the gallery is written."""
    return data_directory() / "gallery.html"


class _Loads(HTMLParser):
    """Collects what a page loads from elsewhere, and what of it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As HTMLParser calls it for each element."""
        if tag in {"script", "iframe", "object", "embed", "base", "form"}:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name in {"src", "srcset", "href", "action"} and not (value or "").startswith(("data:image/", "#")):
                self.found.append(f"{name}={value}")
            elif name.startswith("on"):
                self.found.append(name)


def _page_stands_alone(_: Work, __: Manifest) -> CheckResult:
    loads = _Loads()
    loads.feed(gallery_path().read_text(encoding="utf-8"))
    return CheckResult(
        not loads.found,
        f"the page loads or runs {len(loads.found)} things{': ' + ', '.join(loads.found[:5]) if loads.found else ''}",
        {"found": len(loads.found)},
    )


@stage(
    kinds={"html"},
    code_version="2",
    inputs=["raw_samples"],
    unpartitioned_inputs=["warehouse"],
    partitioned=False,
    checks=[Check("stands_alone", "The page loads nothing and runs no script.", _page_stands_alone)],
    metadata=metadata.sample_gallery,
    is_valid=lambda _, __: gallery_path().exists(),
)
def sample_gallery(work: Work, warehouse: Warehouse) -> Manifest:
    """One HTML page to look at: photos with their captions and scores, most improved, worst, duplicates, failures."""
    shown: list[str] = []
    with warehouse.connect() as connection:

        def images(uids: list[str]) -> dict[str, bytes]:
            shown.extend(uids)
            return stored_images(work.store, connection, uids)

        page = render_gallery(GalleryInputs(connection, images))
    replace_file(gallery_path(), lambda target: target.write(page.encode()))
    return Manifest(len(shown), {"path": str(gallery_path())})


def stored_images(store: Store, connection: duckdb.DuckDBPyConnection, uids: list[str]) -> dict[str, bytes]:
    """The image files of samples, by uid; the warehouse says where each is."""
    places = connection.execute(
        'SELECT shard, "row" FROM samples WHERE uid IN (SELECT unnest(?)) ORDER BY ALL', [uids]
    ).fetchall()
    found: dict[str, bytes] = {}
    for shard, places_in_shard in groupby(places, key=itemgetter(0)):
        rows = [row for _, row in places_in_shard]
        table = store.read_rows("raw_samples", shard, RAW_SAMPLES, rows, ["uid", "image"])
        found |= {row["uid"]: row["image"]["bytes"] for row in table.to_pylist() if row["image"]}
    return found


def _facts(work: Work, asset: str) -> Mapping[str, Any]:
    """What the manifest of an asset over all shards says; that it is there, the stage has made sure."""
    stored = work.store.get(asset, None)
    return stored.stamp.facts if stored else {}


def _materialisations(work: Work, assets: Sequence[str]) -> pa.Table:
    stored = [work.store.get(asset, shard) for asset in assets for shard in work.shards]
    stored += [work.store.get(name, None) for name in (*CORPUS_TABLES, *CORPUS_MANIFESTS)]
    records = [
        {
            "asset": partition.asset,
            "partition": partition.partition,
            "materialised_at": partition.written_at,
            "code_version": partition.stamp.code_version,
            "rows": partition.stamp.rows,
            "bytes": partition.bytes,
            "fingerprint": partition.stamp.identity,
        }
        for partition in stored
        if partition is not None
    ]
    return pa.Table.from_pylist(records, MATERIALISATIONS)
