"""Texts that have another text inside them: the runs of words that both have."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.hashing import mixed
from dqe_assets.dedup.caption_text import normalised_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RUN = 8
"""Words of a run; a shorter text is one run."""

_AT_ONCE = 2_000


class Texts:
    """Texts as hashes of their words.

    Args:
        texts: as they were found; null has no words.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        known: dict[str, int] = {}
        hashes: list[int] = []
        ends = [0]
        for text in texts:
            for word in normalised_text(text).split() if text else ():
                if word not in known:
                    known[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
                hashes.append(known[word])
            ends.append(len(hashes))
        self._words, self._ends = np.array(hashes, np.uint64), np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def words(self) -> NDArray[np.int64]:
        """Words of each, int64 [n]."""
        return np.diff(self._ends)

    def runs(self, length: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The runs of so many words: a hash of each, uint64 [r], and its text, int64 [r]; each once a text, sorted."""
        places = np.arange(max(0, len(self._words) - length + 1))
        text = np.searchsorted(self._ends, places, side="right") - 1
        places = places[places + length <= self._ends[text + 1]] if len(places) else places
        hashes = np.zeros(len(places), np.uint64)
        for offset in range(length):
            hashes = mixed(hashes ^ self._words[places + offset])
        text = np.searchsorted(self._ends, places, side="right") - 1
        order = np.lexsort((text, hashes))
        hashes, text = hashes[order], text[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])
        return hashes[first], text[first]


def best_matches(
    texts: Texts, wanted: Sequence[str], min_words: int, min_overlap: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of each text, which of the wanted ones it has inside most of, as PaLM (Chowdhery et al. 2022, section 8) asks.

    A wanted text is found where at least ``min_overlap`` of its runs of ``RUN`` words stand in the other one too. One
    of fewer words is a single run. Words are in lower case, without signs between them.

    Args:
        texts: n texts.
        wanted: m texts.
        min_words: a wanted text of fewer words is not looked for.
        min_overlap: share of the runs of a wanted text.

    Returns:
        Position of the wanted text, int64 [n], -1 where none is found, and the share of its runs, float32 [n]: of
        several the one with the greatest share, then the first.
    """
    best, share = np.full(len(texts), -1, np.int64), np.zeros(len(texts), np.float32)
    if not len(texts):
        return best, share
    runs = {length: texts.runs(length) for length in range(min_words, RUN + 1)}
    for start in range(0, len(wanted), _AT_ONCE):
        some = Texts(wanted[start : start + _AT_ONCE])
        of_length = np.minimum(some.words, RUN)
        for length, (hashes, text) in runs.items():
            wanted_hashes, owner = some.runs(length)
            own = of_length[owner] == length
            wanted_hashes, owner = wanted_hashes[own], owner[own]
            total = np.bincount(owner, minlength=len(some))
            low, high = (np.searchsorted(hashes, wanted_hashes, side) for side in ("left", "right"))
            counts = high - low
            rows = np.repeat(low, counts) + _within(counts)
            pairs, found = np.unique(text[rows] * len(some) + np.repeat(owner, counts), return_counts=True)
            found_in, what = np.divmod(pairs, len(some))
            overlap = (found / total[what]).astype(np.float32)
            enough = overlap >= min_overlap
            for place, which, much in zip(found_in[enough], what[enough] + start, overlap[enough], strict=True):
                if much > share[place] or (much == share[place] and which < best[place]):
                    best[place], share[place] = which, much
    return best, share


def _within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1 ... for each count, one after another."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
