"""Which data for which compute: the scaling laws of the measured pools, and the filter that they recommend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.scaling import metadata
from dqe_assets.scaling.curves import Scaling, read_measurements
from dqe_assets.scaling.recommendation import fit_measurements, fitted_pools, recommend
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, POOL_UTILITIES
from dqe_assets.scaling.views import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_RESIDUAL = 0.02
"""Root mean square of what a fit leaves unexplained, in error, above which the law does not describe the curves."""


def _fits_well(_: Work, table: pa.Table) -> CheckResult:
    worst = pc.max(table["residual"]).as_py()
    return CheckResult(
        worst <= LARGEST_RESIDUAL,
        f"the worst fit is off by {worst:.4f} in error (root mean square), at most {LARGEST_RESIDUAL} allowed",
        {"worst_residual": worst, "allowed": LARGEST_RESIDUAL},
    )


@stage(
    kinds={"parquet", "numpy", "scipy"},
    relations=RELATIONS,
    code_version="1",
    schema=POOL_UTILITIES,
    partitioned=False,
    checks=[
        unique("metric", "pool"),
        finite("b", highest=0),
        finite("residual", 0),
        Check("fits_well", f"No fit is off by more than {LARGEST_RESIDUAL} in error.", _fits_well),
    ],
    metadata=metadata.pool_utilities,
)
def pool_utilities(_: Work, scaling: Scaling) -> pa.Table:
    """What each pool of data is worth: its utility and how fast repetition uses it up, with intervals.

    Fitted to the training curves that ``scaling.measurements`` in data/dqe.yaml names; as it comes, that is an example
    with made-up numbers.
    """
    curves = read_measurements(scaling.path, scaling.metrics)
    return fit_measurements(curves, scaling.source, scaling.scale, scaling.irreducible)


def _one_best(_: Work, table: pa.Table) -> CheckResult:
    counts = table.group_by(["metric", "samples_seen"]).aggregate([("is_best", "sum")])
    wrong = counts.num_rows - (pc.sum(pc.equal(counts["is_best_sum"], 1)).as_py() or 0)
    return CheckResult(
        wrong == 0, f"{counts.num_rows} budgets, {wrong} without exactly one best filter", {"wrong": wrong}
    )


@stage(
    kinds={"parquet", "numpy"},
    code_version="1",
    schema=FILTER_RECOMMENDATION,
    resources={"samples_seen": "scaling.samples_seen"},
    unpartitioned_inputs=["pool_utilities"],
    partitioned=False,
    checks=[
        unique("metric", "samples_seen", "keep"),
        finite("error", 0),
        Check("one_best", "Each budget has one best filter.", _one_best),
    ],
    metadata=metadata.filter_recommendation,
)
def filter_recommendation(work: Work, samples_seen: Sequence[int]) -> pa.Table:
    """How many of the best pools to train on for each compute in data/dqe.yaml, and what each choice costs."""
    utilities = work.read_unpartitioned("pool_utilities")
    tables = [recommend(fitted, samples_seen) for fitted in fitted_pools(utilities)]
    return pa.concat_tables(tables) if tables else FILTER_RECOMMENDATION.empty_table()
