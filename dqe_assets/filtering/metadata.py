"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from dqe_assets.compression.pictures import cluster_sheet
from dqe_assets.compression.plots import scores as scores_plot
from dqe_assets.core.metadata import Markdown, Metadata, markdown_table, picture, preview, valid_values, value_counts
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.filtering import plots
from dqe_assets.filtering.store_pool import STORE, StorePool, scores_of
from dqe_assets.filtering.subset import contains, parse_uids, read_subset
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pyarrow as pa

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
        **_of_leaves(output.facts["leaves"]),
    }


def subset(work: Work, output: Manifest) -> Metadata:
    """Where the subset is, what each step left, how its captions fit, and the share of each pool.

    With codes of images also the largest clusters of these, with what the subset keeps marked.
    """
    facts = output.facts
    steps = [(step["condition"], step["kept"]) for step in facts["steps"]]
    pools = [[pool["name"], pool["rows"], pool["kept"], f"{pool['share']:.1%}"] for pool in facts["pools"]]
    return {
        "subset": str(data_directory() / facts["path"]),
        "samples": output.rows,
        "different_samples": facts["different"],
        "expression": facts["expression"],
        "funnel": picture(plots.funnels([("subset", steps)], facts["samples"]), "what each step leaves"),
        **_of_leaves(facts["leaves"]),
        **(_of_store(work, facts["path"]) if STORE in [pool["name"] for pool in facts["pools"]] else {}),
        "pools": markdown_table(["pool", "samples", "kept", "share of the subset"], pools),
        "dropped_by_people": facts.get("dropped_by_people", 0),
        "in_several_pools": facts["collisions"],
        "next": Markdown(f"`dqe reshard {PurePath(facts['path']).stem} --out shards`"),
    }


def mixture(_: Work, output: Manifest) -> Metadata:
    """Where the mixture is, how much of it each part is, and how often samples are repeated."""
    facts = output.facts
    columns = ["part", "weight", "samples", "drawn", "share", "repeats"]
    rows = [[part[name] for name in columns] for part in facts["composition"]]
    return {
        "subset": str(data_directory() / facts["path"]),
        "samples": output.rows,
        "different_samples": facts["distinct_uids"],
        "composition": markdown_table(columns, rows),
        "shares": picture(plots.mixture(facts["mixture"], facts["composition"]), "what the mixture is made of"),
        "next": Markdown(f"`dqe reshard {facts['mixture']} --out shards`"),
    }


def caption_thresholds(work: Work, table: pa.Table) -> Metadata:
    """What becomes of the samples in each mix, and how both kinds of captions fit, with the threshold."""
    found: Metadata = {"mixes": preview(table, table.column_names)}
    for mix in table.to_pylist():
        similarities: dict[str, list[np.ndarray]] = {source: [] for source in (ORIGINAL, mix["captioner"])}
        for scores in work.scan("caption_scores", ["caption_source", "similarity"]):
            for source, parts in similarities.items():
                parts.append(valid_values(scores.filter(pc.equal(scores["caption_source"], source))["similarity"]))
        drawn = {source: np.concatenate(parts) for source, parts in similarities.items()}
        found[f"similarity_{mix['name']}"] = picture(
            plots.caption_mix(drawn, mix), f"{mix['name']}: how original and synthetic captions fit"
        )
    return found


def mixed_captions(_: Work, table: pa.Table) -> Metadata:
    """How many captions are of which source, and some of them."""
    written = table.filter(pc.is_valid(table["caption"]))
    return {
        "captions": value_counts(written["caption_source"]),
        "without": len(table) - len(written),
        "preview": preview(written, ["caption", "caption_source", "similarity"]),
    }


def _of_leaves(leaves: Sequence[Mapping[str, Any]]) -> Metadata:
    """The tail of concepts before and after each filter that balances them, and how near samples are to what covers."""
    found: Metadata = {}
    for leaf in leaves:
        if "tail" in leaf:
            by_language = leaf["t"] if isinstance(leaf["t"], dict) else {"all": leaf["t"]}
            most = max(by_language.values(), default=0)
            found[f"tail_{len(found)}"] = picture(plots.tail(leaf["leaf"], **leaf["tail"], t=most), leaf["leaf"])
        if "distances" in leaf:
            found[f"coverage_{len(found)}"] = picture(plots.coverage(leaf["leaf"], leaf["distances"]), leaf["leaf"])
    return found


def _of_store(work: Work, path: str) -> Metadata:
    """What a subset keeps of the store."""
    uids = read_subset(data_directory() / path)
    pool = StorePool(work.store, work.shards)
    found = {"similarity": picture(scores_plot(scores_of(pool, {"kept": uids})), "how captions fit, of all and kept")}
    if "code_clusters" in work.tables:
        sheet = cluster_sheet(work.store, work.shards, lambda members, _: contains(uids, parse_uids(members)))
        found |= {"clusters": picture(sheet, "the largest clusters of codes, what is kept in frames")} if sheet else {}
    return found
