"""What people decided about the samples of each shard, and how well the captions fit that they wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import IMAGE
from dqe_assets.core.stage import MODEL_POOL, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.reviews import decide, log, metadata
from dqe_assets.reviews.tables import REVIEWED_CAPTION_SCORES, REVIEWS
from dqe_assets.reviews.views import RELATIONS
from dqe_assets.score.further_captions import further_caption_scores

if TYPE_CHECKING:
    from dqe_resources.scorers.protocol import Scorer


def _decisions(work: Work) -> Any:
    """Only the shards whose samples were decided about anew are made again."""
    return log.state_of(work.partition or "")


@stage(
    kinds={"parquet"},
    code_version="1",
    schema=REVIEWS,
    inputs=["raw_samples"],
    checks=[unique("uid"), complete()],
    metadata=metadata.reviews,
    signature=_decisions,
    relations=RELATIONS,
)
def reviews(work: Work) -> pa.Table:
    """What people decided with `dqe review`: what to keep, what to drop, tags and captions; with who, when and why.

    The latest decision about a sample holds, and the earlier ones are kept. Nothing is said of what is taken down.
    """
    samples = work.read("raw_samples", ["uid", "reason"])
    is_gone = pc.fill_null(pc.equal(samples["reason"], TAKEN_DOWN), fill_value=False)
    return decide.reviews(samples["uid"], is_gone, log.decisions(samples["uid"].combine_chunks()))


def reviewed_caption_scores_of(scorer: Scorer) -> Stage:
    """The asset ``reviewed_caption_scores``, by this scorer."""

    @stage(
        kinds={"parquet", scorer.kind},
        code_version="1",
        schema=REVIEWED_CAPTION_SCORES,
        inputs=["reviews", "joint_embeddings"],
        checks=[
            unique("uid"),
            finite("similarity", -1, 1),
            Check("coverage", "Every reviewed caption of an image that has a vector has a score.", _all_scored),
        ],
        metadata=metadata.reviewed_caption_scores,
        pool=MODEL_POOL,
        signature=lambda _, scorer: scorer.long_captions,
    )
    def reviewed_caption_scores(work: Work, scorer: Scorer) -> pa.Table:
        """The similarity of reviewed captions with their images. A shard without any loads no model."""
        captions = _captions(work)
        if not len(captions):
            return REVIEWED_CAPTION_SCORES.empty_table()
        captions = captions.append_column("place", pa.array([1] * len(captions), pa.int32()))
        scored = further_caption_scores(captions, _images(work), scorer, work.meter(len(captions)).advance)
        return scored.select(REVIEWED_CAPTION_SCORES.names).cast(REVIEWED_CAPTION_SCORES)

    return reviewed_caption_scores


def _captions(work: Work) -> pa.Table:
    """The uid and the caption of the samples that have a reviewed one."""
    table = work.read("reviews", ["uid", "caption"])
    return table.filter(pc.is_valid(table["caption"]))


def _images(work: Work) -> pa.Table:
    """The uid and the vector of the images that have one."""
    table = work.read("joint_embeddings", ["uid", "item", "embedding"])
    return table.filter(pc.and_(pc.equal(table["item"], IMAGE), pc.is_valid(table["embedding"])))


def _all_scored(work: Work, table: pa.Table) -> CheckResult:
    captions = _captions(work)
    due = captions["uid"].filter(pc.is_in(captions["uid"], value_set=_images(work)["uid"])) if len(captions) else []
    scored = table["uid"].filter(pc.is_valid(table["similarity"]))
    found = pc.sum(pc.is_in(due, value_set=scored)).as_py() if len(due) else 0
    return CheckResult(
        found == len(due) and len(table) == len(captions),
        f"{found:,} of {len(due):,} reviewed captions of images with a vector have a score; {len(table):,} rows for "
        f"{len(captions):,} captions",
        {"captions": len(due), "unscored": len(due) - found},
    )
