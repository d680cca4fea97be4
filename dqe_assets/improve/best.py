"""The best caption of each sample, by a rule: similarity, judgement, truth, flags and length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import ORIGINAL, REFINED, REVIEWED, has_image
from dqe_assets.improve.tables import BEST_CAPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from dqe_assets.improve.best_settings import BestRule

SIMILARITY, JUDGEMENT, VQA = "similarity", "judgement", "vqa"

NO_IMAGE, NO_CAPTION = "no image", "no caption"
ONLY, ONLY_SOUND = "only caption", "only caption that is not set aside"
HIGHEST = {SIMILARITY: "highest similarity", JUDGEMENT: "highest judgement", VQA: "highest vqa"}
KEPT = "original kept: no other gains enough"
FIRST = "first of equals"
BY_PERSON = "a person chose it"
ALL_SET_ASIDE = "; all are set aside"

_SOUND, _SET_ASIDE, _ABSENT = range(3)
_FLAGS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The captions of a source, n of everything.

    Attributes:
        texts: strings; null if there is none, or no image.
        flags: lists of what is wrong with each, as found in one way and in another.
        measured: similarity, judgement and vqa, float64; NaN if there is none.
        shared: whether their similarities prove nothing.
    """

    texts: pa.Array
    flags: tuple[pa.ChunkedArray | pa.Array, pa.ChunkedArray | pa.Array]
    measured: Mapping[str, np.ndarray]
    shared: bool

    def faults(self, rule: BestRule) -> list[str]:
        """Why each caption is set aside; empty if it is not, or if there is none."""
        texts, scored = self.texts.to_pylist(), np.isfinite(self.measured[SIMILARITY]).tolist()
        rows = zip(texts, *(flags.to_pylist() for flags in self.flags), scored, strict=True)
        return [
            "" if text is None else ", ".join(self._faults(text, {*(one or ()), *(other or ())}, rule, scored=scored))
            for text, one, other, scored in rows
        ]

    def _faults(self, text: str, flags: Collection[str], rule: BestRule, *, scored: bool) -> Iterator[str]:
        yield from (flag for flag in rule.avoid if flag in flags)
        words = len(text.split())
        if words < rule.min_words:
            yield f"fewer than {rule.min_words} words"
        if rule.max_words is not None and words > rule.max_words:
            yield f"more than {rule.max_words} words"
        if not scored:
            yield "not scored"
        if self.shared and not rule.trust_shared_backbone:
            yield "shares a backbone with the scorer"


def best_captions(  # noqa: PLR0913
    raw: pa.Table,
    synthetic: Mapping[str, pa.Table],
    scores: pa.Table,
    rule: BestRule,
    *,
    shared: Collection[str] = (),
    quality: pa.Table | None = None,
    judgements: pa.Table | None = None,
    refined: pa.Table | None = None,
    reviewed: pa.Table | None = None,
) -> pa.Table:
    """The best caption of each sample, and the next best: ``BEST_CAPTIONS``, in the order of ``raw``.

    A caption that a person wrote or chose is the best whatever the rule says; the next best is then the rule's choice.

    Args:
        raw: uid, status and caption of ``raw_samples``, n rows.
        synthetic: caption and flags of each captioner, in the same order.
        scores: uid, caption_source and similarity of ``caption_scores``, and vqa if it was measured.
        rule: what is best.
        shared: caption sources whose similarities prove nothing.
        quality: uid, caption_source and patterns of ``text_quality``, if there is any.
        judgements: uid, caption_source and overall of ``caption_judgements``, if there are any.
        refined: uid, round, caption, flags, similarity and accepted of ``refined_captions``, if there are any.
        reviewed: uid, caption and similarity of the captions that people wrote or chose, if there are any.
    """
    uids, pictured = raw["uid"], has_image(raw)
    written = {ORIGINAL: raw.append_column("flags", pa.nulls(len(uids), _FLAGS)), **synthetic}
    if refined is not None:
        written[REFINED] = final_refined(refined, uids)
    candidates = {}
    for name in rule.chosen_from(list(written)):
        own = written[name]
        is_there = pc.and_(pictured, pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(own["caption"]), ""), False))
        similarity = own[SIMILARITY] if name == REFINED else _of(name, scores, SIMILARITY, uids, pa.float32())
        judgement = _of(name, judgements, "overall", uids, pa.float32())
        vqa = _of(name, scores if VQA in scores.column_names else None, VQA, uids, pa.float32())
        candidates[name] = _Candidates(
            pc.if_else(is_there, own["caption"], None).combine_chunks(),
            (own["flags"], _of(name, quality, "patterns", uids, _FLAGS)),
            {SIMILARITY: _floats(similarity), JUDGEMENT: _floats(judgement), VQA: _floats(vqa)},
            name in shared,
        )
    chosen = _chosen(candidates, rule, pictured.to_numpy())
    if reviewed is not None and len(reviewed):
        chosen = _with_reviewed(chosen, reviewed, uids, pictured)
    original = _of(ORIGINAL, scores, SIMILARITY, uids, pa.float32())
    return (
        pa.table({"uid": uids, "original_similarity": original, **chosen})
        .select(BEST_CAPTIONS.names)
        .cast(BEST_CAPTIONS)
    )


