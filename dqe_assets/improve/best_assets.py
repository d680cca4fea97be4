"""The best caption of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.improve import best, metadata
from dqe_assets.improve.best_views import RELATIONS
from dqe_assets.improve.tables import BEST_CAPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from dqe_assets.improve.best_settings import BestRule


_SIGNALS = {
    "text_quality": ("quality", ["uid", "caption_source", "patterns"]),
    "caption_judgements": ("judgements", ["uid", "caption_source", "overall"]),
    "refined_captions": ("refined", ["uid", "round", "caption", "flags", "similarity", "accepted"]),
}
"""Assets that are taken into account where there are such: the argument, and the columns that are read."""


def _never_worse(_: Work, table: pa.Table, rule: BestRule) -> CheckResult:
    worse = best.below_runner_up(table, rule)
    return CheckResult(
        worse == 0, f"{worse:,} of {table.num_rows:,} captions are worse than the next best", {"worse": worse}
    )


def best_captions_of(synthetic: Sequence[Stage], signals: Sequence[str]) -> Stage:
    """The asset ``best_captions``, chosen among the originals and the captions of these stages.

    Args:
        synthetic: the captioners' stages.
        signals: which of ``text_quality``, ``caption_judgements`` and ``refined_captions`` there are.
    """

    @stage(
        kinds={"parquet", "numpy"},
        relations=RELATIONS,
        code_version="1",
        schema=BEST_CAPTIONS,
        resources={"rule": "best", "shared": "captions.shared"},
        inputs=["raw_samples", *(captions.name for captions in synthetic), "caption_scores", *signals],
        checks=[
            unique("uid"),
            complete(),
            finite("similarity", -1, 1),
            Check("never_worse", "No caption is worse than the next best, by what is said to decide.", _never_worse),
        ],
        metadata=metadata.best_captions,
    )
    def best_captions(work: Work, rule: BestRule, shared: Sequence[str]) -> pa.Table:
        """One caption for each sample, by the rule ``best`` of data/dqe.yaml, with the reason and the next best.

        Where ``independent`` is false, the scorer shares a backbone with the captioner, and its choice proves nothing.
        """
        return best.best_captions(
            work.read("raw_samples", ["uid", "status", "caption"]),
            {
                captions.name.removeprefix(SYNTHETIC_CAPTIONS_PREFIX): work.read(captions.name, ["caption", "flags"])
                for captions in synthetic
            },
            work.read("caption_scores", ["uid", "caption_source", "similarity"]),
            rule,
            shared=frozenset(shared),
            **{_SIGNALS[name][0]: work.read(name, _SIGNALS[name][1]) for name in signals},
        )

    return best_captions
