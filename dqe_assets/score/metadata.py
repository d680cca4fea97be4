"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.accounting import busy_seconds
from dqe_assets.core.figures import contact_sheet, histograms
from dqe_assets.core.metadata import (
    PREVIEW_ROWS,
    SHEET_IMAGES,
    Metadata,
    markdown_table,
    percentage,
    picture,
    preview,
    valid_values,
    value_counts,
)
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.ingest.planted import text_figures
from dqe_assets.score.masked_similarity import masked_sample
from dqe_assets.score.patterns import PATTERNS
from dqe_assets.score.plots import Preference, original_vs_synthetic_scatter, preference_bars, similarity_histogram
from dqe_assets.score.preference import PreferenceComparison, preference_report
from dqe_assets.score.text_quality import ENGLISH

if TYPE_CHECKING:
    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.core.work import Work
    from dqe_resources.models.text_detector import TextDetector
    from dqe_resources.scorers.named import SampleScorer
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.scorers.vqa import VqaScorer

_AT_AN_END = 6
"""Images shown of those with the highest scores, and of those with the lowest."""


def joint_embeddings(_: Work, table: pa.Table, scorer: Scorer) -> Metadata:
    """How many images and captions have a vector, and how many captions were cut."""
    rows = []
    for item in pc.unique(table["item"]).to_pylist():
        part = table.filter(pc.equal(table["item"], item))
        tokens = valid_values(part["tokens"])
        rows.append(
            [
                item,
                len(part) - part["embedding"].null_count,
                f"{tokens.mean():.1f}" if tokens.size else "",
                pc.sum(part["truncated"]).as_py() or 0,
            ]
        )
    return {
        "scorer": scorer.model,
        "vectors": markdown_table(["item", "vectors", "mean tokens", "truncated"], rows),
    }


def caption_scores(_: Work, table: pa.Table, scorer: Scorer, captions: CaptionSources, long_captions: str) -> Metadata:
    """The similarities of each caption source: their means, distributions, and each captioner's next to the originals.

    Where long captions are scored sentence by sentence, also what each policy gives.
    """
    scores = {
        source: valid_values(table.filter(pc.equal(table["caption_source"], source))["similarity"])
        for source in captions.names
    }
    return {
        "scorer": scorer.model,
        "similarity": markdown_table(
            ["caption source", "captions", "mean", "median"],
            [
                [source, values.size, f"{values.mean():.3f}", f"{np.median(values):.3f}"]
                for source, values in scores.items()
                if values.size
            ],
        ),
        "distribution": picture(similarity_histogram(scores), "similarity of caption and image by source"),
        **_against_originals(table, captions),
        **_long_captions(table, long_captions),
    }


def further_caption_scores(_: Work, table: pa.Table, scorer: Scorer) -> Metadata:
    """How many further captions there are and of how many samples, and how well they fit."""
    values = valid_values(table["similarity"])
    found: Metadata = {
        "scorer": scorer.model,
        "captions": len(table),
        "samples": pc.count_distinct(table["uid"]).as_py(),
        "scored": values.size,
    }
    if values.size:
        found |= {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "truncated": pc.sum(table["truncated"]).as_py(),
            "distribution": picture(histograms({"similarity": values}), "similarity of further captions and images"),
        }
    return found


def _against_originals(table: pa.Table, captions: CaptionSources) -> Metadata:
    """The similarity of each image's original caption against that of each captioner's."""
    similarity = {
        source: table.filter(pc.equal(table["caption_source"], source))["similarity"].to_numpy()
        for source in captions.names
    }
    names = captions.captioners
    return {
        f"original_and_{name}": picture(
            original_vs_synthetic_scatter(similarity[ORIGINAL], similarity[name], name, names),
            f"similarity of the original caption and of {name}'s",
        )
        for name in names
    }


