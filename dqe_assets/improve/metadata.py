"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.flags import FLAGS
from dqe_assets.core.metadata import (
    PREVIEW_ROWS,
    Markdown,
    Metadata,
    markdown_table,
    picture,
    preview,
    value_counts,
    with_interval,
)
from dqe_assets.improve import best_plots, judging_plots
from dqe_assets.improve.agreement import AGREEMENT_COLUMNS, MEASURES, agreement, means, rank_correlation
from dqe_assets.improve.refining_plots import similarity_before_and_after
from dqe_assets.improve.refining_views import rounds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dqe_assets.core.work import Work
    from dqe_resources.captioners.judge import Judge


def best_captions_of(truth: Sequence[str]) -> Callable[[Work, pa.Table], Metadata]:
    """Makes the metadata of best captions, with how far similarity and these assets of ``vqa_scores`` agree."""

    def best_captions(work: Work, table: pa.Table) -> Metadata:
        return {**_best_captions(table), **_agreement_of_scorers(work, truth)}

    return best_captions


def _agreement_of_scorers(work: Work, truth: Sequence[str]) -> Metadata:
    """Spearman's correlation of similarity and truth over the captions of each source; nothing without truth."""
    if not truth:
        return {}
    scores = work.read("caption_scores", ["uid", "caption_source", "similarity"])
    rows = []
    for asset in truth:
        source = asset.rpartition("/")[2]
        of_source = scores.filter(pc.equal(scores["caption_source"], source))
        both = work.read(asset, ["uid", "score"]).join(of_source, "uid", join_type="inner")
        both = both.filter(pc.and_(pc.is_valid(both["score"]), pc.is_valid(both["similarity"])))
        rows.append([source, len(both), rank_correlation(both["similarity"], both["score"])])
    return {"agreement_of_scorers": markdown_table(["caption source", "captions", "rank correlation"], rows)}


def _best_captions(table: pa.Table) -> Metadata:
    """Which sources the best captions are from and why, and how well they fit, next to the originals."""
    before, after = (
        table[name].cast(pa.float64()).fill_null(np.nan).to_numpy() for name in ("original_similarity", "similarity")
    )
    gain = (after - before)[np.isfinite(after - before)]
    reasons = Counter(zip(table["caption_source"].to_pylist(), table["reason"].to_pylist(), strict=True))
    return {
        "share_improved": round(float((gain > 0).mean()), 4) if gain.size else None,
        "mean_gain": round(float(gain.mean()), 4) if gain.size else None,
        "not_independent": pc.sum(pc.equal(table["independent"], False)).as_py() or 0,
        "reasons": markdown_table(["caption source", "reason", "samples"], [[*k, n] for k, n in reasons.most_common()]),
        "before_and_after": picture(
            best_plots.before_and_after(before, after, pc.fill_null(table["independent"], True).to_numpy()),
            "similarity of the original captions, and of the best",
        ),
        "preview": preview(table, ["caption_source", "caption", "similarity", "reason", "runner_up_source"]),
    }


def caption_judgements(work: Work, table: pa.Table, judge: Judge) -> Metadata:
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
    reasons = value_counts(requests["finish_reason_first"])
    cost = pc.sum(requests["cost_first"]).as_py()
    return {
        "judge": judge.model,
        "samples_drawn": facts.get("drawn"),
        "samples_judged": len(pc.unique(judged["uid"])),
        "not_asked_for_the_cap": facts.get("not_asked"),
        "unparsable": reasons.get("unparsable", 0),
        "errors": markdown_table(["error", "samples"], _errors(table)),
        "flags": markdown_table(
            ["flag", "samples", "meaning"],
            [[flag, count, FLAGS[flag]] for flag, count in value_counts(_flags(table)).items()],
        ),
        "requests": pc.sum(requests["attempts_first"]).as_py() or 0,
        "prompt_tokens": pc.sum(requests["prompt_tokens_first"]).as_py() or 0,
        "completion_tokens": pc.sum(requests["completion_tokens_first"]).as_py() or 0,
        "cost": None if cost is None else round(cost, 6),
        "marks": picture(judging_plots.marks_by_source(by_source), "mean marks of each caption source"),
        "means": _judged_table(by_source, "caption_source"),
        "by_place": _judged_table(means(judged, "place"), "place"),
        "agreement": markdown_table(AGREEMENT_COLUMNS, [list(row.values()) for row in agreement(scored).to_pylist()]),
        "preview": preview(judged, ["caption_source", *MEASURES]),
    }


def _flags(table: pa.Table) -> pa.ChunkedArray:
    """The flags of all requests."""
    return pc.list_flatten(table.filter(pc.equal(table["place"], 1))["flags"])


def _errors(table: pa.Table) -> list[tuple[str, int]]:
    failed = (
        table.filter(pc.is_valid(table["error"])).group_by("uid", use_threads=False).aggregate([("error", "first")])
    )
    return list(value_counts(failed["error_first"]).items())[:PREVIEW_ROWS]


def _judged_table(table: pa.Table, by: str) -> Markdown:
    rows = [
        [row[by], row["judged"], *(with_interval(row, measure) for measure in MEASURES)] for row in table.to_pylist()
    ]
    return markdown_table([by, "judged", *MEASURES], rows)


def refined_captions_of(*, independent: bool) -> Callable[[Work, pa.Table], Metadata]:
    """What is shown of captions that were asked for again; a gain that is not independent proves nothing."""
    return lambda _, table: _refined_captions(table, independent=independent)


def _refined_captions(table: pa.Table, *, independent: bool) -> Metadata:
    """What each round gained and cost, whether that proves anything, and answers next to the captions before."""
    rounds = rounds_of(table)
    accepted = table.filter(table["accepted"])
    return {
        "asked": len(pc.unique(table["uid"])),
        "refined": len(pc.unique(accepted["uid"])),
        "independent": independent
        or Markdown(
            "**no: the scorer shares a backbone with the captioner, or with the labels that the prompt says "
            "(`labels: 0` leaves them out); a higher similarity then proves nothing**"
        ),
        "rounds": markdown_table(rounds.column_names[1:], [list(row.values())[1:] for row in rounds.to_pylist()]),
        "similarity": picture(similarity_before_and_after(table), "similarity before the first round and after each"),
        "reasons": markdown_table(
            ["reason", "answers asked for"], list(value_counts(table["reason"]).items())[:PREVIEW_ROWS]
        ),
        "vetoes": markdown_table(["veto", "answers"], list(value_counts(table["veto"].drop_null()).items())),
        "errors": markdown_table(
            ["error", "answers"], list(value_counts(table["error"].drop_null()).items())[:PREVIEW_ROWS]
        ),
        "preview": preview(accepted, ["round", "reason", "previous_similarity", "similarity", "caption"]),
    }
