"""Which data for which compute: the scaling laws of the measured pools, and the filter that they recommend."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import stage
from dqe_assets.core.work import Check, Verdict, Work
from dqe_assets.scaling import metadata
from dqe_assets.scaling.curves import content_digest, read_measurements
from dqe_assets.scaling.recommend import fit_measurements, fitted_pools, recommend
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, POOL_UTILITIES

LARGEST_RESIDUAL = 0.02
"""Root mean square of what a fit leaves unexplained, in error, above which the law does not describe the curves."""


def _fits_well(_: Work, table: pa.Table) -> Verdict:
    worst = pc.max(table["residual"]).as_py()
    return Verdict(
        worst <= LARGEST_RESIDUAL,
        f"the worst fit is off by {worst:.4f} in error (root mean square), at most {LARGEST_RESIDUAL} allowed",
        {"worst_residual": worst, "allowed": LARGEST_RESIDUAL},
    )


@stage(
    group="scaling",
    kinds={"parquet", "numpy", "scipy"},
    code_version="1",
    partitioned=False,
    checks=[
        unique("metric", "pool"),
        finite("b", highest=0),
        finite("residual", 0),
        Check("fits_well", f"No fit is off by more than {LARGEST_RESIDUAL} in error.", _fits_well),
    ],
    metadata=metadata.pool_utilities,
    signature=lambda work: [
        work.settings.scaling.model_dump(exclude={"samples_seen"}),
        content_digest(work.settings.scaling.path),
    ],
)
def pool_utilities(work: Work) -> pa.Table:
    """What each pool of data is worth: its utility and how fast repetition uses it up, with intervals.

    Fitted to the training curves that ``scaling.measurements`` in data/dqe.yaml names; as it comes, that is an example
    with made-up numbers.
    """
    scaling = work.settings.scaling
    curves = read_measurements(scaling.path, scaling.metrics)
    return fit_measurements(curves, scaling.source, scaling.scale, scaling.irreducible)


def _one_best(_: Work, table: pa.Table) -> Verdict:
    counts = table.group_by(["metric", "samples_seen"]).aggregate([("is_best", "sum")])
    wrong = counts.num_rows - (pc.sum(pc.equal(counts["is_best_sum"], 1)).as_py() or 0)
    return Verdict(wrong == 0, f"{counts.num_rows} budgets, {wrong} without exactly one best filter", {"wrong": wrong})


@stage(
    group="scaling",
    kinds={"parquet", "numpy"},
    code_version="1",
    corpus_inputs=["pool_utilities"],
    partitioned=False,
    checks=[
        unique("metric", "samples_seen", "keep"),
        finite("error", 0),
        Check("one_best", "Each budget has one best filter.", _one_best),
    ],
    metadata=metadata.filter_recommendation,
    signature=lambda work: work.settings.scaling.samples_seen,
)
def filter_recommendation(work: Work) -> pa.Table:
    """How many of the best pools to train on for each compute in data/dqe.yaml, and what each choice costs."""
    utilities = work.store.read("pool_utilities", None, POOL_UTILITIES)
    budgets = work.settings.scaling.samples_seen
    tables = [recommend(fitted, budgets) for fitted in fitted_pools(utilities)]
    return pa.concat_tables(tables) if tables else FILTER_RECOMMENDATION.empty_table()
