"""What must hold of concept hits, of their frequencies, and of what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.kept_hits import corpus_hits
from dqe_assets.concepts.settings import caption_source_of
from dqe_assets.core.schema import IMAGE, has_image
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.reviews.decide import dropped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.concepts.settings import ConceptLists


def _every_image_tagged(work: Work, table: pa.Table) -> CheckResult:
    raw = work.read("raw_samples", ["uid", "status"])
    pictured = raw.filter(has_image(raw))["uid"]
    tagged = table.filter(pc.and_(pc.equal(table["item"], IMAGE), pc.is_valid(table["concepts"])))["uid"]
    missing = pc.sum(pc.invert(pc.is_in(pictured, value_set=tagged))).as_py() or 0
    surplus = len(tagged) + missing - len(pictured)
    return CheckResult(
        missing == surplus == 0,
        f"{len(pictured):,} samples with an image, {missing} of them without tags, {surplus} others with tags",
        {"images": len(pictured), "untagged": missing, "surplus": surplus},
    )


def _known_concepts(_: Work, table: pa.Table, lists: ConceptLists) -> CheckResult:
    known = pa.array(lists.counting().concepts.names)
    found = pc.unique(table["concepts"].combine_chunks().flatten())
    unknown = found.filter(pc.invert(pc.is_in(found, value_set=known))).to_pylist()
    first = f", first {unknown[0]}" if unknown else ""
    return CheckResult(
        not unknown,
        f"{len(found):,} of {len(known):,} concepts are shown, and {len(unknown)} that are no concept{first}",
        {"shown": len(found), "unknown": len(unknown)},
    )


def _every_concept(_: Work, table: pa.Table, lists: ConceptLists, captions: CaptionSources) -> CheckResult:
    expected = len(lists.counting().concepts.names)
    counts: Mapping[str, int] = {row["values"]: row["counts"] for row in pc.value_counts(table["item"]).to_pylist()}
    wrong = [item for item in (*captions.names, IMAGE) if counts.get(item) != expected]
    return CheckResult(
        not wrong,
        f"{expected:,} concepts; of another number: {', '.join(wrong) or 'none'}",
        {"concepts": expected, "wrong": ", ".join(wrong)},
    )


def _counts_add_up(_: Work, table: pa.Table) -> CheckResult:
    samples, searched = table["samples"].to_numpy(), table["searched"].to_numpy()
    agreed = table["agreed"].fill_null(0).to_numpy()
    wrong = int(((samples < 0) | (samples > searched) | (agreed < 0) | (agreed > samples)).sum())
    return CheckResult(
        wrong == 0,
        f"{len(samples):,} counts, {wrong} with more samples than were searched, or that agree more often than shown",
        {"counts": len(samples), "wrong": wrong},
    )


def _misaligned_are_listed(_: Work, table: pa.Table) -> CheckResult:
    samples, compared, misaligned = (table[name].to_numpy() for name in ("samples", "comparable", "misaligned"))
    listed = pc.list_value_length(table["misaligned_uids"]).to_numpy()
    wrong = int(((misaligned != listed) | (misaligned > compared) | (compared > samples)).sum())
    return CheckResult(
        wrong == 0,
        f"{misaligned.sum():,} of {samples.sum():,} captions are misaligned, {wrong} shards list another number",
        {"misaligned": int(misaligned.sum()), "wrong": wrong},
    )


def _more_is_better(_: Work, table: pa.Table) -> CheckResult:
    worst = table.sort_by("slope").slice(0, 1).to_pylist()[0]
    return CheckResult(
        worst["slope"] > 0 and (worst["r"] or 0) > 0,
        f"the flattest line, of {worst['model']}: slope {worst['slope']:.4f}, r {worst['r'] or float('nan'):.3f}",
        {"model": worst["model"], "slope": worst["slope"], "r": worst["r"]},
    )


def _bill_adds_up(_: Work, table: pa.Table) -> CheckResult:
    reached = table["predicted_accuracy"].to_numpy() >= table["target_accuracy"].to_numpy()
    needed = table["samples_needed"].to_numpy()
    wrong = int(((needed > 0) == reached).sum()) + int(np.isnan(needed).sum())
    return CheckResult(
        wrong == 0,
        f"{int(reached.sum()):,} of {len(reached):,} concepts reach the target, {wrong} need samples and reach it, or "
        "need none and do not",
        {"reached": int(reached.sum()), "wrong": wrong},
    )


def dropped_uids(work: Work) -> pa.Array:
    """Uids of the samples that people decided to drop."""
    # Of most shards nothing was decided, and their uids need not be read.
    reviewed = (work.of_shard(shard) for shard in work.shards)
    decided = (one for one in reviewed if (found := one.read("reviews", ["review"])["review"]).null_count < len(found))
    return dropped(one.read("reviews", ["uid", "review"]) for one in decided)


def _samples_with_image_and_caption(
    work: Work, table: pa.Table, lists: ConceptLists, captions: CaptionSources, count_by: str
) -> CheckResult:
    gone, expected = dropped_uids(work), 0
    for shard in corpus_hits(work, lists, captions).shards():
        there = pa.array(shard.there[IMAGE] & shard.there[caption_source_of(count_by)])
        expected += pc.sum(pc.invert(pc.is_in(shard.uids.filter(there), value_set=gone))).as_py() or 0
    return CheckResult(
        expected == table.num_rows,
        f"{expected:,} samples have an image and a caption and are not dropped, {table.num_rows:,} are here",
        {"expected": expected, "found": table.num_rows},
    )


def _weights_within_cap(_: Work, table: pa.Table, cap: float) -> CheckResult:
    weights = table["weight"].to_numpy()
    total, most = float(weights.sum()), float(weights.max(initial=0))
    passed = bool(np.isclose(total, len(weights)) and (weights > 0).all() and most <= cap * (1 + 1e-9))
    return CheckResult(
        passed,
        f"{total:,.1f} draws of {len(weights):,} samples, {most:.2f} of one at most, {cap:g} allowed",
        {"draws": total, "most": most, "cap": cap},
    )


def _ranks_are_an_order(_: Work, table: pa.Table) -> CheckResult:
    ranks, difficulty = table["rank"].to_numpy(), table["difficulty"].to_numpy()
    order = np.argsort(ranks)
    whole = np.array_equal(ranks[order], np.arange(1, len(ranks) + 1))
    easier = int((np.diff(difficulty[order]) < 0).sum())
    return CheckResult(
        whole and easier == 0,
        f"the ranks {'are' if whole else 'are not'} 1 to {len(ranks):,}, {easier} are easier than the one before",
        {"whole": whole, "easier": easier},
    )


every_image_tagged = Check(
    "coverage", "Every sample with an image has been looked at for concepts, and no other.", _every_image_tagged
)
known_concepts = Check("known_concepts", "What is shown is in the vocabulary.", _known_concepts)
every_concept = Check("every_concept", "Every concept is counted in images and in each caption source.", _every_concept)
counts_add_up = Check("counts_add_up", "No concept is shown more often than samples were searched.", _counts_add_up)
misaligned_are_listed = Check(
    "misaligned_listed", "Each misaligned sample is listed, and could be compared.", _misaligned_are_listed
)
more_is_better = Check(
    "more_is_better",
    "Accuracy grows with frequency: otherwise the plan says nothing.",
    _more_is_better,
    blocking=False,
)
bill_adds_up = Check("bill_adds_up", "Samples are needed where the target is missed, and only there.", _bill_adds_up)
samples_with_image_and_caption = Check(
    "rows_complete",
    "Every sample with an image and a caption that nobody decided to drop is there, and no other.",
    _samples_with_image_and_caption,
)
weights_within_cap = Check(
    "weights_within_cap", "Draws are moved between samples, none added, none above the cap.", _weights_within_cap
)
ranks_are_an_order = Check(
    "ranks_an_order", "The ranks go from 1 up, and no sample is easier than the one before.", _ranks_are_an_order
)
