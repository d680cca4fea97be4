"""The best caption of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.flags import UNGROUNDED
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.improve import best, metadata
from dqe_assets.improve.best_views import RELATIONS
from dqe_assets.improve.tables import BEST_CAPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.improve.best_settings import BestRule


_SIGNALS = {
    "caption_judgements": ("judgements", ["uid", "caption_source", "overall"]),
    "refined_captions": ("refined", ["uid", "round", "caption", "flags", "similarity", "accepted"]),
}
"""Assets that are taken into account where there are such: the argument, and the columns that are read."""


def _never_worse(_: Work, table: pa.Table, rule: BestRule) -> CheckResult:
    worse = best.below_runner_up(table, rule)
    return CheckResult(
        worse == 0, f"{worse:,} of {table.num_rows:,} captions are worse than the next best", {"worse": worse}
    )


def best_captions_of(synthetic: Sequence[Stage], signals: Sequence[str], truth: Sequence[Stage]) -> Stage:
    """The asset ``best_captions``, chosen among the originals and the captions of these stages.

    Args:
        synthetic: the captioners' stages.
        signals: which of ``text_quality``, ``grounding``, ``caption_judgements`` and ``refined_captions`` there are.
        truth: the stages of ``vqa_scores``.
    """

    @stage(
        kinds={"parquet", "numpy"},
        relations=RELATIONS,
        code_version="1",
        schema=BEST_CAPTIONS,
        resources={"rule": "best", "shared": "captions.shared"},
        inputs=[
            *("raw_samples", "reviews", "reviewed_caption_scores"),
            *(one.name for one in (*synthetic, *truth)),
            *("caption_scores", *signals),
        ],
        checks=[
            unique("uid"),
            complete(),
            finite("similarity", -1, 1),
            Check("never_worse", "No caption is worse than the next best, by what is said to decide.", _never_worse),
        ],
        metadata=metadata.best_captions_of([one.name for one in truth]),
    )
    def best_captions(work: Work, rule: BestRule, shared: Sequence[str]) -> pa.Table:
        """One caption for each sample, by the rule ``best`` of data/dqe.yaml, with the reason and the next best.

        A caption that a person wrote or chose comes before the rule.
        Where ``independent`` is false, the scorer shares a backbone with the captioner, and its choice proves nothing.
        """
        return best.best_captions(
            work.read("raw_samples", ["uid", "status", "caption"]),
            {
                captions.name.removeprefix(SYNTHETIC_CAPTIONS_PREFIX): work.read(captions.name, ["caption", "flags"])
                for captions in synthetic
            },
            _scores(work, [one.name for one in truth]),
            rule,
            shared=frozenset(shared),
            quality=_quality(work, signals),
            reviewed=_reviewed(work),
            **{_SIGNALS[name][0]: work.read(name, _SIGNALS[name][1]) for name in signals if name in _SIGNALS},
        )

    return best_captions


def _reviewed(work: Work) -> pa.Table:
    """uid, caption and similarity of the captions that people wrote or chose."""
    captions = work.read("reviews", ["uid", "caption"])
    scores = work.read("reviewed_caption_scores", ["uid", best.SIMILARITY])
    captions = captions.filter(pc.is_valid(captions["caption"]))
    return captions.append_column(
        best.SIMILARITY, scores[best.SIMILARITY].take(pc.index_in(captions["uid"], value_set=scores["uid"]))
    )


def _quality(work: Work, signals: Sequence[str]) -> pa.Table:
    """uid, caption_source and patterns of all captions; ``ungrounded`` is one of them where grounding says so."""
    quality = work.read("text_quality", ["uid", "caption_source", "patterns"])
    if "grounding" not in signals:
        return quality
    grounding = work.read("grounding", ["uid", "caption_source", "flagged"])
    flagged = grounding.filter(pc.fill_null(grounding["flagged"], fill_value=False)).to_pylist()
    ungrounded = {(row["uid"], row["caption_source"]) for row in flagged}
    patterns = [
        [*(row["patterns"] or ()), UNGROUNDED] if (row["uid"], row["caption_source"]) in ungrounded else row["patterns"]
        for row in quality.to_pylist()
    ]
    return quality.set_column(2, "patterns", pa.array(patterns, pa.list_(pa.string())))


def _scores(work: Work, truth: Sequence[str]) -> pa.Table:
    """uid, caption_source and similarity of all captions; and vqa, if these are the assets of ``vqa_scores``."""
    keys = ["uid", "caption_source"]
    scores = work.read("caption_scores", [*keys, best.SIMILARITY])
    said = []
    for asset in truth:
        found = work.read(asset, ["uid", "score"])
        source = pa.repeat(asset.rpartition("/")[2], len(found))
        said.append(found.rename_columns(["uid", best.VQA]).append_column("caption_source", source))
    return scores.join(pa.concat_tables(said), keys) if said else scores
