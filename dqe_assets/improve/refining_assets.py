"""Captions asked for again: an asset where data/dqe.yaml says ``refining``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.assets import known_rows
from dqe_assets.caption.flags import UNGROUNDED, caption_flags
from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.checks import finite, unique
from dqe_assets.core.schema import IMAGE, ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import CAPTIONER_PREFIX, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work
from dqe_assets.improve import metadata
from dqe_assets.improve.refining import Scores, refine
from dqe_assets.improve.refining_candidates import ANSWERS, CandidateAsker, reusable
from dqe_assets.improve.refining_costs import with_settings
from dqe_assets.improve.tables import REFINED_CAPTIONS
from dqe_assets.score.alignment import similarities_with
from dqe_resources.models.image_model import ImageModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dqe_assets.improve.refining_settings import Refining
    from dqe_resources.captioners.protocol import VisionCaptioner
    from dqe_resources.scorers.protocol import Scorer

IMAGES_AT_ONCE = 32
"""Images that are read at once, in addition to the row group that they are in."""

_LEAST_PROBABLE = 0.01


def refined_captions_of(
    rules: Refining, captioner: VisionCaptioner, text: Sequence[str], grounded: Sequence[str], *, independent: bool
) -> Stage:
    """The asset ``refined_captions``.

    Args:
        rules: the settings.
        captioner: the captioner that they name.
        text: the asset that says what images read, if there is one.
        grounded: the asset that says what captions name and images do not show, if there is one.
        independent: whether the scorer shares no backbone with who is asked, nor with what the prompt tells.
    """
    refined = () if rules.source == ORIGINAL else (SYNTHETIC_CAPTIONS_PREFIX + rules.source,)
    labels = ("image_features",) if rules.labels else ()

    @stage(
        kinds={"parquet", captioner.kind},
        code_version="1",
        schema=REFINED_CAPTIONS,
        inputs=["raw_samples", *refined, "joint_embeddings", "caption_scores", *labels, *text, *grounded],
        resources={"captioner": f"{CAPTIONER_PREFIX}{captioner.name}"},
        checks=[
            unique("uid", "round", "candidate"),
            finite("similarity", -1, 1),
            Check(
                "accepted_fit_better", "An answer is accepted only where it fits better.", _accepted_fit_better(rules)
            ),
            Check(
                "none_lowered",
                "No sample has a caption that fits less than the one that was there.",
                _none_lowered(rules),
            ),
            Check(
                "answered",
                f"At least {captioner.min_coverage:.0%} of the captions asked for again were answered.",
                _answered(captioner.min_coverage),
            ),
        ],
        metadata=metadata.refined_captions_of(independent=independent),
        pool=captioner.pool,
        signature=lambda _: [rules.signature(), not independent],
    )
    def refined_captions(work: Work, captioner: VisionCaptioner, scorer: Scorer) -> pa.Table:
        """Captions that fit badly asked for again, round after round: every answer, and which were accepted.

        A sample's caption changes only if an answer fits its image better. A shard that was interrupted goes on
        with the answers that are missing.
        """
        rows, vectors = _image_vectors(work)
        samples = _samples(work, rules, text, grounded).take(pa.array(rows))
        asked = rules.asked(captioner)
        ask = CandidateAsker(
            asked,
            rules.loaded_prompt(),
            rules.candidates,
            images=lambda places: _images(work, rows[np.asarray(places, np.int64)].tolist()),
            known=reusable(known_rows(work, ANSWERS)),
            keep=work.checkpoint.append,
            track=work.track,
        )

        def score(places: np.ndarray, texts: Sequence[str]) -> Scores:
            similarity, embedded = similarities_with(vectors[places], texts, scorer)
            return Scores(similarity, embedded.tokens, embedded.truncated)

        return with_settings(refine(samples, rules, ask, score), rules, asked, independent=independent)

    return refined_captions


def _image_vectors(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the shard that have an image in the joint space, and its place there."""
    embeddings = work.read("joint_embeddings", ["item", "embedding"])
    return to_matrix(embeddings.filter(pc.equal(embeddings["item"], IMAGE))["embedding"])


def _samples(work: Work, rules: Refining, text: Sequence[str], grounded: Sequence[str]) -> pa.Table:
    """What ``refine`` reads, of every row of the shard."""
    raw = work.read("raw_samples", ["uid", "caption"])
    scores = work.read("caption_scores", ["caption_source", "similarity"])
    original = normalise_captions(raw["caption"])
    if rules.source == ORIGINAL:
        caption = original
        flags = pa.array(caption_flags(caption.to_pylist(), ["stop"] * len(caption)), pa.list_(pa.string()))
    else:
        table = work.read(SYNTHETIC_CAPTIONS_PREFIX + rules.source, ["caption", "flags"])
        caption, flags = table["caption"], table["flags"]
    similarity, original_similarity = (
        scores.filter(pc.equal(scores["caption_source"], source))["similarity"] for source in (rules.source, ORIGINAL)
    )
    ungrounded = _ungrounded(work, rules.source) if grounded else pa.nulls(raw.num_rows, pa.list_(pa.string()))
    if grounded:
        flags = pa.array(
            [
                [*(some or ()), UNGROUNDED] if words else some
                for some, words in zip(flags.to_pylist(), ungrounded.to_pylist(), strict=True)
            ],
            pa.list_(pa.string()),
        )
    return pa.table(
        {
            "uid": raw["uid"],
            "caption": caption,
            "flags": flags,
            "ungrounded": ungrounded,
            "similarity": similarity,
            "original_caption": original,
            "original_similarity": original_similarity,
            "labels": _labels(work, rules.labels, raw.num_rows),
            "image_text": work.read("image_text", ["text"])["text"] if text else pa.nulls(raw.num_rows),
        }
    )


