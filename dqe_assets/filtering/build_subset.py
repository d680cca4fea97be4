"""The subset that an expression gives of one or more pools, and the manifest that says how it came to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.filtering.filters import FILTERS_VERSION
from dqe_assets.filtering.masks import FilterSet, Tally
from dqe_assets.filtering.pool import UID, PoolError
from dqe_assets.filtering.select import Batch, over_batches
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.subset import UID_TYPE, UidError, distinct, parse_uids, union
from dqe_resources.models.packages import package_version
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.filtering.expression import Expression
    from dqe_assets.filtering.filters import Mask
    from dqe_assets.filtering.pool import Pool

_PACKAGES = ("numpy", "pyarrow")
_SUBSET = "subset"


@dataclass(frozen=True)
class Made:
    """A subset.

    Attributes:
        uids: ``u8,u8`` [n], sorted.
        manifest: how it came to be, as JSON: the same for the same pools and expression.
    """

    uids: NDArray[np.void]
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kept:
    pool: int
    rows: int
    uids: NDArray[np.void]
    leaves: Mapping[str, Mask]
    masks: Mapping[str, Mask]


def make_subset(
    expression: Expression, pools: Sequence[Pool], progress: Callable[[int, int], None] | None = None
) -> Made:
    """The samples of the pools that an expression keeps.

    Fractions and clusters are of all pools taken as one. A uid that several pools have is kept as it stands in the
    first of them that keeps it; one that stands several times in one pool is kept as often as it is kept there. Memory
    holds the uids kept, the scores that fractions are computed from, and a few batches.

    Args:
        expression: what to keep.
        pools: where from, in order of precedence; their names differ.
        progress: told of the rows done and of all rows, after each batch.

    Raises:
        PoolError: a pool cannot be read, lacks a column, or has a uid that is none: says the file and the row.
        FilterError: a filter cannot be fitted or applied.
    """
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise PoolError(f"two pools have one name ({', '.join(names)}); give each its own")
    filters = FilterSet.fitted_to({_SUBSET: expression}, pools)
    found = (column for leaf in filters.fitted.values() for column in leaf.may_read)
    columns, read = (tuple(dict.fromkeys((UID, *some))) for some in (filters.columns, (*expression.columns, *found)))
    tally, rows = Tally(filters), [0] * len(pools)
    kept: list[list[NDArray[np.void]]] = [[np.empty(0, UID_TYPE)] for _ in pools]
    total = sum(part.rows for pool in pools for part in pool.parts) if progress else 0

    def keep(batch: Batch) -> _Kept:
        uids = _uids(batch, pools)
        leaves = filters.leaves(batch.table)
        masks = filters.masks(leaves)
        repeated = np.repeat(uids, filters.times(_SUBSET, batch.table, leaves))
        return _Kept(batch.pool, len(uids), repeated, leaves, masks)

    for some in over_batches(keep, pools, columns):
        tally.add(some.rows, some.leaves, some.masks)
        kept[some.pool].append(some.uids)
        rows[some.pool] += some.rows
        if progress:
            progress(sum(rows), total)
    of_pools = [np.concatenate(pieces) for pieces in kept]
    uids, owner = union(of_pools)
    owned = np.bincount(owner, minlength=len(pools)).tolist()
    facts = {key: value for key, value in tally.facts().items() if key != "both"}
    manifest = {
        "expression": expression.text,
        **facts,
        "uids": len(uids),
        "distinct_uids": distinct(uids),
        "collisions": sum(map(len, of_pools)) - len(uids),
        "pools": [
            {
                "name": pool.name,
                "rows": rows[number],
                "kept": owned[number],
                "collisions": len(of_pools[number]) - owned[number],
                "share": owned[number] / len(uids) if len(uids) else 0.0,
                **_dropped(pool),
                "files": [
                    {"path": file.path, "bytes": file.bytes, "digest": file.digest}
                    for files in ordered_map(lambda part: part.files(read), pool.parts)
                    for file in files
                ],
            }
            for number, pool in enumerate(pools)
        ],
        "versions": {"filters": FILTERS_VERSION}
        | {name: package_version(name) for name in _PACKAGES}
        | {name: value for leaf in filters.fitted.values() for name, value in leaf.versions.items()},
    }
    return Made(uids, manifest)


def _dropped(pool: Pool) -> dict[str, int]:
    """How many samples people decided to drop, where they have."""
    count = pool.dropped if isinstance(pool, StorePool) else 0
    return {"dropped_by_people": count} if count else {}


def _uids(batch: Batch, pools: Sequence[Pool]) -> NDArray[np.void]:
    try:
        return parse_uids(batch.table.column(UID))
    except UidError as error:
        raise PoolError(
            f"{pools[batch.pool].name}, {batch.part.name}, row {batch.first + error.row} (counting from 0): "
            f"uid is {error.found!r}; expected 32 hexadecimal digits"
        ) from error
