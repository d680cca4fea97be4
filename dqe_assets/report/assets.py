"""The last stage: the warehouse and the gallery."""

from __future__ import annotations

from functools import partial
from html.parser import HTMLParser
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.caption import views as caption
from dqe_assets.compression import views as compression
from dqe_assets.contamination import views as contamination
from dqe_assets.core.relations import signature_of
from dqe_assets.core.signals import signals_of
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.evaluation import views as evaluation
from dqe_assets.filtering import mix_views
from dqe_assets.grounding import views as grounding
from dqe_assets.improve import judging_views, refining_views
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report import metadata, signal_views, tables
from dqe_assets.report.build_warehouse import (
    CaptionerInfo,
    WarehouseInputs,
    build_warehouse,
    can_update,
    reads_of,
    signature,
)
from dqe_assets.report.gallery import ENTRY, FOLDER, GalleryInputs, render_gallery
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_assets.score import sample_score_views, vqa_views
from dqe_assets.signals import views as signals
from dqe_assets.training import views as training
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import TornError, is_as_written, replace_file, what_is_written

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import duckdb

    from dqe_assets.core.relations import Relations
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.store import Stamp, Store
    from dqe_resources.warehouse import Warehouse

LEFT_OUT = (
    caption.RELATIONS,
    sample_score_views.RELATIONS,
    vqa_views.RELATIONS,
    grounding.RELATIONS,
    mix_views.RELATIONS,
    judging_views.RELATIONS,
    refining_views.RELATIONS,
    compression.RELATIONS,
    contamination.RELATIONS,
    training.RELATIONS,
    evaluation.RELATIONS,
    signals.RELATIONS,
)
"""What stages contribute that data/dqe.yaml may leave out: their tables are there all the same, and empty."""


def relations_of(stages: Sequence[Stage]) -> tuple[Relations, ...]:
    """The relations of these stages, and those that join them."""
    # A stage that is on contributes the same as if it were left out.
    found = {id(one): one for one in (*(one.relations for one in stages if one.relations), *LEFT_OUT)}.values()
    read = {read.asset for one in found for read in one.reads}
    known = signals_of(stages)
    return (*found, tables.relations_of(known), signal_views.relations_of(known, read))


def warehouse_of(stages: Sequence[Stage], captioners: Sequence[CaptionerInfo], scorer: Scorer) -> Stage:
    """The asset ``warehouse``, over what these stages make for each shard, and what their relations read over all.

    Args:
        stages: all but those that read the warehouse.
        captioners: who wrote the captions.
        scorer: what scored them.
    """
    relations = relations_of(stages)
    read = {name for one in relations for name in (*(read.asset for read in one.reads), *one.by_manifest)}
    by_shard = [one for one in stages if one.partitioned]
    begins = tuple(name for name in read if name.endswith("/"))
    of_runs = [one for one in stages if one.of_runs and one.name in read]
    over_all = [one for one in stages if not one.partition_set and (one.name in read or one.name.startswith(begins))]

    def inputs(work: Work) -> WarehouseInputs:
        manifests = {one.name: _facts(work, one.name) for one in over_all if one.schema is None}
        return WarehouseInputs(
            relations=relations,
            assets={name: work.store.files(name, keys) for name, keys in partitions(work, manifests).items()},
            materialisations=_materialisations(work, by_shard, of_runs, over_all),
            captioners=captioners,
            scorer=scorer.model,
            manifests=manifests,
            place=work.store.place,
        )

    def partitions(work: Work, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Sequence[str | None]]:
        """Those that are read, by asset."""
        return {
            **{one.name: work.shards for one in by_shard if one.schema is not None},
            **{one.name: work.runs for one in of_runs if one.schema is not None},
            **{one.name: [None] for one in over_all if one.schema is not None},
            **{name: facts["shards"] for name, facts in manifests.items()},
        }

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
        code_version="5",
        inputs=[one.name for one in by_shard],
        unpartitioned_inputs=[one.name for one in over_all],
        run_inputs=[one.name for one in of_runs],
        partitioned=False,
        checks=[Check("rows_complete", "Every sample of the store is in the warehouse, once.", every_sample_there)],
        metadata=metadata.warehouse,
        signature=lambda _: [
            [[one.name, one.model, one.price_per_hour] for one in captioners],
            signature_of(relations),
        ],
        is_valid=lambda _, stamp, warehouse: is_as_written(warehouse.path, stamp.facts),
    )
    def build(work: Work, warehouse: Warehouse) -> Manifest:
        """The DuckDB file that people query: samples, captions, preferences, duplicates, failures, and views.

        It is built next to the live file and swapped in, so readers are neither blocked nor broken. Where few shards
        changed, it begins with a copy of the live file, in which their rows are replaced; with `--force`, and after
        takedowns, it does not.
        """
        prepared = inputs(work)

        def fill(connection: duckdb.DuckDBPyConnection) -> None:
            try:
                build_warehouse(connection, prepared)
            except duckdb.Error:
                # What DuckDB says of a file names none.
                work.store.require_as_seen()
                keys = partitions(work, prepared.manifests)
                work.store.require_whole((name, key, read) for name, read in reads_of(prepared) for key in keys[name])
                raise
            work.store.require_as_seen()

        import duckdb

        made_by = fingerprint([build.code_version, duckdb.__version__, signature(prepared)])
        facts = {} if work.force else _facts_of_earlier(work)

        def keep(connection: duckdb.DuckDBPyConnection) -> bool:
            return is_as_written(warehouse.path, facts) and can_update(connection, prepared)

        warehouse.rebuild(fill, keep if facts.get("made_by") == made_by else None)
        with warehouse.connect() as connection:
            samples = connection.execute("SELECT count(*) FROM samples").fetchone() or (0,)
        return Manifest(
            samples[0], {"shards": list(work.shards), "made_by": made_by, **what_is_written(warehouse.path)}
        )

    return build


