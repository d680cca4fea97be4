"""When a caption is asked for again, and when an answer may take its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.caption.flags import FAULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.improve.refining_settings import Refining

NO_CAPTION, BELOW, BELOW_ORIGINAL = "no_caption", "below", "below_original"
"""Reasons for asking again, in addition to the flags of a caption."""

UNCHANGED, WORD_LIST, TOO_LONG = "unchanged", "word_list", "too_long"
"""Vetoes, in addition to the flags of an answer."""

ALWAYS_ALLOWED_WORDS = 50

# English sentences hold together by such words. Of 16,997 captions that CogVLM2 and InternVL2 wrote of SBU photos, the
# one with the fewest has a share of 0.28; a list of words has next to none.
_HOLDS_TOGETHER = frozenset(
    """
    a an the this that these those some and or but of in on at to from with without by for as into onto over under near
    beside behind between is are was were be been being has have had it its their his her they he she there which who
    while where
    """.split()  # noqa: SIM905
)
_FEWEST_OF_THEM = 0.15
_FROM_WORDS = 6
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Present:
    """The caption that a sample has now.

    Attributes:
        caption: the text; None if there is none.
        flags: what is wrong with it.
        similarity: how well it fits; None if nothing could be scored.
        ungrounded: things that it names and that its image does not show, where it is flagged for that.
    """

    caption: str | None
    flags: tuple[str, ...]
    similarity: float | None
    ungrounded: tuple[str, ...] = ()


def reasons_for(present: Present, original_similarity: float | None, rules: Refining) -> tuple[str, ...]:
    """Why a caption is asked for again; none if it may stay."""
    if present.caption is None:
        return (NO_CAPTION,)
    similarity = present.similarity
    found = {
        BELOW: similarity is not None and rules.below is not None and similarity < rules.below,
        BELOW_ORIGINAL: rules.below_original
        and similarity is not None
        and original_similarity is not None
        and similarity < original_similarity,
    }
    return (*(reason for reason, holds in found.items() if holds), *(f for f in present.flags if f in rules.flags))


def veto(caption: str | None, flags: Sequence[str] | None, present: Present, longest: float) -> str | None:
    """What speaks against an answer whatever its similarity; None if nothing does, or there is no answer.

    Args:
        caption: the answer.
        flags: those of it; what was taken out of it speaks against nothing.
        present: the caption that it would take the place of.
        longest: words that it may have.
    """
    if caption is None:
        return None
    if faults := [flag for flag in flags or () if flag in FAULTS]:
        return faults[0]
    if caption == present.caption:
        return UNCHANGED
    if is_word_list(caption):
        return WORD_LIST
    return TOO_LONG if count_words(caption) > longest else None


def is_word_list(caption: str) -> bool:
    """Whether a text of six words or more has hardly any of the words that hold English sentences together."""
    words = _WORD.findall(caption.lower())
    held = sum(word in _HOLDS_TOGETHER for word in words)
    return len(words) >= _FROM_WORDS and held < _FEWEST_OF_THEM * len(words)


def accept(
    places: np.ndarray, similarity: np.ndarray, previous: np.ndarray, vetoed: np.ndarray, min_gain: float
) -> np.ndarray:
    """Which answers take the place of what was there: of each sample's, the best that is allowed, if it is better.

    Args:
        places: int64 [m], which sample each answer is of.
        similarity: float32 [m], NaN if there is none.
        previous: float32 [m], of the caption that the sample has, NaN if it has none: any answer is better.
        vetoed: bool [m], answers that are not accepted.
        min_gain: by how much it must be higher; at 0 it must be higher still.

    Returns:
        bool [m], true once for a sample at most. Of equal answers the first is taken.
    """
    gain = similarity.astype(np.float64) - previous
    better = np.isnan(previous) | ((gain > 0) & (gain >= min_gain))
    allowed = np.flatnonzero(~vetoed & np.isfinite(similarity) & better)
    best_first = allowed[np.lexsort((allowed, -similarity[allowed], places[allowed]))]
    _, firsts = np.unique(places[best_first], return_index=True)
    accepted = np.zeros(len(places), bool)
    accepted[best_first[firsts]] = True
    return accepted


def count_words(caption: str | None) -> int:
    """Words of a caption, between white space; 0 for none."""
    return len((caption or "").split())
