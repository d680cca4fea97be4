"""The fourth stage: how well every caption fits its image, and which of two fits better."""

from __future__ import annotations

from dataclasses import astuple
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import shard_captions
from dqe_assets.core.checks import complete, covered, finite, unique, without_faults
from dqe_assets.core.schema import IMAGE, ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import MODEL_POOL, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.score import alignment, further_captions, metadata, signal_views, views
from dqe_assets.score.alignment import ROWS_AT_ONCE
from dqe_assets.score.image_text import image_text as text_in_images
from dqe_assets.score.masked_similarity import AT_ONCE
from dqe_assets.score.masked_similarity import masked_similarity as scores_without_text
from dqe_assets.score.tables import (
    CAPTION_PREFERENCE,
    CAPTION_SCORES,
    FURTHER_CAPTION_SCORES,
    IMAGE_TEXT,
    JOINT_EMBEDDINGS,
    MASKED_SIMILARITY,
    TEXT_QUALITY,
)
from dqe_assets.score.text_quality import text_quality as measured_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.score.imported import PreferenceImport
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.models.text_detector import TextDetector
    from dqe_resources.scorers.protocol import LongCaptions, Scorer


def _every_caption_scored(work: Work, table: pa.Table) -> CheckResult:
    embeddings = work.read("joint_embeddings", ["uid", "item", "embedding"])
    embedded = embeddings.filter(pc.and_(pc.equal(embeddings["item"], IMAGE), pc.is_valid(embeddings["embedding"])))
    due = table.filter(pc.and_(pc.is_in(table["uid"], value_set=embedded["uid"]), pc.is_valid(table["tokens"])))
    unscored = due["similarity"].null_count
    return CheckResult(
        unscored == 0,
        f"{due.num_rows - unscored:,} of {due.num_rows:,} captions of samples with an image have a score",
        {"captions": due.num_rows, "unscored": unscored},
    )


@stage(
    kinds={"parquet", "onnx"},
    code_version="1",
    schema=IMAGE_TEXT,
    inputs=["raw_samples", "image_features"],
    resources={"detector": "image_text"},
    checks=[
        unique("uid"),
        complete(),
        covered(["regions"], "been looked at for text"),
        finite("text_area", 0, 1),
        without_faults(),
    ],
    metadata=metadata.image_text,
    pool=MODEL_POOL,
)
def image_text(work: Work, detector: TextDetector) -> pa.Table:
    """Where there is text in each image, and what it reads: the first step of T-MARS. Each picture is read once."""
    features = work.read("image_features", ["uid", "pixel_digest", "fault"])
    raw = work.batches("raw_samples", ["image"], AT_ONCE)
    return text_in_images(features, raw, detector, work.track)


def text_quality_of(caption_sources: Sequence[str]) -> Stage:
    """The asset ``text_quality``, over these caption sources."""
    synthetic = {source: SYNTHETIC_CAPTIONS_PREFIX + source for source in caption_sources if source != ORIGINAL}

    @stage(
        kinds={"parquet", "numpy"},
        relations=signal_views.RELATIONS,
        code_version="1",
        schema=TEXT_QUALITY,
        inputs=["raw_samples", *synthetic.values()],
        checks=[
            unique("uid", "caption_source"),
            complete(rows_each=len(caption_sources)),
            finite("special_ratio", 0, 1),
            finite("repetition", 0, 1),
        ],
        metadata=metadata.text_quality,
    )
    def text_quality(work: Work, captions: CaptionSources) -> pa.Table:
        """What can be said of every caption by its text alone: language, length, signs, repetition, patterns.

        The originals are measured as they were found.
        """
        raw = work.read("raw_samples", ["uid", "caption"])
        tables = {name: work.read(SYNTHETIC_CAPTIONS_PREFIX + name, ["caption"]) for name in captions.captioners}
        texts = {source: table["caption"].combine_chunks() for source, table in {ORIGINAL: raw, **tables}.items()}
        return measured_texts(raw["uid"], texts)

    return text_quality


