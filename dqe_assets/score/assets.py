"""The fourth stage: how well every caption fits its image, and which of two fits better."""

from __future__ import annotations

from dataclasses import astuple
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets import describe
from dqe_assets.checks import complete, finite, unique
from dqe_assets.schemas import IMAGE, ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX, schema_of
from dqe_assets.score import alignment
from dqe_assets.stage import MODEL_POOL, Check, Stage, Verdict, Work, stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.score.imported import PreferenceImport
    from dqe_resources.scorers.protocol import Scorer

ROWS_AT_ONCE = 64
"""Rows read at once, with their images."""


def _every_caption_scored(work: Work, table: pa.Table) -> Verdict:
    embeddings = work.read("joint_embeddings", ["uid", "item", "embedding"])
    embedded = embeddings.filter(pc.and_(pc.equal(embeddings["item"], IMAGE), pc.is_valid(embeddings["embedding"])))
    due = table.filter(pc.and_(pc.is_in(table["uid"], value_set=embedded["uid"]), pc.is_valid(table["tokens"])))
    unscored = due["similarity"].null_count
    return Verdict(
        unscored == 0,
        f"{due.num_rows - unscored:,} of {due.num_rows:,} captions of samples with an image have a score",
        {"captions": due.num_rows, "unscored": unscored},
    )


def joint_embeddings_of(caption_sources: Sequence[str], scorer: Scorer) -> Stage:
    """The asset ``joint_embeddings``, over the images and these caption sources."""
    synthetic = [SYNTHETIC_CAPTIONS_PREFIX + source for source in caption_sources if source != ORIGINAL]

    @stage(
        group="scores",
        kinds={"parquet", scorer.kind},
        code_version="2",
        inputs=dict.fromkeys(("raw_samples", *scorer.requires, *synthetic)),
        checks=[
            unique("uid", "item"),
            complete(rows_each=len(caption_sources) + 1),
            finite("embedding", -1, 1),
        ],
        describe=describe.joint_embeddings,
        pool=MODEL_POOL,
        # Mean and highest are of the same vectors.
        signature=lambda work: [
            work.settings.caption_sources,
            work.settings.scorer.long_captions == alignment.TRUNCATE,
        ],
    )
    def joint_embeddings(work: Work, scorer: Scorer) -> pa.Table:
        """Every image and every caption as a unit vector in the scorer's joint space.

        Of a caption longer than the text encoder reads it is that of the beginning; where the scorer's policy is to
        score sentences, each of its sentences has a vector too.
        """
        raw = work.read("raw_samples", ["uid", "status"])
        has_image = raw["status"].to_numpy() == "ok"
        captions = work.captions()
        (asset,) = scorer.requires
        samples = work.store.batches(asset, work.partition, schema_of(asset), scorer.columns, ROWS_AT_ONCE)
        total = has_image.sum() + sum(len(texts) - texts.null_count for texts in captions.values())
        progress = work.meter(int(total)).advance
        return alignment.joint_embeddings(raw["uid"], samples, has_image, captions, scorer, progress)

    return joint_embeddings


def caption_scores_of(caption_sources: Sequence[str]) -> Stage:
    """The asset ``caption_scores``, over these caption sources."""

    @stage(
        group="scores",
        kinds={"parquet", "numpy"},
        code_version="2",
        inputs=["joint_embeddings"],
        checks=[
            unique("uid", "caption_source"),
            complete(rows_each=len(caption_sources), of="joint_embeddings"),
            Check("coverage", "Every caption of a sample with an image has a score.", _every_caption_scored),
            finite("similarity", -1, 1),
        ],
        describe=describe.caption_scores,
        signature=lambda work: work.settings.scorer.long_captions,
    )
    def caption_scores(work: Work) -> pa.Table:
        """The similarity of every caption with its image, with its tokens and whether it was cut.

        A caption that is too long for the encoder is scored by ``scorer.long_captions``; what each policy would give
        stands beside it.
        """
        policy = work.settings.scorer.long_captions
        return alignment.caption_scores(work.read("joint_embeddings"), caption_sources, policy)

    return caption_scores


def caption_preference_of(caption_sources: Sequence[str], imports: Sequence[PreferenceImport]) -> Stage:
    """The asset ``caption_preference``, over all pairs of these caption sources; some pairs' rows are imported."""
    pairs = list(combinations(caption_sources, 2))
    stored = {one.pair: one for one in imports}

    def preferring(work: Work) -> list[alignment.Preferring]:
        found = []
        for pair in pairs:
            scorer = stored.get(frozenset(pair))
            if scorer:
                name, sharing = scorer.scorer, work.settings.sharing_backbones(frozenset(scorer.image_backbones))
            else:
                name, sharing = work.settings.scorer.model, work.settings.judged_by_their_own
            found.append(alignment.Preferring(*pair, name, sharing.isdisjoint(pair)))
        return found

    def imported(work: Work) -> dict[tuple[str, str], tuple[pa.Array, pa.Array]]:
        found = {}
        for a, b in pairs:
            if scorer := stored.get(frozenset((a, b))):
                first, second = scorer.probabilities(work.read("raw_samples", [scorer.key])[scorer.key].to_pylist())
                found[a, b] = (first, second) if scorer.source_a == a else (second, first)
        return found

    def signature(work: Work) -> Any:
        return [[astuple(pair) for pair in preferring(work)], [one.signature() for one in imports]]

    @stage(
        group="scores",
        kinds={"parquet", "numpy"},
        code_version="2",
        inputs=["caption_scores", *(["raw_samples"] if imports else [])],
        checks=[
            unique("uid", "source_a", "source_b"),
            complete(rows_each=len(pairs), of="caption_scores"),
            finite("probability_a", 0, 1),
        ],
        describe=describe.caption_preference,
        signature=signature,
    )
    def caption_preference(work: Work, scorer: Scorer) -> pa.Table:
        """For each pair of caption sources, the probability that the image goes with the one and not the other.

        Where ``independent`` is false, the scorer shares a backbone with a captioner: it then looks for what that
        captioner wrote down, and its preference proves nothing. Probabilities of ``preference_imports`` take the place
        of the scorer's.
        """
        scale = scorer.logit_scale
        return alignment.caption_preference(work.read("caption_scores"), preferring(work), scale, imported(work))

    return caption_preference
