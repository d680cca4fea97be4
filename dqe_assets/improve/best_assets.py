"""The best caption of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, Verdict, Work
from dqe_assets.improve import best, metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa


_SIGNALS = {
    "text_quality": ("quality", ["uid", "caption_source", "patterns"]),
    "caption_judgements": ("judgements", ["uid", "caption_source", "overall"]),
    "refined_captions": ("refined", ["uid", "round", "caption", "flags", "similarity", "accepted"]),
}
"""Assets that are taken into account where there are such: the argument, and the columns that are read."""


def _never_worse(work: Work, table: pa.Table) -> Verdict:
    worse = best.below_runner_up(table, work.settings.best)
    return Verdict(
        worse == 0, f"{worse:,} of {table.num_rows:,} captions are worse than the next best", {"worse": worse}
    )


def best_captions_of(synthetic: Sequence[Stage], signals: Sequence[str]) -> Stage:
    """The asset ``best_captions``, chosen among the originals and the captions of these stages.

    Args:
        synthetic: the captioners' stages.
        signals: which of ``text_quality``, ``caption_judgements`` and ``refined_captions`` there are.
    """

    def signature(work: Work) -> Any:
        return [work.settings.best.model_dump(mode="json"), sorted(work.settings.judged_by_their_own)]

    @stage(
        group="scores",
        kinds={"parquet", "numpy"},
        code_version="1",
        inputs=["raw_samples", *(captions.name for captions in synthetic), "caption_scores", *signals],
        checks=[
            unique("uid"),
            complete(),
            finite("similarity", -1, 1),
            Check("never_worse", "No caption is worse than the next best, by what is said to decide.", _never_worse),
        ],
        metadata=metadata.best_captions,
        signature=signature,
    )
    def best_captions(work: Work) -> pa.Table:
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
            work.settings.best,
            shared=work.settings.judged_by_their_own,
            **{_SIGNALS[name][0]: work.read(name, _SIGNALS[name][1]) for name in signals},
        )

    return best_captions
