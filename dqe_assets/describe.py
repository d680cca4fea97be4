"""What a person wants to see of each asset in the UI: the figures, a preview, and a plot where it says more."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.accounting import account
from dqe_assets.caption.agreement import AGREEMENT_COLUMNS, MEASURES, agreement, means
from dqe_assets.caption.flags import FLAGS
from dqe_assets.concepts.corpus import frequencies
from dqe_assets.concepts.plan import fitted_models
from dqe_assets.concepts.tail import LIMITS, gini, share_under
from dqe_assets.report import (
    best_plots,
    concept_plots,
    filter_plots,
    ingest_plots,
    judgement_plots,
    plots,
    scaling_plots,
    topic_plots,
)
from dqe_assets.report.caption_views import CAPTIONERS_REPORT
from dqe_assets.report.duplicate_plots import duplicate_thresholds
from dqe_assets.report.planted import pair_similarity, text_figures
from dqe_assets.report.refining_plots import similarity_before_and_after
from dqe_assets.report.refining_views import rounds_of
from dqe_assets.report.topic_plots import sample_map
from dqe_assets.scaling.recommend import amount, answer, fitted_pools
from dqe_assets.schemas import (
    IMAGE,
    ORIGINAL,
    POOL_UTILITIES,
    RAW_SAMPLES,
    REFINED,
    SYNTHETIC_CAPTIONS,
    SYNTHETIC_CAPTIONS_PREFIX,
)
from dqe_assets.score.masked_similarity import masked_sample
from dqe_assets.score.patterns import PATTERNS
from dqe_assets.score.preference import PreferenceComparison, preference_report
from dqe_assets.score.text_quality import ENGLISH
from dqe_resources.cache import data_directory
from dqe_resources.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.stage import Facts, Work

PREVIEW_ROWS = 8
SHEET_IMAGES = 12

Metadata = dict[str, Any]


def raw_samples(work: Work, table: pa.Table) -> Metadata:
    """Rows by reason, and by host where they were fetched, a contact sheet of the first images, a preview."""
    reasons = _counts(table["reason"])
    ok = reasons.get("ok", 0)
    shown = np.flatnonzero(pc.equal(table["status"], "ok").to_numpy())[:SHEET_IMAGES].tolist()
    sheet = work.store.read_rows("raw_samples", work.partition, RAW_SAMPLES, shown, ["image", "caption"]).to_pylist()
    return {
        "ok": ok,
        "failed": table.num_rows - ok,
        "success_rate": round(ok / table.num_rows, 4) if table.num_rows else None,
        "reasons": _picture(plots.status_bars(reasons), "rows by reason"),
        **_fetching(table),
        "images": _picture(
            plots.contact_sheet([row["image"]["bytes"] for row in sheet], [row["caption"] or "" for row in sheet]),
            "the first images of the shard",
        ),
        "preview": _preview(table, ["image_name", "caption", "format", "width", "height", "reason"]),
    }


def _fetching(table: pa.Table) -> Metadata:
    fetched = table.filter(pc.is_valid(table["attempts"]))
    if not fetched.num_rows:
        return {}
    return {
        "fetched": fetched.num_rows,
        "requests": pc.sum(fetched["attempts"]).as_py(),
        "outcomes": _picture(ingest_plots.fetch_outcomes(fetched), "rows by host, and what became of them"),
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


def synthetic_captions(work: Work, table: pa.Table) -> Metadata:
    """How each caption ended, what is wrong with some, what they took, the other captioners beside, a preview."""
    words = [len(caption.split()) for caption in table["caption"].to_pylist() if caption]
    taken = account(table)
    captioner = next(one for one in work.settings.captioners if work.asset.endswith(f"/{one.name}"))
    cost = taken.cost(captioner.price_per_hour)
    return {
        "captions": len(words),
        "mean_words": round(float(np.mean(words)), 1) if words else None,
        "model": captioner.model_id,
        "prompt": next((name for name in table["prompt"].to_pylist() if name), None),
        "prompt_tokens": taken.prompt_tokens,
        "completion_tokens": taken.completion_tokens,
        "seconds_per_caption": taken.seconds_per_caption and round(taken.seconds_per_caption, 4),
        "cost": None if cost is None else round(cost, 4),
        "finish_reasons": _table(["finish reason", "captions"], sorted(_counts(table["finish_reason"]).items())),
        "flags": _table(["flag", "captions", "meaning"], [[f, n, FLAGS[f]] for f, n in taken.flags.items()]),
        "errors": _table(["error", "samples"], list(_counts(table["error"].drop_null()).items())[:PREVIEW_ROWS]),
        "captioners": _table(*_captioners_beside(work)),
        "preview": _preview(table.filter(pc.is_valid(table["caption"])), ["caption", "finish_reason", "flags"]),
    }


def _captioners_beside(work: Work) -> tuple[list[str], list[list[Any]]]:
    """What is stored of every captioner for the same shard; how well their captions fit is measured later."""
    rows = []
    columns = ["caption", "finish_reason", "flags", "prompt_tokens", "completion_tokens", "seconds", "finished_at"]
    for captioner in work.settings.captioners:
        asset = f"{SYNTHETIC_CAPTIONS_PREFIX}{captioner.name}"
        try:
            taken = account(work.store.read(asset, work.partition, SYNTHETIC_CAPTIONS, columns))
        except StorageError:
            # Not made yet, or by an earlier version.
            continue
        flags = ", ".join(f"{flag} {count}" for flag, count in taken.flags.items())
        cost = taken.cost(captioner.price_per_hour)
        rows.append(
            [captioner.name, captioner.model_id, taken.captions, taken.errors, taken.seconds_per_caption, cost, flags]
        )
    return ["captioner", "model", "captions", "errors", "seconds a caption", "cost", "flags"], rows


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
    """The similarities of each caption source: their means, distributions, and each captioner's beside the originals.

    Where long captions are scored sentence by sentence, also what each policy gives.
    """
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
        **_beside_originals(work, table),
        **_long_captions(work, table),
    }


def _beside_originals(work: Work, table: pa.Table) -> Metadata:
    """The similarity of each image's original caption against that of each captioner's."""
    similarity = {
        source: table.filter(pc.equal(table["caption_source"], source))["similarity"].to_numpy()
        for source in work.settings.caption_sources
    }
    names = work.settings.captioner_names
    return {
        f"original_and_{name}": _picture(
            plots.original_vs_synthetic_scatter(similarity[ORIGINAL], similarity[name], name, names),
            f"similarity of the original caption and of {name}'s",
        )
        for name in names
    }


def _long_captions(work: Work, table: pa.Table) -> Metadata:
    """Of captions too long for the encoder, the mean similarity under each policy."""
    policies = {name: f"similarity_{name}" for name in ("truncated", "sentences_mean", "sentences_max")}
    long = table.filter(pc.is_valid(table["similarity_truncated"]))
    rows = []
    for source in pc.unique(long["caption_source"]).to_pylist():
        part = long.filter(pc.equal(long["caption_source"], source))
        rows.append([source, len(part), *(pc.mean(part[column]).as_py() for column in policies.values())])
    if not rows:
        return {}
    return {
        "long_captions": work.settings.scorer.long_captions,
        "too_long": _table(["caption source", "too long", *policies], rows),
    }


def caption_preference(_: Work, table: pa.Table) -> Metadata:
    """How often each caption of a pair is preferred above 70, 80 and 90 %, how sure that is, and if it proves anything.

    Below stands how captioners compare by how often each beats the original.
    """
    groups: dict[str, dict[tuple[str, str], tuple[Any, Any]]] = {}
    independent: dict[tuple[str, str], bool] = {}
    keys = ["source_a", "source_b", "independent", "scorer"]
    for pair in table.group_by(keys, use_threads=False).aggregate([]).to_pylist():
        a, b = pair["source_a"], pair["source_b"]
        part = table.filter(pc.and_(pc.equal(table["source_a"], a), pc.equal(table["source_b"], b)))
        groups.setdefault(pair["scorer"], {})[a, b] = part["probability_a"].to_numpy(), part["probability_b"].to_numpy()
        independent[a, b] = pair["independent"]
    rows, drawn, ratios = [], [], []
    for scorer, probabilities in groups.items():
        report = preference_report(probabilities)
        for (a, b, against), group in groupby(report, key=lambda one: (one.source_a, one.source_b, one.against)):
            found = list(group)
            if against is not None:
                ratios.append([f"{b} against {a}", scorer, *map(_ratio, found)])
                continue
            drawn.append(plots.Preference.of(found, independent=independent[a, b]))
            cells = [f"{one.above_a} / {one.above_b}" for one in found]
            proves = "yes" if independent[a, b] else "**no: this proves nothing**"
            rows.append([f"{a} / {b}", *cells, _ratio(found[0]), scorer, proves])
    above = ["above 70 %", "above 80 %", "above 90 %"]
    return {
        "preferred": _table(["pair", *above, "times as often above 70 %", "scorer", "independent"], rows),
        "beating_the_original": _table(["times as often", "scorer", *above], ratios),
        "counts": _picture(plots.preference_bars(drawn), "captions preferred above each threshold"),
    }


def _ratio(one: PreferenceComparison) -> str:
    return f"{one.ratio:.2f} ({one.ratio_low:.2f} to {one.ratio_high:.2f})" if np.isfinite(one.ratio) else ""


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
        of_shard = work.of_shard(shard)
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


def collection_map(_: Work, table: pa.Table) -> Metadata:
    """The topics with their sizes and scores, and the map coloured by topic, source and score."""
    rows = []
    for topic in range((pc.max(table["topic"]).as_py() or 0) + 1 if table.num_rows else 0):
        part = table.filter(pc.equal(table["topic"], topic))
        scores = _values(part["similarity"])
        rows.append([part["topic_name"][0].as_py(), len(part), f"{scores.mean():.3f}" if scores.size else ""])
    shown = sample_map(table)
    return {
        "topics": _table(["topic", "samples", "mean similarity"], rows),
        "map_by_topic": _picture(topic_plots.map_by_topic(shown), "the images by topic"),
        "map_by_source": _picture(topic_plots.map_by_source(shown), "the images by source"),
        "map_by_score": _picture(topic_plots.map_by_score(shown), "the images by similarity of their captions"),
    }


def filter_masks(_: Work, output: Facts) -> Metadata:
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
        "filters": _table(["filter", "expression", "kept", "share"], rows),
        "fitted": _table(["filter", "with what was found in this pool", "kept"], fitted),
        "overlap": _picture(filter_plots.overlap_matrix(names, output.facts["both"]), "what two filters both keep"),
        "funnel": _picture(filter_plots.funnels(steps, samples), "what each step of each filter leaves"),
    }


def subset(_: Work, output: Facts) -> Metadata:
    """Where the subset is, what each step left, and the share of each pool."""
    facts = output.facts
    steps = [(step["condition"], step["kept"]) for step in facts["steps"]]
    pools = [[pool["name"], pool["rows"], pool["kept"], f"{pool['share']:.1%}"] for pool in facts["pools"]]
    return {
        "subset": dg.MetadataValue.path(str(data_directory() / facts["path"])),
        "samples": output.rows,
        "expression": facts["expression"],
        "funnel": _picture(filter_plots.funnels([("subset", steps)], facts["samples"]), "what each step leaves"),
        "pools": _table(["pool", "samples", "kept", "share of the subset"], pools),
        "in_several_pools": facts["collisions"],
        "next": dg.MetadataValue.md(f"`dqe reshard {PurePath(facts['path']).stem} --out shards`"),
    }


def warehouse(work: Work, output: Facts) -> Metadata:
    """How many samples of how many shards, the captioners beside one another, what filters keep, and how to ask."""
    with work.settings.warehouse.connect() as connection:
        captioners = connection.sql(CAPTIONERS_REPORT).to_arrow_table()
        planted = connection.sql("SELECT filter, planted, share FROM filter_planted").fetchall()
    metadata: Metadata = {
        "database": dg.MetadataValue.path(str(work.settings.warehouse.path)),
        "samples": output.rows,
        "shards": len(output.facts["shards"]),
        "captioners": _table(captioners.column_names, [list(row.values()) for row in captioners.to_pylist()]),
        "ask": dg.MetadataValue.md('`dqe report`, or `dqe sql "SELECT * FROM worst_captions LIMIT 10"`'),
    }
    if planted:
        metadata["planted"] = _picture(
            filter_plots.planted_shares(planted), "what each filter keeps of what was planted"
        )
    return metadata


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


def concept_hits(work: Work, table: pa.Table) -> Metadata:
    """How many images and captions show a concept, and which ones they show most."""
    rows = []
    for item in (IMAGE, *work.settings.caption_sources):
        concepts = table.filter(pc.equal(table["item"], item))["concepts"].drop_null()
        shown = pc.sum(pc.greater(pc.list_value_length(concepts), 0)).as_py() or 0
        most = Counter(pc.list_flatten(concepts).to_pylist()).most_common(PREVIEW_ROWS)
        rows.append([item, len(concepts), shown, ", ".join(f"{name} ({count})" for name, count in most)])
    return {
        "tagger": work.settings.concepts.tagger.model,
        "threshold": work.settings.concepts.threshold,
        "shown": _table(["item", "there", "show a concept", "most frequent"], rows),
    }


def concept_frequency(work: Work, table: pa.Table) -> Metadata:
    """How long the tail is in images and in each caption source, and what recaptioning does to it."""
    counts = frequencies(table, [*work.settings.caption_sources, IMAGE])
    rows = [
        [item, int((values > 0).sum()), gini(values), *(f"{share:.0%}" for share in share_under(values).values())]
        for item, values in counts.items()
    ]
    pictures: Metadata = {
        f"recaptioned_{name}": _picture(
            concept_plots.recaptioned(counts[ORIGINAL], counts[name], name, work.settings.caption_sources),
            f"samples that show each concept: original captions against {name}",
        )
        for name in work.settings.captioner_names
    }
    return {
        "concepts": len(counts[ORIGINAL]),
        "tail": _table(["item", "shown", "Gini", *(f"under {limit:,}" for limit in LIMITS)], rows),
        "rank_frequency": _picture(concept_plots.rank_frequency(counts), "rank and frequency of concepts"),
        "hardly_shown": _picture(concept_plots.tail_shares(counts), "share of concepts that few samples show"),
        **pictures,
    }


def misalignment(_: Work, table: pa.Table) -> Metadata:
    """For each caption source, how many samples have a caption and an image that share no concept."""
    totals = table.group_by("caption_source", use_threads=False).aggregate(
        [(name, "sum") for name in ("samples", "comparable", "misaligned")]
    )
    rows = [[*row.values(), f"{row['misaligned_sum'] / max(row['samples_sum'], 1):.2%}"] for row in totals.to_pylist()]
    return {
        "misaligned": _table(["caption source", "samples", "comparable", "misaligned", "misalignment degree"], rows),
        "ask": dg.MetadataValue.md('`dqe sql "SELECT * FROM misaligned_samples LIMIT 10"`'),
    }


def concept_performance(work: Work, table: pa.Table) -> Metadata:
    """The line of each model, and the picture of it."""
    rows = [
        [row["model"], row["concepts"], row["r"], row["p_value"], _with_interval(row, "slope"), row["unbinned_r"]]
        for row in table.to_pylist()
    ]
    pictures: Metadata = {
        f"accuracy_{fitted.model}": _picture(concept_plots.log_linear(fitted), f"{fitted.model}: accuracy by frequency")
        for fitted in fitted_models(table)
    }
    header = ["model", "concepts", "r", "p", "accuracy for each e-fold", "r of single concepts"]
    return {"source": work.settings.concepts.source, "lines": _table(header, rows), **pictures}


def concept_plan(work: Work, table: pa.Table) -> Metadata:
    """What the rarest concepts need, and what all of them need together."""
    columns = ["model", "concept", "samples", "predicted_accuracy", "samples_needed"]
    needed = table["samples_needed"].to_numpy()
    return {
        "source": work.settings.concepts.source,
        "target_accuracy": work.settings.concepts.target_accuracy,
        "concepts_below_target": int((needed > 0).sum()),
        "rarest": _preview(table, columns),
    }


def rare_concept_retrieval(_: Work, table: pa.Table) -> Metadata:
    """The nearest candidates of the rarest concepts."""
    nearest = table.filter(pc.equal(table["place"], 1))
    return {
        "concepts": len(pc.unique(table["concept"])),
        "nearest": _preview(nearest, ["concept", "item", "uid", "score"]),
    }


def rebalanced_subset(work: Work, table: pa.Table) -> Metadata:
    """How far the weights reach, and how many samples are drawn more than once in a pass."""
    weights = table["weight"].to_numpy()
    return {
        "samples": len(weights),
        "drawn_more_than_once": int((weights > 1).sum()),
        "most_draws": float(weights.max(initial=0)),
        "settings": dg.MetadataValue.json(
            work.settings.concepts.model_dump(include={"count_by", "temperature", "cap"})
        ),
    }


def curriculum(work: Work, table: pa.Table) -> Metadata:
    """The easiest and the hardest samples."""
    ordered = table.sort_by("rank")
    return {
        "samples": len(table),
        "weights": dg.MetadataValue.json(work.settings.concepts.curriculum.model_dump()),
        "easiest": _preview(ordered, ["rank", "uid", "difficulty"]),
        "hardest": _preview(ordered.slice(max(0, len(table) - PREVIEW_ROWS)), ["rank", "uid", "difficulty"]),
    }


def best_captions(_: Work, table: pa.Table) -> Metadata:
    """Which sources the best captions are from and why, and how well they fit, beside the originals."""
    before, after = (
        table[name].cast(pa.float64()).fill_null(np.nan).to_numpy() for name in ("original_similarity", "similarity")
    )
    gain = (after - before)[np.isfinite(after - before)]
    reasons = Counter(zip(table["caption_source"].to_pylist(), table["reason"].to_pylist(), strict=True))
    return {
        "share_improved": round(float((gain > 0).mean()), 4) if gain.size else None,
        "mean_gain": round(float(gain.mean()), 4) if gain.size else None,
        "not_independent": pc.sum(pc.equal(table["independent"], False)).as_py() or 0,
        "reasons": _table(["caption source", "reason", "samples"], [[*k, n] for k, n in reasons.most_common()]),
        "before_and_after": _picture(
            best_plots.before_and_after(before, after, pc.fill_null(table["independent"], True).to_numpy()),
            "similarity of the original captions, and of the best",
        ),
        "preview": _preview(table, ["caption_source", "caption", "similarity", "reason", "runner_up_source"]),
    }


def caption_judgements(work: Work, table: pa.Table) -> Metadata:
    """The means of each source and place, agreement with the scorer, what it took, and what could not be judged."""
    judged = table.filter(pc.is_valid(table["overall"]))
    scores = work.read("caption_scores", ["uid", "caption_source", "similarity"])
    scored = judged.select(["uid", "caption_source", "overall"]).join(scores, ["uid", "caption_source"])
    by_source = means(judged, "caption_source")
    requests = table.group_by("uid", use_threads=False).aggregate(
        [(name, "first") for name in ("finish_reason", "prompt_tokens", "completion_tokens", "attempts", "cost")]
    )
    stored = work.store.get(work.asset, work.partition)
    facts = stored.stamp.facts if stored else {}
    reasons = _counts(requests["finish_reason_first"])
    cost = pc.sum(requests["cost_first"]).as_py()
    return {
        "judge": work.settings.judging.judge.model if work.settings.judging else None,
        "samples_drawn": facts.get("drawn"),
        "samples_judged": len(pc.unique(judged["uid"])),
        "not_asked_for_the_cap": facts.get("not_asked"),
        "unparsable": reasons.get("unparsable", 0),
        "errors": _table(["error", "samples"], _errors(table)),
        "requests": pc.sum(requests["attempts_first"]).as_py() or 0,
        "prompt_tokens": pc.sum(requests["prompt_tokens_first"]).as_py() or 0,
        "completion_tokens": pc.sum(requests["completion_tokens_first"]).as_py() or 0,
        "cost": None if cost is None else round(cost, 6),
        "marks": _picture(judgement_plots.marks_by_source(by_source), "mean marks of each caption source"),
        "means": _judged_table(by_source, "caption_source"),
        "by_place": _judged_table(means(judged, "place"), "place"),
        "agreement": _table(AGREEMENT_COLUMNS, [list(row.values()) for row in agreement(scored).to_pylist()]),
        "preview": _preview(judged, ["caption_source", *MEASURES]),
    }


def _errors(table: pa.Table) -> list[tuple[str, int]]:
    failed = (
        table.filter(pc.is_valid(table["error"])).group_by("uid", use_threads=False).aggregate([("error", "first")])
    )
    return list(_counts(failed["error_first"]).items())[:PREVIEW_ROWS]


def _judged_table(table: pa.Table, by: str) -> dg.MarkdownMetadataValue:
    rows = [
        [row[by], row["judged"], *(_with_interval(row, measure) for measure in MEASURES)] for row in table.to_pylist()
    ]
    return _table([by, "judged", *MEASURES], rows)


def refined_captions(work: Work, table: pa.Table) -> Metadata:
    """What each round brought and took, whether that proves anything, and answers beside what they were asked for."""
    rounds = rounds_of(table)
    independent = REFINED not in work.settings.judged_by_their_own
    accepted = table.filter(table["accepted"])
    return {
        "asked": len(pc.unique(table["uid"])),
        "refined": len(pc.unique(accepted["uid"])),
        "independent": independent
        or dg.MetadataValue.md(
            "**no: the scorer shares a backbone with the captioner, or with the labels that the prompt says "
            "(`labels: 0` leaves them out); a higher similarity then proves nothing**"
        ),
        "rounds": _table(rounds.column_names[1:], [list(row.values())[1:] for row in rounds.to_pylist()]),
        "similarity": _picture(similarity_before_and_after(table), "similarity before the first round and after each"),
        "reasons": _table(["reason", "answers asked for"], list(_counts(table["reason"]).items())[:PREVIEW_ROWS]),
        "vetoes": _table(["veto", "answers"], list(_counts(table["veto"].drop_null()).items())),
        "errors": _table(["error", "answers"], list(_counts(table["error"].drop_null()).items())[:PREVIEW_ROWS]),
        "preview": _preview(accepted, ["round", "reason", "previous_similarity", "similarity", "caption"]),
    }


def text_quality(work: Work, table: pa.Table) -> Metadata:
    """How long the captions of each source are, in which language, and what they are that is no description."""
    rows, patterns = [], []
    for source in work.settings.caption_sources:
        part = table.filter(pc.equal(table["caption_source"], source))
        there = part.filter(pc.is_valid(part["words"]))
        means = [pc.mean(there[name]).as_py() for name in ("words", "special_ratio", "digit_ratio", "repetition")]
        sure = pc.greater(there["language_probability"], 0.5)
        foreign = pc.and_(sure, pc.not_equal(there["language"], ENGLISH))
        rows.append([source, len(there), _share(foreign), *means])
        found = _counts(pc.list_flatten(there["patterns"]))
        patterns += [[source, name, count, PATTERNS[name].meaning] for name, count in found.items()]
    header = ["caption source", "captions", "not English", "mean words", "special", "digits", "repetition"]
    return {
        "captions": _table(header, rows),
        "patterns": _table(["caption source", "pattern", "captions", "meaning"], patterns),
    }


def image_text(_: Work, table: pa.Table) -> Metadata:
    """How many images have text, how much of them it covers, and what those with the most text read."""
    with_text = table.filter(pc.greater(table["text_area"], 0)).sort_by([("text_area", "descending")])
    shown = pa.table(
        {
            "uid": with_text["uid"],
            "text_area": with_text["text_area"],
            "text": pc.utf8_slice_codeunits(with_text["text"], 0, 100),
        }
    )
    return {
        "images": len(table) - table["text_area"].null_count,
        "with_text": len(with_text),
        "regions": pc.sum(pc.list_value_length(with_text["regions"])).as_py() or 0,
        "most_text": _preview(shown, shown.column_names),
    }


def masked_similarity(work: Work, table: pa.Table) -> Metadata:
    """How much the scores of images with text lose without it, and those that lose most: as they are, and masked."""
    lost = pc.subtract(table["similarity"], table["masked_similarity"])
    rows = np.flatnonzero(pc.fill_null(pc.greater(table["text_area"], 0), fill_value=False).to_numpy())
    most = rows[np.argsort(-np.nan_to_num(lost.to_numpy()[rows]), kind="stable")][: SHEET_IMAGES // 2]
    metadata: Metadata = {
        "scorer": work.settings.scorer.model,
        "masked": len(rows),
        "mean_loss": pc.mean(lost.take(pa.array(rows))).as_py(),
    }
    if len(most) and (detector := work.settings.image_text):
        shown = np.sort(most)
        samples = work.store.read_rows(
            "raw_samples", work.partition, RAW_SAMPLES, shown.tolist(), ["image"]
        ).to_pylist()
        regions = work.read("image_text", ["regions"])["regions"].take(pa.array(shown)).to_pylist()
        scores = table.take(pa.array(shown)).to_pylist()
        files, notes = [], []
        for sample, found, score in zip(samples, regions, scores, strict=True):
            files += [sample["image"]["bytes"], masked_sample(sample, found, detector.fill)["image"]["bytes"]]
            notes += [f"as it is: {_rounded(score['similarity'])}", f"masked: {_rounded(score['masked_similarity'])}"]
        metadata["images"] = _picture(
            plots.contact_sheet(files, notes), "the images whose scores lose most, and masked"
        )
    metadata |= _planted_text(work)
    return metadata


def _planted_text(work: Work) -> Metadata:
    """How well scores tell pictures with their caption drawn into them; nothing where nothing was planted."""
    raw = work.read("raw_samples", ["uid", "status", "reason", "width", "height", "truth"])
    if raw["truth"].null_count == len(raw):
        return {}
    figures = text_figures(raw, work.read("image_text", ["uid", "text_area"]), work.read(work.asset)).to_pylist()
    rows = [[row[name] for name in ("what", "metric", "value", "positives", "negatives")] for row in figures]
    return {"planted": _table(["what", "metric", "value", "positives", "negatives"], rows)}


def _rounded(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _share(found: pa.ChunkedArray) -> str:
    share = pc.mean(pc.fill_null(found, fill_value=False).cast(pa.float64())).as_py()
    return "" if share is None else f"{share:.1%}"


def _with_interval(row: dict[str, Any], name: str) -> str:
    if row[f"{name}_low"] is None:
        return f"{row[name]:.3g}"
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
