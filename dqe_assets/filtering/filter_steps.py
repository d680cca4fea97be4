"""How the configured filters and subsets decide about one sample: step by step, with the measured values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters.comparison import Comparison
from dqe_assets.filtering.pool import TEXT
from dqe_assets.filtering.select import columns_of, leaf_masks
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.subset import parse_uids, read_subset

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dqe_assets.core.signals import Signal
    from dqe_assets.filtering.expression import Expression
    from dqe_assets.filtering.filters import Filter
    from dqe_resources.store import Store


def filter_steps(
    store: Store, shard: str, uid: str, facts: Mapping[str, Any], signals: Mapping[str, Signal]
) -> pa.Table:
    """What each step of each filter makes of a sample.

    Args:
        store: the store.
        shard: the sample's.
        uid: the sample; it has an image.
        facts: what the manifest of ``filter_masks`` says, which has the thresholds that were found of all samples.
        signals: the signals, by name.

    Returns:
        Columns filter, step (from 1), condition, keeps, and measured: the thresholds of the step and the sample's
        values.

    Raises:
        PoolError, StorageError: the sample's shard cannot be read.
    """
    fitted = fitted_filters(store, facts, signals)
    table = samples_of(store, shard, pa.array([uid]), fitted, signals)
    (sample,) = table.to_pylist()
    masks = leaf_masks(fitted, table)
    rows = [
        {
            "filter": one["filter"],
            "step": number,
            "condition": condition,
            "keeps": bool(term.mask(masks)[0]),
            "measured": ", ".join(_measured(term, fitted, sample)),
        }
        for one in facts["filters"]
        for whole_filter in [parse(one["expression"])]
        for number, (term, condition) in enumerate(zip(whole_filter.terms, whole_filter.conditions, strict=True), 1)
    ]
    return pa.Table.from_pylist(rows)


def fitted_filters(store: Store, facts: Mapping[str, Any], signals: Mapping[str, Signal]) -> dict[str, Filter]:
    """The filters as they were fitted to all samples, by the text of each before.

    Args:
        store: the store.
        facts: what the manifest of ``filter_masks`` says.
        signals: the signals, by name.

    Raises:
        PoolError, StorageError: one that says more than its text has to be fitted again, and the store cannot be read.
    """
    leaves = {one["leaf"]: leaf for one in facts["leaves"] for leaf in parse(one["fitted"]).leaves}
    whole = StorePool(store, tuple(facts["shards"]), signals=signals)
    return {text: leaf.fit([whole]) if leaf.pool_wide else leaf for text, leaf in leaves.items()}


def samples_of(
    store: Store, shard: str, uids: pa.Array, fitted: Mapping[str, Filter], signals: Mapping[str, Signal]
) -> pa.Table:
    """``uid`` and what filters read of some samples of a shard: of those that have an image.

    What people decided to drop is among them: whoever asks wants to know what the filters make of it.
    """
    (part,) = StorePool(store, (shard,), signals=signals, with_dropped=True).parts
    columns = tuple(dict.fromkeys(("uid", *columns_of(fitted))))
    table = pa.Table.from_batches(part.batches(columns))
    return table.filter(pc.is_in(table["uid"], value_set=uids))


def is_in_subset(path: Path, uid: str) -> bool:
    """Whether a sample is in a subset.

    Raises:
        SubsetError: the file cannot be read.
    """
    uids, (wanted,) = read_subset(path), parse_uids(pa.array([uid]))
    first, last = (np.searchsorted(uids["f0"], wanted["f0"], side) for side in ("left", "right"))
    return bool((uids["f1"][first:last] == wanted["f1"]).any())


def _measured(term: Expression, fitted: Mapping[str, Filter], sample: Mapping[str, Any]) -> Iterable[str]:
    for leaf in term.leaves:
        found = fitted[leaf.text]
        if found.text != leaf.text:
            yield f"found: {found.text}"
        for name in found.columns:
            if isinstance(sample[name], float):
                yield f"{name} {sample[name]:.4g}"
            elif isinstance(sample[name], int):
                yield f"{name} {sample[name]}"
            elif isinstance(leaf, Comparison):
                yield f"{name} {'unknown' if sample[name] is None else sample[name]!r:.80}"
        if found.detector is not None:
            is_english = found.detector.english(pa.array([sample[TEXT]], pa.string()))[0]
            yield f"language {'English' if is_english else 'not English'}"