def _long_captions(table: pa.Table, policy: str) -> Metadata:
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
        "long_captions": policy,
        "too_long": markdown_table(["caption source", "too long", *policies], rows),
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
            drawn.append(Preference.of(found, independent=independent[a, b]))
            cells = [f"{one.above_a} / {one.above_b}" for one in found]
            proves = "yes" if independent[a, b] else "**no: this proves nothing**"
            rows.append([f"{a} / {b}", *cells, _ratio(found[0]), scorer, proves])
    above = ["above 70 %", "above 80 %", "above 90 %"]
    return {
        "preferred": markdown_table(["pair", *above, "times as often above 70 %", "scorer", "independent"], rows),
        "beating_the_original": markdown_table(["times as often", "scorer", *above], ratios),
        "counts": picture(preference_bars(drawn), "captions preferred above each threshold"),
    }


def _ratio(one: PreferenceComparison) -> str:
    return f"{one.ratio:.2f} ({one.ratio_low:.2f} to {one.ratio_high:.2f})" if np.isfinite(one.ratio) else ""


def sample_scores(work: Work, table: pa.Table, scorer: SampleScorer) -> Metadata:
    """How many samples have a score, how it is distributed, why others have none, and the images at both ends."""
    values = valid_values(table["score"])
    metadata: Metadata = {"scored": values.size, "unscored": len(table) - values.size}
    if licence := getattr(scorer, "licence", None):
        metadata["licence"] = licence
    if len(table) > values.size:
        reasons = value_counts(table["reason"].drop_null())
        metadata["reasons"] = markdown_table(["reason", "samples"], [*reasons.items()][:PREVIEW_ROWS])
    if values.size:
        lowest, median, highest = np.quantile(values, (0, 0.5, 1))
        metadata |= {"lowest": float(lowest), "median": float(median), "highest": float(highest)}
        metadata["distribution"] = picture(histograms({scorer.name: values}), f"{scorer.name} of all samples")
        metadata |= _ends(work, table)
    return metadata


def _ends(work: Work, table: pa.Table) -> Metadata:
    """The images with the highest and the lowest scores; nothing if none of them is there."""
    scores = table["score"].to_numpy()
    ranked = np.argsort(-scores, kind="stable")[: np.count_nonzero(~np.isnan(scores))]
    ends = {"highest_images": ranked[:_AT_AN_END], "lowest_images": ranked[::-1][:_AT_AN_END]}
    shown = np.unique(np.concatenate(list(ends.values())))
    files = work.read_rows("raw_samples", shown.tolist(), ["image"])["image"].to_pylist()
    image = {row: file["bytes"] for row, file in zip(shown.tolist(), files, strict=True) if file is not None}
    found: Metadata = {}
    for name, rows in ends.items():
        if there := [row for row in rows.tolist() if row in image]:
            notes = [f"{scores[row]:.3g}" for row in there]
            sheet = contact_sheet([image[row] for row in there], notes)
            found[name] = picture(sheet, f"images with the {name.partition('_')[0]} scores")
    return found


def text_quality(_: Work, table: pa.Table, captions: CaptionSources) -> Metadata:
    """How long the captions of each source are, in which language, and how many describe nothing."""
    rows, patterns = [], []
    for source in captions.names:
        part = table.filter(pc.equal(table["caption_source"], source))
        there = part.filter(pc.is_valid(part["words"]))
        means = [pc.mean(there[name]).as_py() for name in ("words", "special_ratio", "digit_ratio", "repetition")]
        sure = pc.greater(there["language_probability"], 0.5)
        foreign = pc.and_(sure, pc.not_equal(there["language"], ENGLISH))
        rows.append([source, len(there), percentage(foreign), *means])
        found = value_counts(pc.list_flatten(there["patterns"]))
        patterns += [[source, name, count, PATTERNS[name].meaning] for name, count in found.items()]
    header = ["caption source", "captions", "not English", "mean words", "special", "digits", "repetition"]
    return {
        "captions": markdown_table(header, rows),
        "patterns": markdown_table(["caption source", "pattern", "captions", "meaning"], patterns),
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
        "most_text": preview(shown, shown.column_names),
    }


