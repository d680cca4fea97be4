"""What was taken down: which rows, what is left of it and where, and the removal of what no stage makes again."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dqe_assets.concepts import kept_hits
from dqe_assets.dedup import kept_captions, kept_features
from dqe_assets.filtering.subset import SubsetError, contains, parse_uids, read_subset
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.ingest.takedowns.entries import KINDS, Entries, hosts_above, mark
from dqe_assets.ingest.takedowns.matching import COPY, ROW_COLUMNS, Matcher
from dqe_assets.ingest.takedowns.memory import MEMORY, REMEMBERED, remembered
from dqe_assets.ingest.takedowns.shard import stored_hashes
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.published import published
from dqe_assets.report.assets import gallery_pages, gallery_path
from dqe_assets.reviews import log as reviews
from dqe_assets.search import kept_map
from dqe_assets.view import files as view
from dqe_assets.view.assets import samples_path
from dqe_resources.cache import data_directory
from dqe_resources.store import UNPARTITIONED, Checkpoint, StorageError, storage_errors
from dqe_resources.store.checkpoint import UNFINISHED
from dqe_resources.vectors.protocol import VectorsBrokenError, VectorsError, VectorsMissingError
from dqe_resources.warehouse import WarehouseError, WarehouseMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dqe_assets.orchestration.settings import Settings

_WITHOUT_IMAGE = frozenset(
    (
        *("uid", "source", "shard", "row", "status", "reason", "detail", "item", "caption_source", "source_a"),
        *("source_b", "independent", "scorer", "counted_by", "finish_reason", "model", "revision", "best_reason"),
    )
)
"""Columns in which a row has something although there is nothing of its image or caption."""

_TEXT_COLUMNS = """
    SELECT table_name, list([column_name, data_type]) FROM information_schema.columns
    JOIN information_schema.tables USING (table_catalog, table_schema, table_name)
    WHERE table_type = 'BASE TABLE' AND data_type IN ('VARCHAR', 'VARCHAR[]') GROUP BY ALL ORDER BY ALL
