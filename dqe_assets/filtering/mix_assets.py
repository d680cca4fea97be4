"""The assets ``caption_thresholds`` and ``mixed_captions/<name>``: original and synthetic captions, mixed by a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, stored_input, with_facts
from dqe_assets.filtering import metadata
from dqe_assets.filtering.caption_mix import fitting, mixed_captions
from dqe_assets.filtering.filters.top_fraction import top_threshold
from dqe_assets.filtering.mix_views import RELATIONS
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.tables import CAPTION_THRESHOLDS, MIXED_CAPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.filtering.settings import CaptionMix

THRESHOLDS = "caption_thresholds"
MIXED_PREFIX = "mixed_captions/"

_LEAST = -1.0


def _independent(_: Work, table: pa.Table, shared: Sequence[str]) -> CheckResult:
    proves_nothing = sorted({*table["captioner"].to_pylist()} & {*shared})
    return CheckResult(
        not proves_nothing,
        f"captioners that share a backbone with the scorer: {', '.join(proves_nothing) or 'none'}",
        {"captioners": len(proves_nothing)},
    )


def caption_mixes_of(mixes: Sequence[CaptionMix]) -> list[Stage]:
    """The assets of some mixes: their thresholds, and the captions of each."""
    if not mixes:
        return []
    written = dict.fromkeys(f"{SYNTHETIC_CAPTIONS_PREFIX}{mix.captioner}" for mix in mixes)

    @stage(
        name=THRESHOLDS,
        kinds={"parquet", "numpy"},
        code_version="1",
        schema=CAPTION_THRESHOLDS,
        inputs=["raw_samples", "reviews", *written, "caption_scores"],
        partitioned=False,
        resources={"shared": "captions.shared"},
        signature=lambda _: [mix.model_dump() for mix in mixes],
        checks=[
            unique("name"),
            Check(
                "independent",
                "The scorer shares no backbone with a captioner: else its similarities prove nothing.",
                _independent,
                blocking=False,
            ),
        ],
        metadata=metadata.caption_thresholds,
    )
    def caption_thresholds(work: Work, shared: Sequence[str]) -> pa.Table:  # noqa: ARG001 - the check reads it
        """The similarity that each mix of captions asks for, and how many captions of each source reach it.

        It is that of the best original captions of all shards, by the mix's ``fraction``, without the samples that
        people decided to drop.
        """
        pool = StorePool(work.store, work.shards)
        rows = []
        for mix in mixes:
            found = top_threshold([pool], "similarity", mix.fraction)
            # Where every original is to be kept, whatever its score, any similarity is enough.
            threshold = _LEAST if found is None else found
            rows.append({**mix.model_dump(), "threshold": threshold, **_counted(work, pool, mix, threshold)})
        facts = {row["name"]: [row["captioner"], row["threshold"]] for row in rows}
        return with_facts(pa.Table.from_pylist(rows, CAPTION_THRESHOLDS), facts)

    return [caption_thresholds, *map(_mixed_captions_of, mixes)]


def _mixed_captions_of(mix: CaptionMix) -> Stage:
    written = f"{SYNTHETIC_CAPTIONS_PREFIX}{mix.captioner}"

    def threshold(work: Work) -> Any:
        return stored_input(work, THRESHOLDS, None).stamp.facts[mix.name]

    @stage(
        name=f"{MIXED_PREFIX}{mix.name}",
        kinds={"parquet", "numpy"},
        code_version="1",
        schema=MIXED_CAPTIONS,
        relations=RELATIONS,
        inputs=["raw_samples", "reviews", written, "caption_scores"],
        unpartitioned_inputs=[THRESHOLDS],
        # A shard more that leaves the threshold as it is changes no other shard.
        depends=threshold,
        checks=[unique("uid"), complete(), finite("similarity", -1, 1)],
        metadata=metadata.mixed_captions,
    )
    def make(work: Work) -> pa.Table:
        """The original caption where it is among the best that fit, else the synthetic one where it fits as well.

        A sample with neither has none, and is left out where it would be trained with, as is one that a person decided
        to drop.
        """
        (part,) = StorePool(work.store, work.shards).parts
        return mixed_captions(
            work.read("raw_samples", ["uid", "caption"]),
            part.is_in,
            work.read(written, ["caption"]),
            work.read("caption_scores", ["uid", "caption_source", "similarity"]),
            *threshold(work),
        )

    return make


def _counted(work: Work, pool: StorePool, mix: CaptionMix, threshold: float) -> dict[str, int]:
    """How many samples are in the pool, and how many of them get which caption."""
    counts = dict.fromkeys(("samples", "original", "synthetic", "dropped"), 0)
    for part in pool.parts:
        of_shard = work.of_shard(part.name)
        raw = of_shard.read("raw_samples", ["caption"])
        synthetic = of_shard.read(f"{SYNTHETIC_CAPTIONS_PREFIX}{mix.captioner}", ["caption"])
        scores = of_shard.read("caption_scores", ["caption_source", "similarity"])
        original, other = (
            fitting(
                texts, scores.filter(pc.equal(scores["caption_source"], source))["similarity"], part.is_in, threshold
            )
            for source, texts in ((ORIGINAL, raw["caption"]), (mix.captioner, synthetic["caption"]))
        )
        counts["samples"] += part.rows
        counts["original"] += int(np.count_nonzero(original))
        counts["synthetic"] += int(np.count_nonzero(other & ~original))
    counts["dropped"] = counts["samples"] - counts["original"] - counts["synthetic"]
    return counts