def masked_similarity(work: Work, table: pa.Table, scorer: Scorer, text_detector: TextDetector) -> Metadata:
    """How much the scores of images with text lose without it, and those that lose most: as they are, and masked."""
    lost = pc.subtract(table["similarity"], table["masked_similarity"])
    rows = np.flatnonzero(pc.fill_null(pc.greater(table["text_area"], 0), fill_value=False).to_numpy())
    scored = rows[lost.is_valid().to_numpy()[rows]]
    most = scored[np.argsort(-lost.to_numpy()[scored], kind="stable")][: SHEET_IMAGES // 2]
    metadata: Metadata = {
        "scorer": scorer.model,
        "masked": len(rows),
        "mean_loss": pc.mean(lost.take(pa.array(rows))).as_py(),
    }
    if len(most):
        shown = np.sort(most)
        samples = work.read_rows("raw_samples", shown.tolist(), ["image"]).to_pylist()
        regions = work.read("image_text", ["regions"])["regions"].take(pa.array(shown)).to_pylist()
        scores = table.take(pa.array(shown)).to_pylist()
        files, notes = [], []
        for sample, found, score in zip(samples, regions, scores, strict=True):
            files += [sample["image"]["bytes"], masked_sample(sample, found, text_detector.fill)["image"]["bytes"]]
            notes += [f"as it is: {_rounded(score['similarity'])}", f"masked: {_rounded(score['masked_similarity'])}"]
        metadata["images"] = picture(contact_sheet(files, notes), "the images whose scores lose most, and masked")
    metadata |= _planted_text(work)
    return metadata


def _planted_text(work: Work) -> Metadata:
    """How well scores tell pictures with their caption drawn into them; nothing if nothing was planted."""
    raw = work.read("raw_samples", ["uid", "status", "reason", "width", "height", "truth"])
    if raw["truth"].null_count == len(raw):
        return {}
    figures = text_figures(raw, work.read("image_text", ["uid", "text_area"]), work.read(work.asset)).to_pylist()
    rows = [[row[name] for name in ("what", "metric", "value", "positives", "negatives")] for row in figures]
    return {"planted": markdown_table(["what", "metric", "value", "positives", "negatives"], rows)}


def _rounded(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def vqa_scores(work: Work, table: pa.Table, scorer: VqaScorer) -> Metadata:
    """The scores, how far the model answered as it was asked to, what it took, and what has no score."""
    values = valid_values(table["score"])
    busy = busy_seconds(table["finished_at"], table["seconds"])
    stored = work.store.get(work.asset, work.partition)
    reasons = value_counts(table["finish_reason"])
    metadata: Metadata = {
        "scorer": scorer.model,
        "scored": values.size,
        "mean": round(float(values.mean()), 4) if values.size else None,
        "mean_answered": pc.mean(table["answered"]).as_py(),
        "not_asked_for_the_cap": stored.stamp.facts.get("not_asked") if stored else None,
        "prompt_tokens": pc.sum(table["prompt_tokens"]).as_py() or 0,
        "completion_tokens": pc.sum(table["completion_tokens"]).as_py() or 0,
        "seconds_per_caption": round(busy / values.size, 4) if busy and values.size else None,
        "cost": pc.sum(table["cost"]).as_py(),
        "finish_reasons": markdown_table(["finish reason", "captions"], [*reasons.items()]),
        "errors": markdown_table(
            ["error", "captions"], [*value_counts(table["error"].drop_null()).items()][:PREVIEW_ROWS]
        ),
    }
    if values.size:
        metadata["distribution"] = picture(histograms({scorer.name: values}), "how true the captions are")
        metadata |= _ends(work, table)
    return metadata