def _ungrounded(work: Work, source: str) -> pa.Array:
    """What each caption of a source names and its image does not show, where it is flagged for that."""
    table = work.read("grounding", ["caption_source", "ungrounded", "flagged"])
    of_source = table.filter(pc.equal(table["caption_source"], source)).combine_chunks()
    return pa.array(
        [
            words if flagged else None
            for words, flagged in zip(
                of_source["ungrounded"].to_pylist(), of_source["flagged"].to_pylist(), strict=True
            )
        ],
        pa.list_(pa.string()),
    )


def _labels(work: Work, count: int, rows: int) -> pa.Array:
    """The most probable labels of each image, in words."""
    if not count:
        return pa.nulls(rows, pa.string())
    names = ImageModel().class_names
    features = work.read("image_features", ["label_ids", "label_probabilities"]).to_pylist()
    return pa.array(
        [
            ", ".join(
                f"{names[label]} {probability:.0%}"
                for label, probability in list(
                    zip(row["label_ids"] or (), row["label_probabilities"] or (), strict=True)
                )[:count]
                if probability >= _LEAST_PROBABLE
            )
            for row in features
        ],
        pa.string(),
    )


def _images(work: Work, rows: Sequence[int]) -> Iterator[bytes]:
    for first in range(0, len(rows), IMAGES_AT_ONCE):
        some = rows[first : first + IMAGES_AT_ONCE]
        table = work.read_rows("raw_samples", some, ["image"])
        for image in table["image"]:
            yield image["bytes"].as_py()


def _accepted_fit_better(rules: Refining) -> Callable[[Work, pa.Table], CheckResult]:
    def run(_: Work, table: pa.Table) -> CheckResult:
        accepted = table.filter(table["accepted"])
        least = rules.min_gain
        gain = pc.subtract(
            accepted["similarity"].cast(pa.float64()), accepted["previous_similarity"].cast(pa.float64())
        )
        better = pc.and_(pc.greater(gain, 0), pc.greater_equal(gain, least))
        fine = pc.and_(pc.fill_null(better, pc.is_null(accepted["previous_similarity"])), pc.is_null(accepted["veto"]))
        fine = pc.and_(fine, pc.is_valid(accepted["similarity"]))
        wrong = accepted.num_rows - (pc.sum(fine).as_py() or 0)
        once = accepted.num_rows == accepted.group_by(["uid", "round"]).aggregate([]).num_rows
        return CheckResult(
            wrong == 0 and once,
            f"{accepted.num_rows:,} of {table.num_rows:,} answers are accepted, {wrong} of them without a better fit; "
            f"{'one' if once else 'more than one'} of a sample and round at most",
            {"accepted": accepted.num_rows, "wrong": wrong},
        )

    return run


def _none_lowered(rules: Refining) -> Callable[[Work, pa.Table], CheckResult]:
    def run(work: Work, table: pa.Table) -> CheckResult:
        scores = work.read("caption_scores", ["uid", "caption_source", "similarity"])
        before = scores.filter(pc.equal(scores["caption_source"], rules.source))
        accepted = table.filter(table["accepted"]).sort_by("round")
        last = accepted.group_by("uid", use_threads=False).aggregate([("similarity", "last")])
        first = before["similarity"].take(pc.index_in(last["uid"], value_set=before["uid"].combine_chunks()))
        lowered = pc.sum(pc.less(last["similarity_last"], first)).as_py() or 0
        return CheckResult(
            lowered == 0,
            f"{last.num_rows:,} samples have another caption, {lowered} of them one that fits less than before",
            {"refined": last.num_rows, "lowered": lowered},
        )

    return run


def _answered(minimum: float) -> Callable[[Work, pa.Table], CheckResult]:
    def run(_: Work, table: pa.Table) -> CheckResult:
        asked = table.group_by(["uid", "round"]).aggregate([("caption", "count")])
        answered = pc.sum(pc.greater(asked["caption_count"], 0)).as_py() or 0
        share = answered / asked.num_rows if asked.num_rows else 1.0
        return CheckResult(
            share >= minimum,
            f"{answered:,} of {asked.num_rows:,} questions have an answer ({share:.1%}, required: {minimum:.0%})",
            {"answered": answered, "of": asked.num_rows, "share": round(share, 4), "required": minimum},
        )

    return run
