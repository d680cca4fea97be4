"""Checks that more than one stage has."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.pictured import pictured
from dqe_assets.core.schema import FAULT
from dqe_assets.core.work import Check, CheckResult, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

UNIQUE = "keys_unique"
COMPLETE = "rows_complete"
FINITE = "finite"

_NAMED = 3


def unique(*columns: str) -> Check:
    """No two rows have the same values of these columns."""

    def run(_: Work, table: pa.Table) -> CheckResult:
        counts = table.select(columns).group_by(list(columns)).aggregate([([], "count_all")])
        repeated = counts.filter(pc.greater(counts["count_all"], 1))
        if not repeated.num_rows:
            return CheckResult(True, f"{table.num_rows:,} rows, no two with the same {' and '.join(columns)}")
        first = ", ".join(str(repeated[column][0]) for column in columns)
        return CheckResult(
            False,
            f"{repeated.num_rows:,} keys occur more than once, first {first}",
            {"repeated": repeated.num_rows, "first": first},
        )

    return Check(UNIQUE, f"No two rows have the same {' and '.join(columns)}.", run)


def complete(rows_each: int = 1, *, of: str = "raw_samples") -> Check:
    """Rows in = rows out: every uid of an input has its rows, and no other uid has any."""

    def run(work: Work, table: pa.Table) -> CheckResult:
        # If there are no rows for each (no pairs, since there is no captioner), no sample is expected at all.
        expected = pc.unique(work.read(of, ["uid"])["uid"]).slice(0, None if rows_each else 0)
        missing = pc.sum(pc.invert(pc.is_in(expected, value_set=table["uid"]))).as_py() or 0
        foreign = pc.sum(pc.invert(pc.is_in(table["uid"], value_set=expected))).as_py() or 0
        passed = missing == foreign == 0 and table.num_rows == rows_each * len(expected)
        values = {"rows_in": len(expected), "rows_out": table.num_rows, "missing": missing, "foreign": foreign}
        return CheckResult(
            passed,
            f"{len(expected):,} samples in, {table.num_rows:,} rows out, {missing} missing, {foreign} foreign",
            values,
        )

    return Check(COMPLETE, "Rows in = rows out: every sample has its rows, and no other sample has any.", run)


def finite(column: str, lowest: float = -np.inf, highest: float = np.inf, *, tolerance: float = 1e-3) -> Check:
    """What is not null in a column of numbers, or of lists of numbers, is finite and within bounds."""

    def run(_: Work, table: pa.Table) -> CheckResult:
        values = _numbers(table[column])
        if not values.size:
            return CheckResult(True, f"{column}: no values")
        bad = int((~np.isfinite(values)).sum())
        low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if bad < values.size else (np.nan, np.nan)
        passed = bad == 0 and low >= lowest - tolerance and high <= highest + tolerance
        bounds = f", allowed {lowest:g} to {highest:g}" if np.isfinite([lowest, highest]).any() else ""
        return CheckResult(
            passed,
            f"{column}: {bad} not finite, from {low:.4g} to {high:.4g}{bounds}",
            {"not_finite": bad, "lowest": str(low), "highest": str(high)},
        )

    bounds = f" and within [{lowest:g}, {highest:g}]" if np.isfinite([lowest, highest]).any() else ""
    return Check(f"{column}_{FINITE}", f"Values of {column} are finite{bounds}.", run)


def covered(columns: Sequence[str], of: str, minimum: float = 1.0, *, asset: str = "raw_samples") -> Check:
    """Every sample that has an image has values in these columns, or a fault that says why not.

    Args:
        columns: the columns.
        of: what they are, in words.
        minimum: share of the samples that is enough.
        asset: what is read of the images: those that it found a fault in are left out.
    """

    def run(work: Work, table: pa.Table) -> CheckResult:
        wanted = work.read("raw_samples", ["uid"])["uid"].filter(pictured(work, asset))
        is_filled = reduce(pc.and_, [pc.is_valid(table[column]) for column in columns])
        if FAULT.name in table.column_names:
            is_filled = pc.or_(is_filled, pc.is_valid(table[FAULT.name]))
        have = pc.sum(pc.is_in(wanted, value_set=table["uid"].filter(is_filled))).as_py() or 0
        share = have / len(wanted) if len(wanted) else 1.0
        return CheckResult(
            share >= minimum,
            f"{have:,} of {len(wanted):,} samples with an image have {of} ({share:.1%}, required: {minimum:.0%})",
            {"covered": have, "of": len(wanted), "share": round(share, 4), "required": minimum},
        )

    return Check("coverage", f"At least {minimum:.0%} of the samples with an image have {of}.", run)


def without_faults() -> Check:
    """No image had a fault: a warning, since each fault is its own row's."""

    def run(_: Work, table: pa.Table) -> CheckResult:
        faults = Counter(table[FAULT.name].drop_null().to_pylist())
        most = "".join(f"; {count:,} x {fault}" for fault, count in faults.most_common(_NAMED))
        total = faults.total()
        said = f"{total:,} image{'' if total == 1 else 's'} could not be worked on{most}"
        return CheckResult(not faults, said, {"faults": total})

    return Check("faults", "Every image can be worked on.", run, blocking=False)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_list(column.type):
        return to_matrix(column)[1].ravel()
    return column.drop_null().to_numpy().astype(np.float64)