def below_runner_up(best: pa.Table, rule: BestRule) -> int:
    """How many rows of ``BEST_CAPTIONS`` have a caption that is worse than the next one by the deciding measure."""
    count = 0
    for criterion, highest in HIGHEST.items():
        reasons = (highest, KEPT) if criterion == SIMILARITY else (highest,)
        decided = best.filter(
            pa.array([reason.startswith(reasons) for reason in best["reason"].to_pylist()], pa.bool_())
        )
        values, others = (
            _floats(decided[column]) + _head_start(decided[source].to_pylist(), criterion, rule)
            for column, source in ((criterion, "caption_source"), (f"runner_up_{criterion}", "runner_up_source"))
        )
        count += int((~(values >= others)).sum())
    return count


def _chosen(candidates: Mapping[str, _Candidates], rule: BestRule, pictured: np.ndarray) -> dict[str, pa.Array]:
    """The columns of ``BEST_CAPTIONS`` that describe the choice."""
    total = len(pictured)
    # Before the sources comes "none": the choice if there is no caption, or no second one.
    names = [None, *candidates]
    texts = pa.chunked_array([pa.nulls(total, pa.string()), *(one.texts for one in candidates.values())])
    faults = np.array([[""] * total, *(one.faults(rule) for one in candidates.values())], object).T
    present = texts.is_valid().to_numpy().reshape(len(names), total).T
    tier = np.where(present, np.where(faults == "", _SOUND, _SET_ASIDE), _ABSENT)
    measured = {
        criterion: np.column_stack([np.full(total, np.nan), *(one.measured[criterion] for one in candidates.values())])
        for criterion in HIGHEST
    }
    keys: dict[str, np.ndarray] = {
        criterion: _comparable(measured[criterion] + _head_start(names, criterion, rule), tier) for criterion in rule.by
    }
    places = np.broadcast_to(np.arange(len(names)), tier.shape)
    order = np.lexsort((places, *(-key for key in reversed(keys.values())), tier), axis=-1)
    first, second = np.where(_at(tier, order) == _ABSENT, 0, order)[:, :2].T[:, :, None]

    reason = np.full((total, 1), FIRST, object)
    for criterion, key in reversed(keys.items()):
        decides = _at(key, first) != _at(key, second)
        reason[decides] = HIGHEST[criterion]
        reason[decides & (_at(measured[criterion], first) < _at(measured[criterion], second))] = KEPT
    reason[_at(tier, first) != _at(tier, second)] = ONLY_SOUND
    reason[_at(tier, second) == _ABSENT] = ONLY
    reason[_at(tier, first) == _SET_ASIDE] += ALL_SET_ASIDE
    reason[_at(tier, first) == _ABSENT] = NO_CAPTION
    reason[~pictured] = NO_IMAGE

    columns: dict[str, pa.Array] = {"reason": pa.array(reason[:, 0], pa.string())}
    for prefix, place in (("", first), ("runner_up_", second)):
        source = place[:, 0]
        columns[f"{prefix}caption"] = texts.take(pa.array(source * total + np.arange(total)))
        columns[f"{prefix}source"] = pa.array(names, pa.string()).take(pa.array(source))
        for criterion, values in measured.items():
            columns[prefix + criterion] = pa.array(_at(values, place)[:, 0], pa.float32(), from_pandas=True)
    columns["caption_source"] = columns.pop("source")
    independent = pa.array([None, *(not one.shared for one in candidates.values())], pa.bool_())
    columns["independent"] = independent.take(pa.array(first[:, 0]))
    said = [[f"{name}: {why}" for name, why in zip(names, row, strict=True) if why] for row in faults]
    columns["set_aside"] = pa.array(said, _FLAGS)
    return columns


