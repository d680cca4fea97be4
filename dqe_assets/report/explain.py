"""Everything known about a sample, at a glance or with the origin of every number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.relations import Explanation, in_order, sql_of
from dqe_assets.filtering.filter_steps import filter_steps, is_in_subset
from dqe_assets.filtering.pool import PoolError
from dqe_assets.filtering.subset import SubsetError
from dqe_assets.report.quality import Section
from dqe_assets.reviews.tables import DROP
from dqe_resources.cache import data_directory
from dqe_resources.printable import quoted
from dqe_resources.store import StorageError
from dqe_resources.warehouse import of_this_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import duckdb

    from dqe_assets.core.relations import Relations
    from dqe_assets.core.signals import Signal
    from dqe_resources.store import Store, StoredPartition
    from dqe_resources.warehouse import Warehouse

MASKS = "filter_masks"

_RECORD = "SELECT * EXCLUDE (caption, best_source, best_similarity) FROM samples WHERE uid = ?"
_AS_FOUND = """
SELECT s.uid, s.source, s.shard, s."row", s.image_name, s.url, s.format, s.bytes, s.width, s.height, s.status,
    s.reason, f.detail, s.host, s.attempts, s.http_status, s.final_url, s.seconds, s.fetched_at, s.source_metadata
FROM samples s LEFT JOIN failures f USING (uid) WHERE uid = ?
"""
_WRITTEN = """
SELECT asset, partition, code_version, materialised_at, fingerprint
FROM materialisations WHERE partition = ? OR partition IS NULL ORDER BY asset
"""
_NAMED = """
SELECT s.uid, s.source, s.shard, s.image_name, s.status, s.review, r.decided_by
FROM samples s LEFT JOIN reviews r USING (uid) WHERE $1 IN (s.uid, s.image_name) ORDER BY s.uid
"""
_NEAR = "SELECT DISTINCT image_name FROM samples ORDER BY levenshtein(image_name, ?), image_name LIMIT 3"


def glance(warehouse: Warehouse, relations: Sequence[Relations], image_name: str) -> list[Section]:
    """The samples of that uid or name at a glance, captions and the best of them; raises as ``explanation``.

    Args:
        warehouse: where they are looked up.
        relations: what the stages contribute.
        image_name: the uid, or the source's own name of the row.
    """
    parts = [part for part in _explanations(relations) if part.glance]
    with warehouse.connect() as connection:
        return [
            section
            for sample in _samples(connection, image_name)
            for section, _ in _sections(connection, sample, [Explanation("", (), _RECORD, upright=True), *parts])
        ]


def explanation(
    warehouse: Warehouse,
    relations: Sequence[Relations],
    image_name: str,
    *,
    store: Store,
    subsets: Sequence[str],
    signals: Mapping[str, Signal],
) -> list[Section]:
    """The samples of that uid or name: all that was measured and decided about each, the origin of every number.

    A name that several sources use gives a sample of each. Numbers from the warehouse are as old as the warehouse: the
    last section of a sample says which of them the store has written again since.

    Args:
        warehouse: where they are looked up.
        relations: what the stages contribute.
        image_name: the uid, or the source's own name of the row.
        store: the store that the warehouse is built from.
        subsets: names of the assets of the configured subsets.
        signals: the signals, by name.

    Raises:
        ValueError: no sample has that name; says which names are near.
        WarehouseError: there is no warehouse.
    """
    sections = []
    parts = [Explanation("", ("raw_samples",), _AS_FOUND, upright=True), *_explanations(relations)]
    with warehouse.connect() as connection:
        for sample in _samples(connection, image_name):
            used = ["warehouse"]
            for section, assets in (
                *_sections(connection, sample, parts),
                *_selection(store, subsets, signals, sample),
            ):
                sections.append(section)
                used += assets
            sections.append(_origin(store, connection, sample, used))
    return sections


def _explanations(relations: Sequence[Relations]) -> list[Explanation]:
    return in_order(part for one in relations for part in one.explanations)


def _samples(connection: duckdb.DuckDBPyConnection, image_name: str) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = _rows(connection, _NAMED, image_name).to_pylist()
    if not samples:
        near = _rows(connection, _NEAR, image_name)["image_name"].to_pylist()
        msg = f"no sample is named {image_name}" + (f"; near it: {', '.join(map(quoted, near))}" if near else "")
        raise ValueError(msg)
    return samples


def _sections(
    connection: duckdb.DuckDBPyConnection, sample: dict[str, Any], parts: Sequence[Explanation]
) -> Iterator[tuple[Section, Sequence[str]]]:
    """All sections, each with the assets that it comes from; one without a title gets the sample's name."""
    for part in parts:
        table = _rows(connection, sql_of(part.query), sample["uid"])
        if table.num_rows:
            title = part.title or f"{sample['image_name']} ({sample['source']})"
            yield Section(title, _from(part.assets), table, part.upright), part.assets


