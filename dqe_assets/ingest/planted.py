"""How well each stage finds what was planted in the embedded sample: the truth next to what the stages say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.schema import ORIGINAL
from dqe_resources.sources.sample_images import BROKEN, LETTERED, NEAR_COPIES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SMALL_SIDE = 200
"""Pixels of the shorter side below which an image is small: DataComp's basic filter (Gadre et al. 2023)."""

EXTREME_ASPECT = 3.0
"""Longer over shorter side above which an image is a strip: DataComp's basic filter."""

FIGURES = pa.schema(
    [
        ("stage", pa.string()),
        ("what", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("positives", pa.int64()),
        ("negatives", pa.int64()),
    ]
)
"""Schema of ``planted_figures``: ``value`` is null where there is nothing to measure."""

_SAME_FILE = frozenset({"original", "exact_copy"})
_WHOLE = _SAME_FILE | NEAR_COPIES
_COPIES = _WHOLE | {"caption_drawn"}
_PARTS = ("tiny", "extreme_aspect")
_LANGUAGE = "language_"


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """The area under the ROC curve: the chance that a positive has the higher score, ties counting half.

    Args:
        scores: [n], finite.
        positive: bool [n].

    Returns:
        0 to 1; NaN if there is no positive or no negative.
    """
    values, is_positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    positives = int(is_positive.sum())
    negatives = len(values) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = ranks[is_positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def planted_figures(raw: pa.Table, features: pa.Table, scores: pa.Table, clusters: pa.Table) -> pa.Table:
    """What each stage finds of what was planted, from the rows that have a truth.

    - ``raw_samples``: of the broken files, how many failed, how many of the failed were broken, and how often the
      reason is the right one; how well width and height tell tiny images and strips.
    - ``image_features``: whether the cosine of two images' features, and the bits in which their hashes agree, are
      higher for two copies of a photo than for copies of two photos (AUC over pairs).
    - ``duplicate_clusters``: over pairs of samples, those within a cluster against those made from the same photo.
      The exact kind is held against pairs of the same file, the others against pairs of copies that show the photo
      whole, with words drawn into it or not. Recall is also given for each kind of copy, between it and the photo's
      unchanged file; tiny images and strips are only counted there, since they are not what a duplicate has to be.
    - ``caption_scores``: the chance that a right caption fits better than a planted one (AUC), on images that show
      the photo whole; ``caption_drawn`` instead compares right captions of pictures with those of pictures into which
      they are drawn: 0.5 where the scorer does not see the words, near 1 where they please it.

    Args:
        raw: uid, status, reason, width, height and truth of ``RAW_SAMPLES``.
        features: uid, embedding and perceptual_hash of ``IMAGE_FEATURES``.
        scores: ``CAPTION_SCORES``.
        clusters: ``DUPLICATE_CLUSTERS``.

    Returns:
        Table of ``FIGURES``, over as many samples or pairs as ``positives`` and ``negatives`` say.
    """
    figures = _Figures()
    planted = _Planted.of(raw)
    _broken(planted, figures)
    _shapes(planted, figures)
    _separation(pair_similarity(raw, features), figures)
    _duplicates(planted, clusters, figures)
    _alignment(planted, scores, figures)
    return pa.Table.from_pylist(figures.rows, FIGURES)


def text_figures(raw: pa.Table, text: pa.Table, masked: pa.Table) -> pa.Table:
    """What is found of the captions that are drawn into pictures.

    - ``image_text``: of the pictures with a caption drawn into them, those where text is found; of the other whole
      pictures but those of writing, those where none is; and how well the share of the picture tells the two.
    - ``masked_similarity``: of right captions, the chance (AUC) that one that is drawn into its picture has a higher
      score than one that is not: by the plain score, by the masked one, and by what the score loses by masking.
      Where a scorer can read, the plain score is near 1 and the masked one is not: near 0.5, or below it, since words
      hide some of the picture. A scorer that cannot read sees no difference in either.

    Args:
        raw: uid, status, reason, width, height and truth of ``RAW_SAMPLES``.
        text: uid and text_area of ``IMAGE_TEXT``.
        masked: ``MASKED_SIMILARITY``.

    Returns:
        Table of ``FIGURES``.
    """
    figures = _Figures()
    planted = _Planted.of(raw)
    drawn = planted.image == "caption_drawn"
    area = _values(text, "text_area", planted.uids)
    plain, hidden = (_values(masked, name, planted.uids) for name in ("similarity", "masked_similarity"))
    seen = (drawn | planted.is_image(_WHOLE)) & ~np.isin(planted.photo, sorted(LETTERED)) & np.isfinite(area)
    figures.found("image_text", "caption_drawn: text is found", drawn[seen], area[seen] > 0)
    figures.ranked("image_text", "caption_drawn: text covers more", area[seen], drawn[seen])
    right = seen & (planted.caption == "right") & np.isfinite(plain)
    for what, score in (
        ("fits better than undrawn", plain),
        ("fits better than undrawn, masked", hidden),
        ("loses more by masking", plain - hidden),
    ):
        figures.ranked("masked_similarity", f"caption_drawn: {what}", score[right], drawn[right])
    return pa.Table.from_pylist(figures.rows, FIGURES)


def pair_similarity(raw: pa.Table, features: pa.Table) -> pa.Table:
    """How alike copies of one photo are, and copies of two photos: the thresholds for duplicates are chosen by this.

    Args:
        raw: uid, status, reason, width, height and truth of ``RAW_SAMPLES``.
        features: uid, embedding and perceptual_hash of ``IMAGE_FEATURES``.

    Returns:
        A row for each pair of copies that show their photo whole: ``image_a`` and ``image_b``, their kinds;
        ``same_photo``; ``cosine`` of the features, and ``distance`` of the hashes in bits.
    """
    planted = _Planted.of(raw)
    kept = np.flatnonzero(planted.ok & planted.is_image(_COPIES))
    at = _positions(features["uid"], planted.uids[kept])
    unit = to_matrix(features["embedding"].take(pa.array(at)))[1].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    hashes = features["perceptual_hash"].take(pa.array(at)).to_numpy()
    a, b = np.triu_indices(len(kept), 1)
    left, right = kept[a], kept[b]
    return pa.table(
        {
            "image_a": planted.image[left],
            "image_b": planted.image[right],
            "same_photo": planted.photo[left] == planted.photo[right],
            "cosine": (unit @ unit.T)[a, b],
            "distance": np.bitwise_count(hashes[a] ^ hashes[b]),
        }
    )


@dataclass
class _Figures:
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, stage: str, what: str, metric: str, value: float, positives: int, negatives: int) -> None:
        self.rows.append(
            {
                "stage": stage,
                "what": what,
                "metric": metric,
                "value": None if np.isnan(value) else value,
                "positives": positives,
                "negatives": negatives,
            }
        )

    def share(
        self,
        stage: str,
        what: str,
        metric: str,
        right: NDArray[np.bool_],
        *,
        of: NDArray[np.bool_],
        truth: NDArray[np.bool_],
    ) -> None:
        """How many of some samples or pairs are right."""
        value = right.sum() / of.sum() if of.any() else float("nan")
        self.add(stage, what, metric, float(value), int(truth.sum()), int((~truth).sum()))

    def found(self, stage: str, what: str, truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> None:
        """Precision and recall of what a stage says of each sample or pair."""
        self.share(stage, what, "precision", truth & said, of=said, truth=truth)
        self.share(stage, what, "recall", truth & said, of=truth, truth=truth)

    def ranked(self, stage: str, what: str, scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> None:
        """AUC of a score, higher for positives."""
        self.add(stage, what, "auc", auc(scores, positive), int(positive.sum()), int((~positive).sum()))


@dataclass(frozen=True)
class _Planted:
    """The rows that have a truth, as arrays [n]; width and height are 0 if there is no image."""

    uids: NDArray[np.str_]
    photo: NDArray[np.str_]
    image: NDArray[np.str_]
    caption: NDArray[np.str_]
    reason: NDArray[np.str_]
    ok: NDArray[np.bool_]
    width: NDArray[np.int32]
    height: NDArray[np.int32]

    @classmethod
    def of(cls, raw: pa.Table) -> _Planted:
        raw = raw.filter(raw["truth"].is_valid())
        truth = raw["truth"].to_pylist()

        return cls(
            uids=np.array(raw["uid"].to_pylist(), np.str_),
            **{key: np.array([row[key] or "" for row in truth], np.str_) for key in ("photo", "image", "caption")},
            reason=np.array(raw["reason"].to_pylist(), np.str_),
            ok=np.array(raw["status"].to_pylist(), np.str_) == "ok",
            width=raw["width"].fill_null(0).to_numpy(),
            height=raw["height"].fill_null(0).to_numpy(),
        )

    def is_image(self, kinds: frozenset[str] | set[str]) -> NDArray[np.bool_]:
        return np.isin(self.image, sorted(kinds))


def _broken(planted: _Planted, figures: _Figures) -> None:
    broken = planted.is_image(BROKEN)
    figures.found("raw_samples", "broken file", broken, ~planted.ok)
    for kind in sorted(BROKEN):
        truth = planted.image == kind
        figures.share("raw_samples", kind, "recall", truth & ~planted.ok, of=truth, truth=truth)
        figures.share("raw_samples", kind, "reason_right", truth & (planted.reason == kind), of=truth, truth=truth)


def _shapes(planted: _Planted, figures: _Figures) -> None:
    longer, shorter = np.maximum(planted.width, planted.height), np.minimum(planted.width, planted.height)
    strip = planted.image == "extreme_aspect"
    # A strip of a photo is small too, which is no mistake of the measure.
    judged = planted.ok & ~strip
    tiny = (planted.image == "tiny")[judged]
    small, aspect = shorter < SMALL_SIDE, longer / np.maximum(shorter, 1)
    figures.share(
        "raw_samples", f"tiny: under {SMALL_SIDE} pixels", "recall", tiny & small[judged], of=tiny, truth=tiny
    )
    figures.ranked("raw_samples", "tiny: shorter side", -shorter[judged], tiny)
    truth, said = strip[planted.ok], (aspect > EXTREME_ASPECT)[planted.ok]
    figures.found("raw_samples", f"extreme_aspect: above {EXTREME_ASPECT:g}", truth, said)
    figures.ranked("raw_samples", "extreme_aspect: aspect", aspect[planted.ok], truth)


def _separation(pairs: pa.Table, figures: _Figures) -> None:
    same = pairs["same_photo"].to_numpy()
    figures.ranked("image_features", "same photo: cosine of features", pairs["cosine"].to_numpy(), same)
    figures.ranked(
        "image_features", "same photo: equal bits of hashes", -pairs["distance"].to_numpy().astype(int), same
    )


def _duplicates(planted: _Planted, clusters: pa.Table, figures: _Figures) -> None:
    stage = "duplicate_clusters"
    unchanged, whole = planted.is_image(_SAME_FILE), planted.is_image(_COPIES)
    a, b = np.triu_indices(len(planted.uids), 1)
    same = planted.photo[a] == planted.photo[b]
    whole_pairs, both_unchanged = whole[a] & whole[b], unchanged[a] & unchanged[b]
    for kind in ("exact", "perceptual", "semantic", "any"):
        cluster = _clusters(planted.uids, clusters.filter(pc.equal(clusters["kind"], kind)))
        together = (cluster[a] == cluster[b]) & (cluster[a] >= 0)
        truth = same & both_unchanged if kind == "exact" else same
        figures.found(stage, f"{kind}: all copies", truth[whole_pairs], together[whole_pairs])
        if kind == "exact":
            continue
        for copy in (*sorted(_COPIES - _SAME_FILE), *_PARTS):
            is_copy = planted.image == copy
            pairs = (is_copy[a] & unchanged[b]) | (unchanged[a] & is_copy[b])
            truth = same[pairs]
            figures.share(stage, f"{kind}: {copy}", "recall", truth & together[pairs], of=truth, truth=truth)


def _alignment(planted: _Planted, scores: pa.Table, figures: _Figures) -> None:
    stage = "caption_scores"
    original = scores.filter(pc.equal(scores["caption_source"], ORIGINAL))
    at = _positions(original["uid"], planted.uids)
    similarity = original["similarity"].take(pa.array(at)).to_numpy().astype(np.float64)
    tokens = original["tokens"].take(pa.array(at)).to_numpy()
    scored = np.isfinite(similarity)
    right = planted.is_image(_WHOLE) & (planted.caption == "right") & scored

    def against_right(what: str, wrong: NDArray[np.bool_], values: NDArray[np.floating]) -> None:
        judged = (wrong & scored) | right
        figures.ranked(stage, what, values[judged], wrong[judged])

    in_language = np.char.startswith(planted.caption, _LANGUAGE)
    for kind in ("other_photo", "file_name", "one_word"):
        against_right(f"{kind}: fits worse than right", planted.caption == kind, -similarity)
    against_right("other_language: fits worse than right", in_language, -similarity)
    against_right("markup: fits worse than right", planted.caption == "markup", -similarity)
    against_right("one_word: has fewer tokens than right", planted.caption == "one_word", -tokens)
    against_right(
        "caption_drawn: fits better than right",
        (planted.image == "caption_drawn") & (planted.caption == "right"),
        similarity,
    )
    empty = (planted.caption == "empty") & planted.ok
    figures.found(stage, "empty: has no score", empty[planted.ok], ~scored[planted.ok])


def _values(table: pa.Table, column: str, uids: NDArray[np.str_]) -> NDArray[np.float64]:
    """A column's values at some uids, NaN if there is none."""
    taken = table[column].take(pa.array(_positions(table["uid"], uids)))
    return taken.to_numpy().astype(np.float64)


def _clusters(uids: NDArray[np.str_], members: pa.Table) -> NDArray[np.int64]:
    """A number for the cluster of each uid, -1 if it is in none."""
    numbers = {cluster: number for number, cluster in enumerate(pc.unique(members["cluster"]).to_pylist())}
    cluster_of = dict(zip(members["uid"].to_pylist(), members["cluster"].to_pylist(), strict=True))
    return np.array([numbers[cluster_of[uid]] if uid in cluster_of else -1 for uid in uids.tolist()], np.int64)


def _positions(uids: pa.ChunkedArray, wanted: NDArray[np.str_]) -> NDArray[np.int64]:
    position = {uid: row for row, uid in enumerate(uids.to_pylist())}
    return np.array([position[uid] for uid in wanted.tolist()], np.int64)