"""

RAW = "raw_samples"


def taken_down(settings: Settings) -> dict[str, set[str]]:
    """The uids of the rows that are taken down in the store, by shard; a shard that cannot be read has none.

    Raises:
        StorageError: the store cannot be listed.
    """
    store, found = settings.opened_store, {}
    for shard in sorted(store.partitions(RAW)) if store.partitions(MEMORY) else ():
        with suppress(StorageError):
            rows = store.read(RAW, shard, RAW_SAMPLES, ["uid", "reason"])
            if uids := set(rows.filter(pc.equal(rows["reason"], TAKEN_DOWN))["uid"].to_pylist()):
                found[shard] = uids
    return found


def purge(settings: Settings) -> list[str]:
    """Remove what is left in the store of rows that are taken down, where no stage would make it again.

    These are tables of assets that dqe.yaml has no longer, rows of unfinished runs, what the files of the collection
    keep of points that were deleted, and tags and captions that people gave.

    Returns:
        The files that were removed, as paths in the store.

    Raises:
        StorageError: a file cannot be removed.
        VectorsError: the collection cannot be rewritten.
    """
    by_shard, matcher = taken_down(settings), settings.ingest.matcher(settings.opened_store)
    if not by_shard and not matcher:
        return []
    store, removed = settings.opened_store, []
    made = {stage.name for stage in graph.stages(settings)} | {MEMORY}
    for file in _files(settings):
        uids = by_shard.get(file.key, set()) | file.hit_by(matcher)
        if uids and (file.is_unfinished or file.asset not in made) and file.has_any(uids):
            try:
                store.filesystem.rm_file(file.path)
            except storage_errors() as error:
                raise store.place.unremovable(file.path, error) from error
            removed.append(file.name)
    reviews.forget({uid for uids in by_shard.values() for uid in uids})
    settings.vectors.forget_deleted()
    return removed


def outside(settings: Settings) -> list[str]:
    """A line for each published folder, and for each subset, that still has samples that are taken down."""
    uids = {uid for of_shard in taken_down(settings).values() for uid in of_shard}
    wanted = parse_uids(pa.array(sorted(uids), pa.string()))
    counted = ((one.place, int(contains(one.uids, wanted).sum())) for one in published())
    found = [(f"published folder {place}", count, "remove it, and publish again") for place, count in counted]
    found += _subsets_with(uids)
    return [
        f"{place} has {count:,} sample{'' if count == 1 else 's'} taken down since; {what}"
        for place, count, what in found
        if count
    ]


def _subsets_with(uids: Collection[str]) -> Iterator[tuple[str, int, str]]:
    """Subsets that have some of these uids, how many, and what to do."""
    wanted = parse_uids(pa.array(sorted(uids), pa.string()))
    for path in sorted((data_directory() / "subsets").glob("*.npy")):
        with suppress(SubsetError):
            if count := int(contains(read_subset(path), wanted).sum()):
                yield f"subset {path}", count, "remove it, or make it again"


@dataclass(frozen=True)
class Counts:
    """How much is to be taken down.

    Attributes:
        entries: how many entries of each kind.
        rows: that are taken down in the store.
        copies: how many of them are copies.
        to_do: rows that are still to be taken down, or were by an entry that is no longer listed.
    """

    entries: dict[str, int]
    rows: int
    copies: int
    to_do: int


def counts(settings: Settings) -> Counts:
    """How much is listed, and how many rows of the store it hits.

    Raises:
        StorageError: the store cannot be read.
    """
    store, matcher = settings.opened_store, settings.ingest.matcher(settings.opened_store)
    rows = copies = to_do = 0
    for shard in sorted(store.partitions(RAW)) if matcher else ():
        if store.get(RAW, shard) is None:
            continue
        table = store.read(RAW, shard, RAW_SAMPLES, ROW_COLUMNS)
        details = table.filter(pc.equal(table["reason"], TAKEN_DOWN))["detail"].to_pylist()
        rows += len(details)
        copies += sum(detail.startswith(COPY) for detail in details)
        to_do += sum(not matcher.is_active(detail) for detail in details)
        to_do += len(matcher.of_stored(table, stored_hashes(store, shard, matcher)))
    return Counts({kind: len(values) for kind, values in matcher.entries.found.items()}, rows, copies, to_do)


@dataclass(frozen=True)
class Left:
    """What is left of something that was to be taken down.

    Attributes:
        places: a line for each place where something is.
        lists: whether takedowns lists it; and a line for each row of a source that does, which is no leftover.
    """

    places: tuple[str, ...]
    lists: tuple[str, ...]


def left_of(settings: Settings, kind: str, value: str) -> Left:
    """Where anything is left of what an entry names: of the rows that it matches, and of their copies taken down.

    Args:
        settings: the settings.
        kind: of the entry.
        value: in its normal form.

    Raises:
        StorageError: the store cannot be listed, or what is remembered cannot be read.
    """
    places: list[str] = []
    rows = _rows_of(settings, kind, value, places)
    uids = set(rows)
    for file in _files(settings):
        places += file.places_of(uids)
    places += _in_collection(settings, uids)
    places += _in_warehouse(settings, uids)
    places += _in_gallery(uids)
    places += [f"{place} ({count:,})" for place, count, _ in _subsets_with(uids)]
    places += _in_folders(uids)
    places += [f"decisions of people, {path} ({count:,})" for path, count in reviews.places_of(uids)]
    kept = [*kept_features.places_of(uids), *kept_captions.places_of(uids)]
    places += [f"what duplicates are found by, {path} ({count:,})" for path, count in kept]
    places += [f"what concepts are counted by, {path} ({count:,})" for path, count in kept_hits.places_of(uids)]
    places += [f"the samples on the map, {path} ({count:,})" for path, count in kept_map.places_of(uids)]
    if count := sum(has_content(row, of_shard=True) for row in view.rows_of(uids)):
        places.append(f"the samples of the view, {samples_path()} ({count:,})")
    matcher = settings.ingest.matcher(settings.opened_store)
    is_listed = (
        mark(kind, value) in matcher.entries.marks
        or (kind == "url" and matcher.of_url(value) is not None)
        or (kind == "host" and not matcher.entries.found["host"].isdisjoint(hosts_above(value)))
    )
    listed = ["takedowns lists it" if is_listed else "takedowns does not list it"]
    listed += [f"its source lists it still: {where}" for where in sorted(filter(None, rows.values()))]
    return Left(tuple(dict.fromkeys(places)), tuple(listed))


def _rows_of(settings: Settings, kind: str, value: str, places: list[str]) -> dict[str, str]:
    """The uids of what an entry names, with the shard and row of each that is in the store."""
    store, entry = settings.opened_store, mark(kind, value)
    found = {value: ""} if kind == "uid" else {}
    memory = remembered(store).to_pylist()
    digests = {"sha256": value, "perceptual_hash": int(value, 16) if kind == "perceptual_hash" else None}
    for row in memory:
        is_named = entry in (row["marks"] or ()) or row["entry"] == entry
        if is_named or (kind in digests and row[kind] == digests[kind]):
            found[row["uid"]] = ""
    if kind != "host":
        # Copies go with what they are copies of; those of a whole host are known by its entry.
        originals = [row for row in memory if row["uid"] in found and not row["is_copy"]]
        near = settings.duplicates.max_distance
        copies = (row for row in memory if row["is_copy"] and any(_are_alike(row, one, near) for one in originals))
        found |= {row["uid"]: "" for row in copies}
    entries = Entries({one: frozenset([value] if one == kind else []) for one in KINDS})
    matcher = Matcher(entries, REMEMBERED.empty_table(), copies=False, max_distance=0, min_contrast=0)
    for file in _files(settings):
        found |= dict.fromkeys(file.hit_by(matcher) - found.keys(), "")
    for shard in sorted(store.partitions(RAW)):
        try:
            if store.get(RAW, shard) is None:
                continue
            rows = store.read(RAW, shard, RAW_SAMPLES, ROW_COLUMNS)
            hits = {*matcher.of_stored(rows, stored_hashes(store, shard, matcher))}
        except StorageError as error:
            places.append(f"{RAW}, shard {shard}: cannot be looked into: {error}")
            continue
        uids = rows["uid"].to_pylist()
        hits |= {row for row, uid in enumerate(uids) if uid in found}
        details = rows["detail"].to_pylist()
        hits |= {row for row, detail in enumerate(details) if (detail or "").removeprefix(COPY) == entry}
        found |= {uids[row]: f"shard {shard}, row {row}" for row in hits}
    return found


def _are_alike(one: dict[str, Any], other: dict[str, Any], max_distance: int) -> bool:
    """Whether two rows of ``REMEMBERED`` are of images that are copies."""
    if any(one[name] is not None and one[name] == other[name] for name in ("sha256", "pixel_digest")):
        return True
    hashes = one["perceptual_hash"], other["perceptual_hash"]
    return None not in hashes and (hashes[0] ^ hashes[1]).bit_count() <= max_distance


@dataclass(frozen=True)
class _File:
    """A file of the store."""

    settings: Settings
    path: str
    name: str

    @property
    def is_unfinished(self) -> bool:
        return f"/{UNFINISHED}/" in f"/{self.name}"

    @property
    def asset(self) -> str:
        return self.name.partition(f"/{UNFINISHED}/")[0] if self.is_unfinished else self.name.rpartition("/")[0]

    @property
    def key(self) -> str:
        if self.is_unfinished:
            return self.name.partition(f"/{UNFINISHED}/")[2].partition("/")[0]
        return Path(self.name).stem

    @property
    def _unfinished_rows(self) -> pa.Table:
        return Checkpoint(self.settings.opened_store, self.asset, self.key, "").read_all(self.path)

    def hit_by(self, matcher: Matcher) -> set[str]:
        """The uids of rows that were fetched, and are to be taken down, of a shard that is not finished."""
        if self.asset != RAW or not self.is_unfinished or not self.name.endswith(".arrow"):
            return set()
        with suppress(pa.ArrowException, OSError):
            rows = self._unfinished_rows
            return {rows["uid"][place].as_py() for place in matcher.of_stored(rows, None)}
        return set()

    def has_any(self, uids: set[str]) -> bool:
        """Whether it is known to have content of rows of these uids."""
        with suppress(pa.ArrowException, OSError), self.settings.opened_store.place.reading(self.path):
            return self._count(uids) > 0
        return False

    def places_of(self, uids: set[str]) -> list[str]:
        """A line if it has content of rows of these uids, or cannot be looked into."""
        if self.asset == MEMORY or not uids:
            return []
        try:
            with self.settings.opened_store.place.reading(self.path):
                count = self._count(uids)
        except (pa.ArrowException, OSError) as error:
            return [f"{self.name}: cannot be looked into ({' '.join(str(error).split())})"]
        return [f"{self.name} ({count:,} row{'' if count == 1 else 's'})"] if count else []

    def _count(self, uids: set[str]) -> int:
        place = self.settings.opened_store.place
        if self.name.endswith(".json"):
            text = place.filesystem.cat_file(self.path).decode(errors="replace")
            return sum(uid in text for uid in uids)
        if not self.name.endswith((".parquet", ".arrow")):
            return 0
        if self.name.endswith(".arrow"):
            rows = _with_uids(self._unfinished_rows, uids)
            return sum(has_content(row, of_shard=True) for row in rows)
        with place.open(self.path) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            of_shard = self.key != UNPARTITIONED and "uid" in file.schema_arrow.names
            texts = ["uid"] if of_shard else [field.name for field in file.schema_arrow if _is_text(field.type)]
            count = 0
            for group in range(file.num_row_groups):
                if any(True for _ in _rows_with(file.read_row_group(group, columns=texts), uids)):
                    rows = _with_uids(file.read_row_group(group), uids)
                    count += sum(has_content(row, of_shard=of_shard) for row in rows)
            return count


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type))


def _rows_with(table: pa.Table, uids: set[str]) -> Iterator[int]:
    """The rows that have one of the uids in some column of text, or in a list of texts."""
    wanted, places = pa.array(sorted(uids), pa.string()), set()
    for column in table.columns:
        if pa.types.is_string(column.type):
            places |= set(pc.indices_nonzero(pc.fill_null(pc.is_in(column, value_set=wanted), False)).to_pylist())
        elif _is_text(column.type):
            inside = pc.is_in(pc.list_flatten(column), value_set=wanted)
            parents = pc.list_parent_indices(column)
            places |= set(parents.filter(pc.fill_null(inside, False)).to_pylist())
    yield from sorted(places)


def _with_uids(table: pa.Table, uids: set[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.take(pa.array(list(_rows_with(table, uids)), pa.int64())).to_pylist()
    return rows


def has_content(row: dict[str, Any], *, of_shard: bool) -> bool:
    """Whether a row that names a sample has more of it than that it is there.

    Args:
        row: its values by column.
        of_shard: whether it is of a table that has a row for each sample, whatever became of it.
    """
    if not of_shard or "uid" not in row:
        return True
    if row.get("reason") == TAKEN_DOWN:
        row = {**row, "image_name": None}
    return any(value not in (None, False, [], "") for name, value in row.items() if name not in _WITHOUT_IMAGE) or (
        "status" in row and row.get("reason") != TAKEN_DOWN
    )


def _files(settings: Settings) -> Iterator[_File]:
    for path, name in settings.opened_store.all_files():
        if not Path(name).name.startswith("."):
            yield _File(settings, path, name)


def _in_collection(settings: Settings, uids: set[str]) -> list[str]:
    where = settings.vectors.location
    try:
        with settings.vectors.open() as collection:
            return [f"{where}: point {uid}" for uid in sorted(uids) if collection.get(uid) is not None]
    except (VectorsMissingError, VectorsBrokenError):
        return []
    except VectorsError as error:
        return [f"{where}: cannot be looked into: {error}"]


def _in_warehouse(settings: Settings, uids: set[str]) -> list[str]:
    import duckdb

    where, wanted, places = f"the warehouse ({settings.warehouse.path})", sorted(uids), []
    try:
        with settings.warehouse.connect() as connection:
            for table, columns in connection.execute(_TEXT_COLUMNS).fetchall():
                named = " OR ".join(
                    f"list_has_any({_quoted(name)}, $uids)"
                    if kind == "VARCHAR[]"
                    else f"list_contains($uids, {_quoted(name)})"
                    for name, kind in columns
                )
                query = f"SELECT * FROM {_quoted(table)} WHERE {named}"  # noqa: S608 - names of our own tables
                rows = connection.sql(query, params={"uids": wanted}).to_arrow_table().to_pylist()
                if count := sum(has_content(row, of_shard=True) for row in rows):
                    places.append(f"{where}: {table} ({count:,} row{'' if count == 1 else 's'})")
    except WarehouseMissingError:
        return []
    except (WarehouseError, duckdb.Error) as error:
        return [*places, f"{where}: cannot be looked into ({' '.join(str(error).split())})"]
    return places


def _in_gallery(uids: set[str]) -> list[str]:
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in gallery_pages()]
    count = sum(any(f'data-uid="{uid}"' in text for text in texts) for uid in uids)
    return [f"the gallery ({gallery_path()}): {count:,} picture{'' if count == 1 else 's'}"] if count else []


def _in_folders(uids: set[str]) -> list[str]:
    """What published folders and training data have, by looking into their files; what was sent elsewhere."""
    folders = [("published folder", one.folder) for one in published() if one.folder is not None]
    folders.append(("training data", data_directory() / "training_data"))
    wanted = parse_uids(pa.array(sorted(uids), pa.string()))
    elsewhere = {one.place: int(contains(one.uids, wanted).sum()) for one in published() if one.folder is None}
    places = [
        f"published to {place}, and not looked into: {count:,} sample{'' if count == 1 else 's'} were sent there"
        for place, count in elsewhere.items()
        if count
    ]
    for what, folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in {".parquet", ".tar"}):
            try:
                count = len(_uids_in(path) & uids)
            except (pa.ArrowException, tarfile.TarError, OSError) as error:
                places.append(f"{what}: {path}: cannot be looked into ({' '.join(str(error).split())})")
                continue
            places += [f"{what}: {path} ({count:,} sample{'' if count == 1 else 's'})"] if count else []
    return places


def _uids_in(path: Path) -> set[str]:
    """The uids of the samples in a file to train on."""
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return {name.partition(".")[0] for name in tar.getnames()}
    with pq.ParquetFile(path) as file:
        return set(file.read(["uid"])["uid"].to_pylist()) if "uid" in file.schema_arrow.names else set()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
