"""The truth of captions, as a vision-language model sees it: ``vqa_scores/<caption source>``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import source_captions
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.pictured import pictured
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, with_facts
from dqe_assets.score import metadata, vqa_views
from dqe_assets.score.sample_score_assets import SCORER_PREFIX
from dqe_assets.score.tables import VQA_SCORES
from dqe_assets.score.vqa_scores import NOT_ASKED, vqa_scores
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_resources.scorers.vqa import VqaScorer
    from dqe_resources.store import Stamp

VQA_PREFIX = "vqa_scores/"

ROWS_AT_ONCE = 16
"""Images read at once, in addition to the row group that they are in."""


def vqa_scores_of(caption_sources: Sequence[str], scorer: VqaScorer) -> list[Stage]:
    """The assets ``vqa_scores/<caption source>``, one for each source: another source makes none of them again."""
    return [_of_source(source, scorer) for source in caption_sources]


def _of_source(source: str, scorer: VqaScorer) -> Stage:
    def nothing_more_can_be_asked(_: Work, stamp: Stamp, scorer: VqaScorer) -> bool:
        return not stamp.facts["not_asked"] or stamp.facts["cap"] == asdict(scorer.cap)

    @stage(
        name=f"{VQA_PREFIX}{source}",
        kinds={"parquet", scorer.runs},
        code_version="1",
        schema=VQA_SCORES,
        inputs=["raw_samples", *([] if source == ORIGINAL else [SYNTHETIC_CAPTIONS_PREFIX + source])],
        resources={"scorer": f"{SCORER_PREFIX}{scorer.name}"},
        checks=[unique("uid"), complete(), finite("score", 0, 1), _scored(scorer.min_scored)],
        metadata=metadata.vqa_scores,
        relations=vqa_views.RELATIONS,
        signals={scorer.name: "score"} if source == ORIGINAL else {},
        pool=scorer.pool,
        is_valid=nothing_more_can_be_asked,
    )
    def scores(work: Work, scorer: VqaScorer) -> pa.Table:
        """How surely a vision-language model finds that each image shows what the caption of one source says.

        A shard that was interrupted, or that the cap cut short before it was raised, goes on with what is missing.
        """
        table = vqa_scores(
            work.read("raw_samples", ["uid"])["uid"],
            pictured(work).to_numpy(),
            source_captions(work, source),
            work.batches("raw_samples", ["image"], ROWS_AT_ONCE),
            scorer,
            known=_known(work),
            keep=work.checkpoint.append,
            track=work.track,
        )
        not_asked = pc.sum(pc.equal(table["finish_reason"], NOT_ASKED)).as_py() or 0
        return with_facts(table, {"not_asked": not_asked, "cap": asdict(scorer.cap)})

    return scores


def _known(work: Work) -> pa.Table:
    """Rows that were made from the same inputs in the same way."""
    known = [work.checkpoint.rows(VQA_SCORES)]
    with contextlib.suppress(StorageError):
        stored = work.store.get(work.asset, work.partition)
        if stored and stored.stamp.fingerprint == work.version and not work.force:
            known.append(work.read(work.asset))
    return pa.concat_tables(known)


def _scored(minimum: float) -> Check:
    def run(_: Work, table: pa.Table) -> CheckResult:
        asked = table.filter(pc.is_valid(table["attempts"]))
        scored = len(asked) - asked["score"].null_count
        share = scored / len(asked) if len(asked) else 1.0
        return CheckResult(
            share >= minimum,
            f"{scored:,} of {len(asked):,} captions asked about have a score ({share:.1%}, required: {minimum:.0%})",
            {"asked": len(asked), "scored": scored, "share": round(share, 4), "required": minimum},
        )

    return Check("answers_read", f"At least {minimum:.0%} of the answers have a score.", run)
