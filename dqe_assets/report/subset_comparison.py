"""How subsets of the store differ: what each keeps of similarity, variety, concepts and duplicates."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.tables import CONCEPT_HITS
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_assets.filtering.pool import UID, numbers
from dqe_assets.filtering.subset import contains, parse_uids
from dqe_assets.search.tables import COLLECTION_MAP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from dqe_assets.filtering.store_pool import StorePool

_COLUMNS = (UID, "similarity", "code_cluster", "is_representative_any")

COMPARISON = pa.schema(
    [
        ("subset", pa.string()),
        ("samples", pa.int64()),
        ("similarity_mean", pa.float64()),
        ("similarity_10", pa.float64()),
        ("similarity_90", pa.float64()),
        ("copies", pa.int64()),
        ("code_clusters", pa.int64()),
        ("topics", pa.int64()),
        ("concepts", pa.int64()),
        ("rare_concepts", pa.int64()),
    ]
)
"""Schema of ``compared``: see ``MEANINGS``."""

MEANINGS = {
    "similarity": "of original caption and image: mean, and what 10 % and 90 % of the samples are below",
    "copies": "samples that are copies of another one, which duplicate_clusters keeps",
    "code_clusters": "clusters of codes of which at least one sample is kept",
    "topics": "topics of the map of which at least one sample is kept",
    "concepts": "concepts that at least one image or original caption shows",
    "rare_concepts": "those of them that are in the rarer half of the concepts of all samples",
}
"""What the columns of ``compared`` mean."""


def compared(pool: StorePool, subsets: Mapping[str, NDArray[np.void]]) -> pa.Table:
    """What subsets of the store have, next to all of its samples: a row for each, in the order of ``COMPARISON``.

    A shard is in memory at a time.

    Args:
        pool: the store.
        subsets: uids "u8,u8" [n], sorted, by the subset's name.
    """
    chosen = {"all": None, **subsets}
    similar: dict[str, list[NDArray[np.floating]]] = {name: [] for name in chosen}
    clusters: dict[str, set[int]] = {name: set() for name in chosen}
    topics: dict[str, set[int]] = {name: set() for name in chosen}
    topic_of = _topics(pool)
    concepts: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    samples, copies = Counter[str](), Counter[str]()
    for part in pool.parts:
        shown = _concepts(pool, part.name)
        for batch in part.batches(_COLUMNS):
            uids = parse_uids(batch.column(UID))
            names = batch.column(UID).to_pylist()
            similarity, cluster = (numbers(batch.column(column)) for column in _COLUMNS[1:3])
            is_copy = ~np.asarray(pc.fill_null(batch.column(_COLUMNS[3]), True))
            for name, wanted in chosen.items():
                kept = np.ones(len(uids), bool) if wanted is None else contains(wanted, uids)
                samples[name] += int(kept.sum())
                copies[name] += int((kept & is_copy).sum())
                similar[name].append(similarity[kept & np.isfinite(similarity)])
                clusters[name].update(cluster[kept & ~np.isnan(cluster)].astype(int).tolist())
                topics[name].update(topic_of[names[row]] for row in np.flatnonzero(kept) if names[row] in topic_of)
                for row in np.flatnonzero(kept).tolist():
                    concepts[name].update(shown.get(names[row], ()))
    by_frequency = sorted(concepts["all"], key=lambda concept: (concepts["all"][concept], concept))
    rare = set(by_frequency[: len(by_frequency) // 2])
    rows = []
    for name in chosen:
        values = np.concatenate(similar[name]) if similar[name] else np.empty(0)
        low, high = np.percentile(values, [10, 90]).tolist() if len(values) else (None, None)
        rows.append(
            {
                "subset": name,
                "samples": samples[name],
                "similarity_mean": float(values.mean()) if len(values) else None,
                "similarity_10": low,
                "similarity_90": high,
                "copies": copies[name],
                "code_clusters": len(clusters[name]),
                "topics": len(topics[name]),
                "concepts": len(concepts[name]),
                "rare_concepts": len(rare & concepts[name].keys()),
            }
        )
    return pa.Table.from_pylist(rows, COMPARISON)


def _topics(pool: StorePool) -> dict[str, int]:
    """The topic of each sample that the map shows, by uid; none if there is no map."""
    if pool.store.get("collection_map", None) is None:
        return {}
    table = pool.store.read("collection_map", None, COLLECTION_MAP, ["uid", "topic"])
    return dict(zip(table["uid"].to_pylist(), table["topic"].to_pylist(), strict=True))


def _concepts(pool: StorePool, shard: str) -> dict[str, set[str]]:
    """The concepts of each sample of a shard, by uid, if they have been looked for."""
    if pool.store.get("concept_hits", shard) is None:
        return {}
    table = pool.store.read("concept_hits", shard, CONCEPT_HITS, ["uid", "item", "concepts"])
    table = table.filter(pc.is_in(table["item"], value_set=pa.array([IMAGE, ORIGINAL])))
    found: dict[str, set[str]] = {}
    for uid, concepts in zip(table["uid"].to_pylist(), table["concepts"].to_pylist(), strict=True):
        found.setdefault(uid, set()).update(concepts or ())
    return found