def gallery_path() -> Path:
    """Where the first page of the gallery is written."""
    return data_directory() / ENTRY


def gallery_pages() -> list[Path]:
    """The pages of the gallery that are there, the first one first."""
    first = gallery_path()
    return [*([first] if first.is_file() else []), *sorted((first.parent / FOLDER).glob("*.html"))]


class _Loads(HTMLParser):
    """Collects what a page would load from other places, and scripts that it would run.

    Args:
        own: addresses that it may link to.
    """

    def __init__(self, own: Collection[str] = ()) -> None:
        super().__init__()
        self.found: list[str] = []
        self._own = own

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As HTMLParser calls it for each element."""
        if tag in {"script", "iframe", "object", "embed", "base", "form"}:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if tag == "a" and name == "href" and value in self._own:
                continue
            if name in {"src", "srcset", "href", "action"} and not (value or "").startswith(("data:image/", "#")):
                self.found.append(f"{name}={value}")
            elif name.startswith("on"):
                self.found.append(name)


def _links(pages: Sequence[Path], page: Path) -> set[str]:
    """The addresses of the gallery's pages, as one of them writes them."""
    at_top = page == gallery_path()
    return {f"{FOLDER}/{one.name}" if at_top else one.name for one in pages[1:]} | {ENTRY if at_top else f"../{ENTRY}"}


def _page_stands_alone(_: Work, __: Manifest) -> CheckResult:
    found: list[str] = []
    pages = gallery_pages()
    for page in pages:
        loads = _Loads(_links(pages, page))
        loads.feed(page.read_text(encoding="utf-8"))
        found += loads.found
    return CheckResult(
        not found,
        f"{len(pages)} pages load or run {len(found)} things{': ' + ', '.join(found[:5]) if found else ''}",
        {"found": len(found)},
    )


def _gallery_is_there(_: Work, stamp: Stamp) -> bool:
    # What another version wrote tells of no pages.
    pages = stamp.facts.get("pages", {})
    return bool(pages) and all(is_as_written(data_directory() / path, facts) for path, facts in pages.items())


def _write(content: bytes, target: BinaryIO) -> None:
    target.write(content)


def sample_gallery_of(stages: Sequence[Stage]) -> Stage:
    """The asset ``sample_gallery``, with what these stages contribute to it."""
    relations = relations_of(stages)

    @stage(
        kinds={"html"},
        code_version="4",
        inputs=["raw_samples"],
        unpartitioned_inputs=["warehouse"],
        partitioned=False,
        checks=[Check("stands_alone", "The pages load nothing and run no script.", _page_stands_alone)],
        metadata=metadata.sample_gallery,
        is_valid=_gallery_is_there,
    )
    def sample_gallery(work: Work, warehouse: Warehouse) -> Manifest:
        """HTML pages to look at: photos with captions and scores, most improved, worst, duplicates, failures, plots."""
        shown: list[str] = []
        with warehouse.connect() as connection:

            def images(uids: list[str]) -> dict[str, bytes]:
                shown.extend(uids)
                found = stored_images(work.store, connection, uids)
                for give in (give for one in relations for give in one.pictures):
                    found |= give(work.store, uids)
                return found

            pages = render_gallery(GalleryInputs(connection, images), relations)
        for stale in {path.relative_to(data_directory()).as_posix() for path in gallery_pages()} - pages.keys():
            (data_directory() / stale).unlink()
        # The first page comes last: what it links to is there.
        for path, page in reversed(pages.items()):
            replace_file(data_directory() / path, partial(_write, page.encode()))
        written = {path: what_is_written(data_directory() / path) for path in pages}
        return Manifest(len(set(shown)), {"path": str(gallery_path()), "pages": written})

    return sample_gallery


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
    """The facts in the manifest of an asset over all shards; the stage has made sure that it exists."""
    stored = work.store.get(asset, None)
    return stored.stamp.facts if stored else {}


def _facts_of_earlier(work: Work) -> Mapping[str, Any]:
    """The facts of the warehouse that there is; empty if there is none that a new one may begin with."""
    try:
        stored = work.store.get(work.asset, None)
    except TornError:
        return {}
    return stored.stamp.facts if stored and not stored.stamp.failed_checks else {}


def _materialisations(
    work: Work, by_shard: Sequence[Stage], of_runs: Sequence[Stage], over_all: Sequence[Stage]
) -> pa.Table:
    stored = [work.store.get(one.name, shard) for one in by_shard for shard in work.shards]
    stored += [work.store.get(one.name, run) for one in of_runs for run in work.runs]
    stored += [work.store.get(one.name, None) for one in over_all]
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
