"""What a person wants to see of each asset in the UI: the figures, a preview, and a plot where it says more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.report import plots, scaling_plots
from dqe_assets.report.duplicate_plots import duplicate_thresholds
from dqe_assets.report.planted import pair_similarity
from dqe_assets.scaling.recommend import amount, answer, fitted_pools
from dqe_assets.schemas import POOL_UTILITIES, RAW_SAMPLES
from dqe_assets.score.preference import preference_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.stage import Facts, Work

PREVIEW_ROWS = 8
SHEET_IMAGES = 12

Metadata = dict[str, Any]


def raw_samples(work: Work, table: pa.Table) -> Metadata:
    """Rows by reason, a contact sheet of the first images, a preview."""
    reasons = _counts(table["reason"])
    ok = reasons.get("ok", 0)
    shown = np.flatnonzero(pc.equal(table["status"], "ok").to_numpy())[:SHEET_IMAGES].tolist()
    sheet = work.store.read_rows("raw_samples", work.partition, RAW_SAMPLES, shown, ["image", "caption"]).to_pylist()
    return {
        "ok": ok,
        "failed": table.num_rows - ok,
        "success_rate": round(ok / table.num_rows, 4) if table.num_rows else None,
        "reasons": _picture(plots.status_bars(reasons), "rows by reason"),
        "images": _picture(
            plots.contact_sheet([row["image"]["bytes"] for row in sheet], [row["caption"] or "" for row in sheet]),
            "the first images of the shard",
        ),
        "preview": _preview(table, ["image_name", "caption", "format", "width", "height", "reason"]),
    }


def image_features(_: Work, table: pa.Table) -> Metadata:
    """How light, sharp and colourful the images are, and what they show most."""
    measured = ("brightness", "contrast", "sharpness", "colourfulness")
    return {
        "images": len(table) - table["embedding"].null_count,
        "most_frequent_labels": _ranking(table["top_label"], "label"),
        "features": _picture(
            plots.feature_histograms({name: _values(table[name]) for name in measured}), "brightness to colourfulness"
        ),
        "preview": _preview(table, ["top_label", "brightness", "sharpness", "colourfulness", "colours"]),
    }


def synthetic_captions(_: Work, table: pa.Table) -> Metadata:
    """How each caption ended, how long they are, a preview."""
    words = [len(caption.split()) for caption in table["caption"].to_pylist() if caption]
    return {
        "captions": len(words),
        "mean_words": round(float(np.mean(words)), 1) if words else None,
        "finish_reasons": _table(["finish reason", "captions"], sorted(_counts(table["finish_reason"]).items())),
        "preview": _preview(table.filter(pc.is_valid(table["caption"])), ["caption", "finish_reason"]),
    }


def joint_embeddings(work: Work, table: pa.Table) -> Metadata:
    """How many images and captions have a vector, and how many captions were cut."""
    rows = []
    for item in pc.unique(table["item"]).to_pylist():
        part = table.filter(pc.equal(table["item"], item))
        tokens = _values(part["tokens"])
        rows.append(
            [
                item,
                len(part) - part["embedding"].null_count,
                f"{tokens.mean():.1f}" if tokens.size else "",
                pc.sum(part["truncated"]).as_py() or 0,
            ]
        )
    return {
        "scorer": work.settings.scorer.model,
        "vectors": _table(["item", "vectors", "mean tokens", "truncated"], rows),
    }


def caption_scores(work: Work, table: pa.Table) -> Metadata:
    """The similarities of each caption source: their means, and their distributions side by side."""
    scores = {
        source: _values(table.filter(pc.equal(table["caption_source"], source))["similarity"])
        for source in work.settings.caption_sources
    }
    return {
        "scorer": work.settings.scorer.model,
        "similarity": _table(
            ["caption source", "captions", "mean", "median"],
            [
                [source, values.size, f"{values.mean():.3f}", f"{np.median(values):.3f}"]
                for source, values in scores.items()
                if values.size
            ],
        ),
        "distribution": _picture(plots.similarity_histogram(scores), "similarity of caption and image by source"),
    }


def caption_preference(_: Work, table: pa.Table) -> Metadata:
    """How often each caption of a pair is preferred above 70, 80 and 90 %, and whether that proves anything."""
    rows, counted = [], []
    for pair in table.group_by(["source_a", "source_b", "independent"], use_threads=False).aggregate([]).to_pylist():
        a, b = pair["source_a"], pair["source_b"]
        part = table.filter(pc.and_(pc.equal(table["source_a"], a), pc.equal(table["source_b"], b)))
        counts = preference_counts(_values(part["probability_a"]), _values(part["probability_b"]))
        above = {round(threshold * 100): (first, second) for threshold, first, second in counts}
        both = len(part) - part["probability_a"].null_count
        counted.append(plots.Preference(a, b, both, above, pair["independent"]))
        cells = [f"{first} / {second}" for first, second in above.values()]
        rows.append([f"{a} / {b}", *cells, "yes" if pair["independent"] else "**no: this proves nothing**"])
    return {
        "preferred": _table(["pair", "above 70 %", "above 80 %", "above 90 %", "independent"], rows),
        "counts": _picture(plots.preference_bars(counted), "captions preferred above each threshold"),
    }


def caption_collection(work: Work, output: Facts) -> Metadata:
    """How many points, and in which collection."""
    return {"points": output.rows, "collection": output.facts["collection"], "kind": work.settings.vectors.kind}


def duplicate_pairs(work: Work, table: pa.Table) -> Metadata:
    """Pairs of each kind: of equal images, and of those that are nearly so."""
    rows = []
    for kind in pc.unique(table["kind"]).to_pylist():
        similarity = _values(table.filter(pc.equal(table["kind"], kind))["similarity"])
        rows.append([kind, int((similarity == 1).sum()), int((similarity < 1).sum())])
    rules = work.settings.duplicates
    return {
        "pairs": _table(["kind", "equal", "near"], rows),
        "max_distance": rules.max_distance,
        "min_cosine": rules.min_cosine,
    }


def duplicate_clusters(work: Work, table: pa.Table) -> Metadata:
    """Clusters and redundant samples of each kind, how large the clusters are, and what was planted, if any was."""
    rows, sizes = [], {}
    for kind in pc.unique(table["kind"]).to_pylist():
        part = table.filter(pc.equal(table["kind"], kind))
        sizes[kind] = part.filter(part["is_representative"])["size"].to_pylist()
        rows.append([kind, len(sizes[kind]), len(part) - len(sizes[kind]), max(sizes[kind])])
    return {
        "clusters": _table(["kind", "clusters", "redundant samples", "largest"], rows),
        "sizes": _picture(plots.cluster_sizes(sizes), "sizes of clusters"),
        **_planted_duplicates(work),
    }


def _planted_duplicates(work: Work) -> Metadata:
    """How alike planted copies are, and the thresholds; nothing where nothing was planted."""
    raws, features = [], []
    for shard in work.shards:
        of_shard = replace(work, partition=shard)
        raw = of_shard.read("raw_samples", ["uid", "status", "reason", "width", "height", "truth"])
        if raw["truth"].null_count < raw.num_rows:
            raws.append(raw)
            features.append(of_shard.read("image_features", ["uid", "embedding", "perceptual_hash"]))
    if not raws:
        return {}
    rules = work.settings.duplicates
    alike = pair_similarity(pa.concat_tables(raws), pa.concat_tables(features))
    picture = duplicate_thresholds(alike, rules.min_cosine, rules.max_distance)
    return {"thresholds": _picture(picture, "similarity of planted copies, of other photos, and the thresholds")}


def caption_duplicates(_: Work, table: pa.Table) -> Metadata:
    """How many captions of each source are repeated, and the most frequent."""
    counts, largest = [], []
    for source in pc.unique(table["caption_source"]).to_pylist():
        of_source = table.filter(pc.equal(table["caption_source"], source))
        for kind in ("exact", "near"):
            part = of_source.filter(pc.equal(of_source["kind"], kind))
            counts.append([source, kind, pc.count_distinct(part["cluster"]).as_py(), len(part)])
        firsts = of_source.filter(pc.and_(of_source["is_representative"], pc.equal(of_source["kind"], "near")))
        first = firsts.sort_by([("size", "descending"), ("cluster", "ascending")]).slice(0, 5)
        largest += [[source, row["representative"], row["size"]] for row in first.to_pylist()]
    return {
        "repeated": _table(["caption source", "kind", "clusters", "captions in them"], counts),
        "largest": _table(["caption source", "representative", "captions"], largest),
    }


def warehouse(work: Work, output: Facts) -> Metadata:
    """How many samples of how many shards, and how to ask."""
    return {
        "database": dg.MetadataValue.path(str(work.settings.warehouse.path)),
        "samples": output.rows,
        "shards": len(output.facts["shards"]),
        "ask": dg.MetadataValue.md('`dqe report`, or `dqe sql "SELECT * FROM worst_captions LIMIT 10"`'),
    }


def sample_gallery(_: Work, output: Facts) -> Metadata:
    """Where the page is, and what it looks like at its beginning."""
    return {"page": dg.MetadataValue.path(output.facts["path"]), "samples_shown": output.rows}


def pool_utilities(work: Work, table: pa.Table) -> Metadata:
    """The parameters with their intervals, what the data cannot say, and for each metric the curves and the decay."""
    rows = [
        [row["metric"], row["pool"], *(_with_interval(row, name) for name in ("a", "b", "tau", "d")), row["points"]]
        for row in table.to_pylist()
    ]
    warnings = list(dict.fromkeys(text for text in table["warning"].to_pylist() if text))
    pictures: Metadata = {}
    for fitted in fitted_pools(table):
        curves = _picture(scaling_plots.fitted_curves(fitted), f"{fitted.metric}: measured errors and fitted curves")
        decay = _picture(scaling_plots.utility_by_epoch(fitted), f"{fitted.metric}: utility of each pool by epoch")
        pictures |= {f"curves_{fitted.metric}": curves, f"utility_{fitted.metric}": decay}
    return {
        "source": work.settings.scaling.source,
        "parameters": _table(["metric", "pool", "a", "b", "tau", "d", "points"], rows),
        "warnings": dg.MetadataValue.md("\n".join(f"- {_cell(text)}" for text in warnings) or "none"),
        **pictures,
    }


def filter_recommendation(work: Work, table: pa.Table) -> Metadata:
    """The answer in words, the predicted errors, and for each metric a picture of them over compute."""
    rows = [
        [
            row["metric"],
            amount(row["samples_seen"]) + ("" if row["is_measured"] else " (outside the data)"),
            f"**{row['keep']}**" if row["is_best"] else row["keep"],
            amount(row["kept_samples"]),
            f"{row['epochs']:.3g}",
            _with_interval(row, "error"),
            f"{row['share_best']:.0%}",
        ]
        for row in table.to_pylist()
    ]
    metadata: Metadata = {"source": work.settings.scaling.source}
    utilities = work.store.read("pool_utilities", None, POOL_UTILITIES)
    budgets = work.settings.scaling.samples_seen
    for fitted in fitted_pools(utilities):
        words = [_cell(line) for line in answer(fitted, budgets)]
        metadata[f"answer_{fitted.metric}"] = dg.MetadataValue.md("\n".join(f"- {line}" for line in words))
        metadata[f"mixtures_{fitted.metric}"] = _picture(
            scaling_plots.mixtures_over_compute(fitted, budgets), f"{fitted.metric}: predicted error over compute"
        )
    header = ["metric", "samples seen", "pools kept", "samples kept", "passes", "error", "best in resampled fits"]
    return metadata | {"predictions": _table(header, rows)}


def _with_interval(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3g} ({row[f'{name}_low']:.3g} to {row[f'{name}_high']:.3g})"


def _picture(image: bytes, alt: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(plots.image_markdown(image, alt))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(Counter(column.to_pylist()).most_common())


def _values(column: pa.ChunkedArray) -> np.ndarray:
    return column.drop_null().to_numpy().astype(np.float64)


def _ranking(column: pa.ChunkedArray, name: str) -> dg.MarkdownMetadataValue:
    counts = Counter(column.drop_null().to_pylist())
    return _table([name, "images"], sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:PREVIEW_ROWS])


def _preview(table: pa.Table, columns: Sequence[str]) -> dg.MarkdownMetadataValue:
    rows = table.select(columns).slice(0, PREVIEW_ROWS).to_pylist()
    return _table(columns, [[row[column] for column in columns] for row in rows])


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.MarkdownMetadataValue:
    lines = [header, ["---"] * len(header), *[[_cell(value) for value in row] for row in rows]]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _cell(value: Any) -> str:
    """Text for a Markdown table: captions from the web can neither break it nor bring markup of their own."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    for mark, replacement in {"&": "&amp;", "<": "&lt;", "|": "\\|", "[": "\\[", "!": "\\!", "\n": " "}.items():
        text = text.replace(mark, replacement)
    return text
