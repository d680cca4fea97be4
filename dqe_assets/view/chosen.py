"""Which samples the view shows: by a condition, a subset and a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.subset import contains, parse_uids, read_subset
from dqe_assets.report.condition import checked_condition
from dqe_resources.errors import DataQualityError, UsageError

if TYPE_CHECKING:
    from dqe_resources.warehouse import Warehouse

EVERYTHING = "true"


class ViewError(DataQualityError):
    """There is nothing to look at: says why and what to do."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples of the view.

    Attributes:
        uids: string [n], or None for all samples.
        total: samples that fulfil the condition and are in the subset, those beyond the limit among them.
        shown: samples that are shown.
    """

    uids: pa.Array | None
    total: int
    shown: int


def choose(
    warehouse: Warehouse, where: str = EVERYTHING, subset: str | None = None, limit: int | None = None
) -> Chosen:
    """The samples that fulfil a condition and are in a subset.

    Of more than the limit those with the lowest uids are taken: they are digests, so that is a fair draw.

    Args:
        warehouse: what the condition is asked of.
        where: SQL condition over its table ``samples``, as ``dqe publish`` takes it; confined as ``dqe sql`` is.
        subset: name of a subset that is made.
        limit: the most samples; None for no limit.

    Raises:
        UsageError: the condition is wrong.
        ViewError: no sample is left, or the subset is not there.
        WarehouseError: there is no warehouse, or the condition goes beyond its limits.
    """
    with warehouse.session() as query:
        try:
            checked_condition(query, where)
        except ValueError as error:
            raise UsageError(f"--where: {error}") from error
        everything = query("SELECT count(*) FROM samples")[0][0].as_py()
        if everything and where == EVERYTHING and subset is None and (limit is None or limit >= everything):
            return Chosen(None, everything, everything)
        found = query(f"SELECT uid FROM samples WHERE ({where}\n) ORDER BY uid")  # noqa: S608 - one confined condition
    uids = found["uid"].combine_chunks()
    if subset is not None:
        path = subset_path(subset)
        if not path.is_file():
            raise ViewError(f"{path}: the subset {subset} is not there; run: dqe materialize subsets/{subset}")
        uids = uids.filter(pa.array(contains(read_subset(path), parse_uids(uids))))
    total = len(uids)
    if not total:
        in_subset = f" in the subset {subset}" if subset else ""
        raise ViewError(
            f"nothing to look at: of {everything:,} samples{in_subset} none fulfils the condition {where}"
            if where != EVERYTHING
            else f"nothing to look at: there are no samples{in_subset}; run: dqe materialize"
        )
    shown = uids if limit is None else uids.slice(0, limit)
    return Chosen(None if len(shown) == everything else shown, total, len(shown))