def masked_similarity_of(scorer: Scorer) -> Stage:
    """The asset ``masked_similarity``, by this scorer."""

    @stage(
        kinds={"parquet", scorer.kind},
        code_version="1",
        schema=MASKED_SIMILARITY,
        resources={"text_detector": "image_text"},
        inputs=dict.fromkeys(("raw_samples", scorer.asset, "image_text", "joint_embeddings", "caption_scores")),
        checks=[
            unique("uid"),
            complete(),
            finite("masked_similarity", -1, 1),
            without_faults(),
            Check("kept_without_text", "Images without text keep their similarity.", _kept_without_text),
        ],
        metadata=metadata.masked_similarity,
        pool=MODEL_POOL,
    )
    def masked_similarity(work: Work, scorer: Scorer, image_model: ImageModel, text_detector: TextDetector) -> pa.Table:
        """T-MARS: how well the original caption fits the image once the text in it is painted over.

        Where it fits much less, it was the text that fitted. The filter tmars chooses by this.
        """
        embeddings = work.read("joint_embeddings", ["item", "embedding", "truncated", "parts"])
        scores = work.read("caption_scores", ["caption_source", "similarity"])
        original = embeddings.filter(pc.equal(embeddings["item"], ORIGINAL)).append_column(
            "similarity", scores.filter(pc.equal(scores["caption_source"], ORIGINAL))["similarity"]
        )
        raw = work.batches("raw_samples", ["uid", "image"], AT_ONCE)
        text = work.read("image_text")
        return scores_without_text(text, original, raw, scorer, image_model, fill=text_detector.fill, track=work.track)

    return masked_similarity


def _kept_without_text(_: Work, table: pa.Table) -> CheckResult:
    bare = table.filter(pc.or_(pc.is_null(table["text_area"]), pc.equal(table["text_area"], 0)))
    changed = pc.sum(pc.not_equal(bare["masked_similarity"], bare["similarity"])).as_py() or 0
    unscored = bare["similarity"].null_count - bare["masked_similarity"].null_count
    return CheckResult(
        changed == unscored == 0,
        f"{len(bare):,} images have no text; {changed:,} of them have another similarity, {unscored:,} lack one",
        {"images": len(bare), "changed": changed},
    )


def joint_embeddings_of(caption_sources: Sequence[str], scorer: Scorer) -> Stage:
    """The asset ``joint_embeddings``, over the images and these caption sources."""
    synthetic = [SYNTHETIC_CAPTIONS_PREFIX + source for source in caption_sources if source != ORIGINAL]

    @stage(
        kinds={"parquet", scorer.kind},
        code_version="2",
        schema=JOINT_EMBEDDINGS,
        inputs=dict.fromkeys(("raw_samples", scorer.asset, *synthetic)),
        checks=[
            unique("uid", "item"),
            complete(rows_each=len(caption_sources) + 1),
            finite("embedding", -1, 1),
            without_faults(),
        ],
        metadata=metadata.joint_embeddings,
        pool=MODEL_POOL,
        # Mean and highest are of the same vectors.
        signature=lambda _, scorer, captions: [captions.names, scorer.long_captions == alignment.TRUNCATE],
    )
    def joint_embeddings(work: Work, scorer: Scorer, captions: CaptionSources) -> pa.Table:
        """Every image and every caption as a unit vector in the scorer's joint space.

        Of a caption longer than the text encoder reads it is that of the beginning; where the scorer's policy is to
        score sentences, each of its sentences has a vector too.
        """
        raw = work.read("raw_samples", ["uid", "status"])
        has_image = raw["status"].to_numpy() == "ok"
        texts = shard_captions(work, captions)
        samples = work.batches(scorer.asset, scorer.columns, ROWS_AT_ONCE)
        total = has_image.sum() + sum(len(one) - one.null_count for one in texts.values())
        progress = work.meter(int(total)).advance
        return alignment.joint_embeddings(raw["uid"], samples, has_image, texts, scorer, progress)

    return joint_embeddings


def caption_scores_of(caption_sources: Sequence[str]) -> Stage:
    """The asset ``caption_scores``, over these caption sources."""

    @stage(
        kinds={"parquet", "numpy"},
        relations=views.RELATIONS,
        code_version="2",
        schema=CAPTION_SCORES,
        resources={"long_captions": "scorer.long_captions"},
        inputs=["joint_embeddings"],
        checks=[
            unique("uid", "caption_source"),
            complete(rows_each=len(caption_sources), of="joint_embeddings"),
            Check("coverage", "Every caption of a sample with an image has a score.", _every_caption_scored),
            finite("similarity", -1, 1),
        ],
        metadata=metadata.caption_scores,
    )
    def caption_scores(work: Work, captions: CaptionSources, long_captions: LongCaptions) -> pa.Table:
        """The similarity of every caption with its image, with its tokens and whether it was cut.

        A caption that is too long for the encoder is scored by ``scorer.long_captions``; what each policy would give
        stands next to it.
        """
        return alignment.caption_scores(work.read("joint_embeddings"), captions.names, long_captions)

    return caption_scores


