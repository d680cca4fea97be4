"""Which data for which compute: the scaling laws of the measured pools, and the filter that they recommend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.scaling import metadata
from dqe_assets.scaling.curves import TRAINED_ASSET, Scaling, read_measurements, trained_measurements
from dqe_assets.scaling.recommendation import fit_measurements, fitted_pools, mixture_table, recommend
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, MEASURED_MIXTURES, POOL_UTILITIES
from dqe_assets.scaling.views import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.scaling.curves import Measured

LARGEST_RESIDUAL = 0.02
"""Root mean square of what a fit leaves unexplained, in error, above which the law does not describe the curves."""


def _fits_well(_: Work, table: pa.Table) -> CheckResult:
    worst = pc.max(table["residual"]).as_py() or 0.0
    return CheckResult(
        worst <= LARGEST_RESIDUAL,
        f"the worst fit is off by {worst:.4f} in error (root mean square), at most {LARGEST_RESIDUAL} allowed",
        {"worst_residual": worst, "allowed": LARGEST_RESIDUAL},
    )


def _every_curve_falls(_: Work, table: pa.Table) -> CheckResult:
    flat = table.filter(pc.invert(table["falls"]))["pool"].to_pylist()
    return CheckResult(
        not flat,
        f"pools whose own curve does not fall, and which no mixture is predicted of: {', '.join(flat) or 'none'}",
        {"flat": len(flat)},
    )


def _measured(work: Work, scaling: Scaling) -> list[Measured]:
    path = scaling.path
    if path is not None:
        return read_measurements(path, scaling.metrics, scaling.choice)
    table = work.read_unpartitioned(TRAINED_ASSET, ["pool", "pool_size", "samples_seen", "metric", "error"])
    return trained_measurements(table, scaling.metrics, scaling.choice, work.log)


def scaling_of(measured: Sequence[str]) -> list[Stage]:
    """The assets ``pool_utilities``, ``measured_mixtures`` and ``filter_recommendation``.

    Args:
        measured: the asset that the measurements are read from, if they are one.
    """

    @stage(
        kinds={"parquet", "numpy", "scipy"},
        relations=RELATIONS,
        code_version="2",
        schema=POOL_UTILITIES,
        unpartitioned_inputs=measured,
        partitioned=False,
        checks=[
            unique("metric", "pool"),
            finite("b", highest=0),
            finite("residual", 0),
            Check("fits_well", f"No fit is off by more than {LARGEST_RESIDUAL} in error.", _fits_well),
            Check("curves_fall", "The curve of every pool falls by itself.", _every_curve_falls, blocking=False),
        ],
        metadata=metadata.pool_utilities,
    )
    def pool_utilities(work: Work, scaling: Scaling) -> pa.Table:
        """What each pool of data is worth: its utility and how fast repetition uses it up, with intervals.

        Fitted to the training curves that ``scaling.measurements`` in data/dqe.yaml names; as it comes, that is an
        example with made-up numbers. A pool whose own curve does not fall is not fitted.
        """
        curves = [one for one in _measured(work, scaling) if one.pool not in scaling.mixtures]
        # Of what was trained here, every metric is there, whether it says anything yet or not.
        log = work.log if scaling.is_trained and scaling.metrics is None else None
        return fit_measurements(curves, scaling.source, scaling.scale, scaling.irreducible, scaling.unit, log)

    @stage(
        kinds={"parquet", "numpy"},
        code_version="1",
        schema=MEASURED_MIXTURES,
        unpartitioned_inputs=[pool_utilities.name, *measured],
        partitioned=False,
        checks=[unique("metric", "mixture", "samples_seen"), finite("error", 0)],
        metadata=metadata.measured_mixtures,
    )
    def measured_mixtures(work: Work, scaling: Scaling) -> pa.Table:
        """What was measured of mixtures of pools beside what the law predicts of them: how far off it is."""
        curves = [one for one in _measured(work, scaling) if one.pool in scaling.mixtures]
        utilities = work.read_unpartitioned(pool_utilities.name)
        return mixture_table(curves, scaling.mixtures, utilities, scaling.source)

    return [pool_utilities, measured_mixtures, filter_recommendation]


def _one_best(_: Work, table: pa.Table) -> CheckResult:
    counts = table.group_by(["metric", "samples_seen"]).aggregate([("is_best", "sum")])
    wrong = counts.num_rows - (pc.sum(pc.equal(counts["is_best_sum"], 1)).as_py() or 0)
    return CheckResult(
        wrong == 0, f"{counts.num_rows} budgets, {wrong} without exactly one best filter", {"wrong": wrong}
    )


@stage(
    kinds={"parquet", "numpy"},
    code_version="2",
    schema=FILTER_RECOMMENDATION,
    resources={"samples_seen": "scaling.samples_seen"},
    unpartitioned_inputs=["pool_utilities", "measured_mixtures"],
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
    utilities, mixtures = (work.read_unpartitioned(name) for name in ("pool_utilities", "measured_mixtures"))
    tables = [recommend(fitted, samples_seen) for fitted in fitted_pools(utilities, mixtures)]
    return pa.concat_tables(tables) if tables else FILTER_RECOMMENDATION.empty_table()
