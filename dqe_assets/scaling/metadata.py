"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.metadata import Markdown, Metadata, markdown_cell, markdown_table, picture, with_interval
from dqe_assets.scaling import plots
from dqe_assets.scaling.recommendation import amount, answer, fitted_pools
from dqe_assets.scaling.tables import MEASURED_MIXTURES, POOL_UTILITIES

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work
    from dqe_assets.scaling.curves import Scaling


def pool_utilities(_: Work, table: pa.Table, scaling: Scaling) -> Metadata:
    """The parameters with their intervals, what the data cannot say, and for each metric the curves and the decay."""
    rows = [
        [
            *(row["metric"], row["pool"]),
            *(with_interval(row, name) if row["falls"] else "" for name in ("a", "b", "tau", "d")),
            row["points"],
        ]
        for row in table.to_pylist()
    ]
    warnings = list(dict.fromkeys(text for text in table["warning"].to_pylist() if text))
    pictures: Metadata = {}
    for fitted in fitted_pools(table):
        curves = picture(plots.fitted_curves(fitted), f"{fitted.metric}: measured errors and fitted curves")
        decay = picture(plots.utility_by_epoch(fitted), f"{fitted.metric}: utility of each pool by epoch")
        pictures |= {f"curves_{fitted.metric}": curves, f"utility_{fitted.metric}": decay}
    return {
        "source": scaling.source,
        "parameters": markdown_table(["metric", "pool", "a", "b", "tau", "d", "points"], rows),
        "warnings": Markdown("\n".join(f"- {markdown_cell(text)}" for text in warnings) or "none"),
        **pictures,
    }


def measured_mixtures(_: Work, table: pa.Table) -> Metadata:
    """What was measured beside what was predicted."""
    rows = [
        [
            *(row["metric"], row["mixture"], ", ".join(row["pools"]), amount(row["samples_seen"])),
            f"{row['error']:.3f}",
            "" if row["predicted"] is None else with_interval(row, "predicted"),
            "" if row["difference"] is None else f"{row['difference']:+.3f}",
        ]
        for row in table.to_pylist()
    ]
    header = ["metric", "mixture", "pools", "samples seen", "measured", "predicted", "difference"]
    return {"mixtures": len({row[1] for row in rows}), "measured": markdown_table(header, rows)}


def filter_recommendation(work: Work, table: pa.Table, scaling: Scaling) -> Metadata:
    """The answer in words, the predicted errors, and for each metric a picture of them over compute."""
    rows = [
        [
            row["metric"],
            amount(row["samples_seen"]) + ("" if row["is_measured"] else " (outside the data)"),
            f"**{row['keep']}**" if row["is_best"] else row["keep"],
            amount(row["kept_samples"]),
            f"{row['epochs']:.3g}",
            with_interval(row, "error"),
            f"{row['share_best']:.0%}",
        ]
        for row in table.to_pylist()
    ]
    metadata: Metadata = {"source": scaling.source}
    utilities = work.store.read("pool_utilities", None, POOL_UTILITIES)
    mixtures = work.store.read("measured_mixtures", None, MEASURED_MIXTURES)
    budgets = scaling.samples_seen
    for fitted in fitted_pools(utilities, mixtures):
        words = [markdown_cell(line) for line in answer(fitted, budgets)]
        metadata[f"answer_{fitted.metric}"] = Markdown("\n".join(f"- {line}" for line in words))
        metadata[f"mixtures_{fitted.metric}"] = picture(
            plots.mixtures_over_compute(fitted, budgets), f"{fitted.metric}: predicted error over compute"
        )
    header = ["metric", "samples seen", "pools kept", "samples kept", "passes", "error", "best in resampled fits"]
    return metadata | {"predictions": markdown_table(header, rows)}