def further_caption_scores_of(scorer: Scorer) -> Stage:
    """The asset ``further_caption_scores``, by this scorer."""

    @stage(
        kinds={"parquet", scorer.kind},
        code_version="1",
        schema=FURTHER_CAPTION_SCORES,
        inputs=["raw_samples", "joint_embeddings"],
        checks=[
            unique("uid", "place"),
            Check(
                "coverage",
                "Every further caption of a sample whose image has a vector has a score.",
                _every_further_caption_scored,
            ),
            finite("similarity", -1, 1),
        ],
        metadata=metadata.further_caption_scores,
        pool=MODEL_POOL,
        signature=lambda _, scorer: scorer.long_captions,
    )
    def further_caption_scores(work: Work, scorer: Scorer) -> pa.Table:
        """The similarity of a sample's further captions with its image, where a source has several; else no rows.

        The first caption is in `caption_scores`. The stored vectors of the images are read: none is embedded again, and
        no model is loaded for a shard without further captions.
        """
        further = further_captions.further_captions(work.read("raw_samples", ["uid", "original_captions"]))
        if not len(further):
            return FURTHER_CAPTION_SCORES.empty_table()
        progress = work.meter(len(further)).advance
        return further_captions.further_caption_scores(further, _embedded_images(work), scorer, progress)

    return further_caption_scores


def _embedded_images(work: Work) -> pa.Table:
    """The images of the shard that have a vector."""
    table = work.read("joint_embeddings", ["uid", "item", "embedding"])
    return table.filter(pc.and_(pc.equal(table["item"], IMAGE), pc.is_valid(table["embedding"])))


def _every_further_caption_scored(work: Work, table: pa.Table) -> CheckResult:
    further = further_captions.further_captions(work.read("raw_samples", ["uid", "original_captions"]))
    due = further
    if len(further):
        due = further.filter(pc.is_in(further["uid"], value_set=_embedded_images(work)["uid"]))
    scored = table.filter(pc.is_valid(table["similarity"]))
    found = len(due.join(scored.select(["uid", "place"]), ["uid", "place"], join_type="left semi"))
    return CheckResult(
        found == len(due) and len(table) == len(further),
        f"{found:,} of {len(due):,} further captions of samples with an image have a score; "
        f"{len(table):,} rows for {len(further):,} further captions",
        {"captions": len(due), "unscored": len(due) - found},
    )


def caption_preference_of(
    captions: CaptionSources,
    scorer: Scorer,
    imports: Sequence[PreferenceImport],
    sharing: Callable[[frozenset[str]], frozenset[str]],
) -> Stage:
    """The asset ``caption_preference``, over all pairs of these caption sources; some pairs' rows are imported.

    Args:
        captions: the caption sources.
        scorer: what prefers, where nothing is imported.
        imports: preferences from elsewhere, by pair.
        sharing: the captioners that have one of some image backbones.
    """
    pairs = list(combinations(captions.names, 2))
    stored = {one.pair: one for one in imports}

    def preferring() -> list[alignment.Preferring]:
        found = []
        for pair in pairs:
            one = stored.get(frozenset(pair))
            shared = sharing(frozenset(one.image_backbones)) if one else frozenset(captions.shared)
            found.append(alignment.Preferring(*pair, one.scorer if one else scorer.model, shared.isdisjoint(pair)))
        return found

    def imported(work: Work) -> dict[tuple[str, str], tuple[pa.Array, pa.Array]]:
        found = {}
        for a, b in pairs:
            if one := stored.get(frozenset((a, b))):
                first, second = one.probabilities(work.read("raw_samples", [one.key])[one.key].to_pylist())
                found[a, b] = (first, second) if one.source_a == a else (second, first)
        return found

    def signature(_: Work) -> Any:
        return [[astuple(pair) for pair in preferring()], [one.signature() for one in imports]]

    @stage(
        kinds={"parquet", "numpy"},
        code_version="2",
        schema=CAPTION_PREFERENCE,
        inputs=["caption_scores", *(["raw_samples"] if imports else [])],
        checks=[
            unique("uid", "source_a", "source_b"),
            complete(rows_each=len(pairs), of="caption_scores"),
            finite("probability_a", 0, 1),
        ],
        metadata=metadata.caption_preference,
        signature=signature,
    )
    def caption_preference(work: Work, scorer: Scorer) -> pa.Table:
        """For each pair of caption sources, the probability that the image goes with the one and not the other.

        Where ``independent`` is false, the scorer shares a backbone with a captioner: it then looks for what that
        captioner wrote down, and its preference proves nothing. Probabilities of ``preference_imports`` take the place
        of the scorer's.
        """
        scores = work.read("caption_scores")
        return alignment.caption_preference(scores, preferring(), scorer.logit_scale, imported(work))

    return caption_preference
