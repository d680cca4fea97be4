"""Clusters as pictures: images that a codebook describes alike, and which of them are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.compression.selection import kept_of_some
from dqe_assets.compression.tables import CODE_CLUSTERS
from dqe_assets.core.figures import contact_sheet
from dqe_assets.core.hashing import draw_keys
from dqe_assets.core.relations import Group, Member
from dqe_assets.core.uids import uid_halves
from dqe_assets.ingest.tables import RAW_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import duckdb
    from numpy.typing import NDArray

    from dqe_resources.store import Store

PUBLISHED_SHARE = 0.25
"""The share of each cluster that TL;DR keeps."""

_CLUSTERS, _OF_EACH, _KEPT_OF_EACH = 6, 8, 3
_IN_GALLERY, _KEPT_IN_GALLERY = 6, 2


def cluster_sheet(
    store: Store, shards: Sequence[str], kept: Callable[[pa.Array, NDArray[np.int32]], NDArray[np.bool_]]
) -> bytes | None:
    """Images of the largest clusters, a row for each, with those that are kept in a frame, as JPEG; None without any.

    Args:
        store: where the clusters and images are.
        shards: their shards.
        kept: says of uids [n] and their clusters [n] which are kept.
    """
    uids, labels, places = _members(store, shards)
    if not len(labels):
        return None
    sizes = np.bincount(labels)
    is_kept = kept(uids, labels)
    chosen: list[int | None] = []
    texts: list[str] = []
    for cluster in range(len(sizes)):
        rows = np.flatnonzero(labels == cluster)
        shown = _some(rows[is_kept[rows]].tolist(), rows[~is_kept[rows]].tolist(), _OF_EACH, _KEPT_OF_EACH)
        chosen += [*shown, *[None] * (_OF_EACH - len(shown))]
        texts += [f"cluster {cluster}, {'kept' if is_kept[row] else 'left out'}" for row in shown]
        texts += [""] * (_OF_EACH - len(shown))
    images = _images(store, shards, [places[row] for row in chosen if row is not None])
    files = [b"" if row is None else images[places[row]] for row in chosen]
    return contact_sheet(files, texts, _OF_EACH, marked=[row is not None and bool(is_kept[row]) for row in chosen])


def sheet_of_a_quarter(store: Store, shards: Sequence[str], sizes: Sequence[int]) -> bytes | None:
    """As ``cluster_sheet``, with what ``tldr(share=0.25)`` keeps; ``sizes`` are those of all clusters."""
    return cluster_sheet(store, shards, lambda uids, labels: _quarter(uids, labels, np.asarray(sizes)))


def gallery_clusters(connection: duckdb.DuckDBPyConnection, limit: int) -> Iterable[Group]:
    """The largest clusters of the warehouse, and what ``tldr(share=0.25)`` keeps of each."""
    query = "SELECT images FROM code_cluster_sizes ORDER BY code_cluster"
    sizes = np.array([images for (images,) in connection.execute(query).fetchall()], np.int64)
    for cluster in range(min(limit, len(sizes))):
        query = "SELECT uid FROM code_clusters WHERE code_cluster = ? ORDER BY uid"
        uids = connection.sql(query, params=[cluster]).to_arrow_table()["uid"].combine_chunks()
        kept = _quarter(uids, np.full(len(uids), cluster, np.int32), sizes)
        rows = _some(np.flatnonzero(kept).tolist(), np.flatnonzero(~kept).tolist(), _IN_GALLERY, _KEPT_IN_GALLERY)
        yield Group(
            f"{sizes[cluster]:,} images, {kept.sum():,} kept",
            tuple(Member(uids[row].as_py(), bool(kept[row]), "kept" if kept[row] else "left out") for row in rows),
        )


def _quarter(uids: pa.Array, labels: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return kept_of_some(labels, draw_keys(*uid_halves(uids)), sizes, PUBLISHED_SHARE)


def _some(kept: list[int], left_out: list[int], most: int, most_kept: int) -> list[int]:
    """Some of both, those that are kept first."""
    first = kept[: max(most_kept, most - len(left_out))]
    return [*first, *left_out[: most - len(first)]]


def _members(store: Store, shards: Sequence[str]) -> tuple[pa.Array, NDArray[np.int32], list[tuple[str, int]]]:
    """Uids and clusters of the samples of the largest clusters, and the shard and row of each."""
    uids: list[pa.Array] = []
    labels, places = [np.empty(0, np.int32)], []
    for shard in shards:
        table = store.read("code_clusters", shard, CODE_CLUSTERS, ["uid", "code_cluster"])
        clusters = table["code_cluster"].fill_null(-1).to_numpy()
        rows = np.flatnonzero((clusters >= 0) & (clusters < _CLUSTERS))
        uids.append(table["uid"].take(pa.array(rows)).combine_chunks())
        labels.append(clusters[rows])
        places += [(shard, row) for row in rows.tolist()]
    return pa.concat_arrays(uids) if uids else pa.array([], pa.string()), np.concatenate(labels), places


def _images(store: Store, shards: Sequence[str], places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    wanted = {shard for shard, _ in places}
    found: dict[tuple[str, int], bytes] = {}
    for shard in (shard for shard in shards if shard in wanted):
        rows = sorted(row for of, row in places if of == shard)
        table = store.read_rows("raw_samples", shard, RAW_SAMPLES, rows, ["image"])
        found |= {(shard, row): image["bytes"].as_py() for row, image in zip(rows, table["image"], strict=True)}
    return found