def _selection(
    store: Store, subsets: Sequence[str], signals: Mapping[str, Signal], sample: dict[str, Any]
) -> Iterator[tuple[Section, Sequence[str]]]:
    """What filters and subsets make of it: nothing if it has no image."""
    masks, _ = _stored(store, MASKS, None)
    if masks is None or sample["status"] != "ok" or sample["shard"] not in masks.stamp.facts["shards"]:
        return
    try:
        steps = filter_steps(store, sample["shard"], sample["uid"], masks.stamp.facts, signals)
    except (StorageError, PoolError) as error:
        steps = pa.table({"cannot_be_read": [str(error)]})
    if steps.num_rows:
        yield Section("Filters", _from([MASKS]), steps), [MASKS]
    dropped = f": {sample['decided_by']} decided to drop it" if sample["review"] == DROP else ""
    rows = []
    for name in subsets:
        stored, _ = _stored(store, name, None)
        if stored is not None:
            facts = stored.stamp.facts
            try:
                is_in = "yes" if is_in_subset(data_directory() / facts["path"], sample["uid"]) else f"no{dropped}"
            except SubsetError as error:
                is_in = str(error)
            rows.append({"subset": name, "in_it": is_in, "expression": facts["expression"]})
    if rows:
        names = [row["subset"] for row in rows]
        yield Section("Subsets", _from(names), pa.Table.from_pylist(rows)), names


def _origin(store: Store, connection: duckdb.DuckDBPyConnection, sample: dict[str, Any], used: list[str]) -> Section:
    """When and by what each of the assets was written, and whether the store still holds that."""
    written = {row["asset"]: row for row in _rows(connection, _WRITTEN, sample["shard"]).to_pylist()}
    names = [name for asset in used for name in (filter(_begins(asset), written) if asset.endswith("/") else [asset])]
    rows = []
    for name in dict.fromkeys(names):
        row = written.get(name)
        stored, is_torn = _stored(store, name, row["partition"] if row else None)
        if row is None and stored is not None:
            # The warehouse, and what it holds nothing of.
            row = {
                "asset": name,
                "partition": None,
                "code_version": stored.stamp.code_version,
                "materialised_at": stored.written_at,
                "fingerprint": stored.stamp.identity,
            }
        if row is not None:
            now = (
                "torn"
                if is_torn
                else "gone"
                if stored is None
                else "the same"
                if stored.stamp.identity == row["fingerprint"]
                else "another"
            )
            rows.append({**row, "partition": row["partition"] or "all shards", "in_the_store_now": now})
    return Section("Where it is from", "Times are UTC.", pa.Table.from_pylist(rows))


def _stored(store: Store, asset: str, partition: str | None) -> tuple[StoredPartition | None, bool]:
    """What is stored, and whether it cannot be read."""
    try:
        return store.get(asset, partition), False
    except StorageError:
        return None, True


def _begins(prefix: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix)


def _from(assets: Sequence[str]) -> str:
    return f"From {', '.join(f'{name}*' if name.endswith('/') else name for name in assets)}." if assets else ""


def _rows(connection: duckdb.DuckDBPyConnection, query: str, value: str) -> pa.Table:
    with of_this_version():
        return connection.sql(query, params=[value]).to_arrow_table()