def _with_reviewed(
    chosen: Mapping[str, pa.Array], reviewed: pa.Table, uids: pa.ChunkedArray, pictured: pa.ChunkedArray
) -> dict[str, pa.Array]:
    """The choice, but for images with a reviewed caption that caption, and what was chosen as the next best."""
    at = pc.index_in(uids, value_set=reviewed["uid"])
    is_reviewed = pc.and_(pictured, pc.is_valid(at)).combine_chunks()
    own = {
        "caption": reviewed["caption"].take(at),
        "caption_source": pa.scalar(REVIEWED),
        SIMILARITY: reviewed[SIMILARITY].take(at),
        "reason": pa.scalar(BY_PERSON),
        "independent": pa.scalar(True),
    }
    changed = dict(chosen)
    for column in ("caption", "source", *HIGHEST):
        runner_up, best = f"runner_up_{column}", "caption_source" if column == "source" else column
        changed[runner_up] = pc.if_else(is_reviewed, chosen[best], chosen[runner_up])
    for name in ("caption", "caption_source", "reason", "independent", *HIGHEST):
        changed[name] = pc.if_else(is_reviewed, own.get(name, pa.scalar(None, chosen[name].type)), chosen[name])
    return changed


def _comparable(values: np.ndarray, tier: np.ndarray) -> np.ndarray:
    """Values [n, sources], 0 if not all captions of the sample that are of the same tier have one."""
    known = np.isfinite(values)
    compared = np.zeros_like(known)
    for one in (_SOUND, _SET_ASIDE):
        within = tier == one
        compared |= within & (known | ~within).all(axis=1, keepdims=True)
    return np.where(compared, values, 0.0)


def _head_start(sources: Sequence[str | None], criterion: str, rule: BestRule) -> np.ndarray:
    """What is added to the values of each source before they are compared."""
    is_ahead = [criterion == SIMILARITY and source == ORIGINAL for source in sources]
    return rule.min_gain * np.array(is_ahead, np.float64)


def final_refined(refined: pa.Table, uids: pa.ChunkedArray) -> pa.Table:
    """The refined caption of each sample: the one accepted in the last round; null if there is none."""
    accepted = refined.filter(refined["accepted"]).sort_by([("round", "descending"), (SIMILARITY, "descending")])
    # index_in finds the first.
    return accepted.select(["caption", "flags", SIMILARITY]).take(pc.index_in(uids, value_set=accepted["uid"]))


def _of(
    source: str, table: pa.Table | None, column: str, uids: pa.ChunkedArray, kind: pa.DataType
) -> pa.ChunkedArray | pa.Array:
    """A column of a caption source in the order of the uids; null if the table has no row."""
    if table is None:
        return pa.nulls(len(uids), kind)
    rows = table.filter(pc.equal(table["caption_source"], source))
    return rows[column].take(pc.index_in(uids, value_set=rows["uid"]))


def _floats(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()


def _at(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.take_along_axis(matrix, places, axis=1)
