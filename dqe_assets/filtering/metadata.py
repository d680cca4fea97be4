"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from dqe_assets.core.metadata import Markdown, Metadata, markdown_table, picture
from dqe_assets.filtering import plots
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from dqe_assets.core.work import Manifest, Work


def filter_masks(_: Work, output: Manifest) -> Metadata:
    """What each filter keeps, what two keep together, and what each step removes."""
    samples, filters = output.facts["samples"], output.facts["filters"]
    names = [one["filter"] for one in filters]
    steps = [(one["filter"], [(step["condition"], step["kept"]) for step in one["steps"]]) for one in filters]
    rows = [
        [one["filter"], one["expression"], one["kept"], f"{one['kept'] / samples:.1%}" if samples else ""]
        for one in filters
    ]
    fitted = [[one["leaf"], one["fitted"], one["kept"]] for one in output.facts["leaves"]]
    return {
        "samples": samples,
        "filters": markdown_table(["filter", "expression", "kept", "share"], rows),
        "fitted": markdown_table(["filter", "with what was found in this pool", "kept"], fitted),
        "overlap": picture(plots.overlap_matrix(names, output.facts["both"]), "what two filters both keep"),
        "funnel": picture(plots.funnels(steps, samples), "what each step of each filter leaves"),
    }


def subset(_: Work, output: Manifest) -> Metadata:
    """Where the subset is, what each step left, and the share of each pool."""
    facts = output.facts
    steps = [(step["condition"], step["kept"]) for step in facts["steps"]]
    pools = [[pool["name"], pool["rows"], pool["kept"], f"{pool['share']:.1%}"] for pool in facts["pools"]]
    return {
        "subset": str(data_directory() / facts["path"]),
        "samples": output.rows,
        "expression": facts["expression"],
        "funnel": picture(plots.funnels([("subset", steps)], facts["samples"]), "what each step leaves"),
        "pools": markdown_table(["pool", "samples", "kept", "share of the subset"], pools),
        "in_several_pools": facts["collisions"],
        "next": Markdown(f"`dqe reshard {PurePath(facts['path']).stem} --out shards`"),
    }
