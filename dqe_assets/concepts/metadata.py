"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts import plots
from dqe_assets.concepts.corpus import frequencies
from dqe_assets.concepts.plan import fitted_models
from dqe_assets.concepts.tail import LIMITS, gini, share_under
from dqe_assets.core.metadata import PREVIEW_ROWS, Markdown, Metadata, markdown_table, picture, preview, with_interval
from dqe_assets.core.schema import IMAGE, ORIGINAL

if TYPE_CHECKING:
    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.concepts.settings import CurriculumWeights
    from dqe_assets.core.work import Work
    from dqe_resources.taggers.protocol import Tagger


def concept_hits(_: Work, table: pa.Table, tagger: Tagger, captions: CaptionSources, threshold: float) -> Metadata:
    """How many images and captions show a concept, and which ones they show most."""
    rows = []
    for item in (IMAGE, *captions.names):
        concepts = table.filter(pc.equal(table["item"], item))["concepts"].drop_null()
        shown = pc.sum(pc.greater(pc.list_value_length(concepts), 0)).as_py() or 0
        most = Counter(pc.list_flatten(concepts).to_pylist()).most_common(PREVIEW_ROWS)
        rows.append([item, len(concepts), shown, ", ".join(f"{name} ({count})" for name, count in most)])
    return {
        "tagger": tagger.model,
        "threshold": threshold,
        "shown": markdown_table(["item", "there", "show a concept", "most frequent"], rows),
    }


def concept_frequency(_: Work, table: pa.Table, captions: CaptionSources) -> Metadata:
    """How long the tail is in images and in each caption source, and what recaptioning does to it."""
    counts = frequencies(table, [*captions.names, IMAGE])
    rows = [
        [item, int((values > 0).sum()), gini(values), *(f"{share:.0%}" for share in share_under(values).values())]
        for item, values in counts.items()
    ]
    pictures: Metadata = {
        f"recaptioned_{name}": picture(
            plots.recaptioned(counts[ORIGINAL], counts[name], name, captions.names),
            f"samples that show each concept: original captions against {name}",
        )
        for name in captions.captioners
    }
    return {
        "concepts": len(counts[ORIGINAL]),
        "tail": markdown_table(["item", "shown", "Gini", *(f"under {limit:,}" for limit in LIMITS)], rows),
        "rank_frequency": picture(plots.rank_frequency(counts), "rank and frequency of concepts"),
        "hardly_shown": picture(plots.tail_shares(counts), "share of concepts that few samples show"),
        **pictures,
    }


def misalignment(_: Work, table: pa.Table) -> Metadata:
    """For each caption source, how many samples have a caption and an image that share no concept."""
    totals = table.group_by("caption_source", use_threads=False).aggregate(
        [(name, "sum") for name in ("samples", "comparable", "misaligned")]
    )
    rows = [[*row.values(), f"{row['misaligned_sum'] / max(row['samples_sum'], 1):.2%}"] for row in totals.to_pylist()]
    return {
        "misaligned": markdown_table(
            ["caption source", "samples", "comparable", "misaligned", "misalignment degree"], rows
        ),
        "ask": Markdown('`dqe sql "SELECT * FROM misaligned_samples LIMIT 10"`'),
    }


def concept_performance(_: Work, table: pa.Table, source: str) -> Metadata:
    """The line of each model, and the picture of it."""
    rows = [
        [row["model"], row["concepts"], row["r"], row["p_value"], with_interval(row, "slope"), row["unbinned_r"]]
        for row in table.to_pylist()
    ]
    pictures: Metadata = {
        f"accuracy_{fitted.model}": picture(plots.log_linear(fitted), f"{fitted.model}: accuracy by frequency")
        for fitted in fitted_models(table)
    }
    header = ["model", "concepts", "r", "p", "accuracy for each e-fold", "r of single concepts"]
    return {"source": source, "lines": markdown_table(header, rows), **pictures}


def concept_plan(_: Work, table: pa.Table, source: str, target_accuracy: float) -> Metadata:
    """What the rarest concepts need, and what all of them need together."""
    columns = ["model", "concept", "samples", "predicted_accuracy", "samples_needed"]
    needed = table["samples_needed"].to_numpy()
    return {
        "source": source,
        "target_accuracy": target_accuracy,
        "concepts_below_target": int((needed > 0).sum()),
        "rarest": preview(table, columns),
    }


def rare_concept_retrieval(_: Work, table: pa.Table) -> Metadata:
    """The nearest candidates of the rarest concepts."""
    nearest = table.filter(pc.equal(table["place"], 1))
    return {
        "concepts": len(pc.unique(table["concept"])),
        "nearest": preview(nearest, ["concept", "item", "uid", "score"]),
    }


def rebalanced_subset(_: Work, table: pa.Table, count_by: str, temperature: float, cap: float) -> Metadata:
    """How far the weights reach, and how many samples are drawn more than once in a pass."""
    weights = table["weight"].to_numpy()
    return {
        "samples": len(weights),
        "drawn_more_than_once": int((weights > 1).sum()),
        "most_draws": float(weights.max(initial=0)),
        "settings": {"count_by": count_by, "temperature": temperature, "cap": cap},
    }


def curriculum(_: Work, table: pa.Table, weights: CurriculumWeights) -> Metadata:
    """The easiest and the hardest samples."""
    easiest, hardest = (
        table.filter(wanted).sort_by("rank")
        for wanted in (
            pc.less_equal(table["rank"], PREVIEW_ROWS),
            pc.greater(table["rank"], len(table) - PREVIEW_ROWS),
        )
    )
    return {
        "samples": len(table),
        "weights": weights.model_dump(),
        "easiest": preview(easiest, ["rank", "uid", "difficulty"]),
        "hardest": preview(hardest, ["rank", "uid", "difficulty"]),
    }
