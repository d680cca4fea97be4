"""How far captions are borne out by their images: a coarse OVFact (2025, arXiv 2507.19262).

OVFact finds the entities of a caption with a language model, and looks for them with an open-vocabulary detector. Here
the entities are words, and what an image shows is known already: the tags of its tagger, and its vector in the space of
the scorer. A cosine alone says little, since some words are near to every image. So a word is compared, for each image,
with all concepts of the vocabulary: what counts is the share of them that the image is less near to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.grounding.tables import GROUNDING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dqe_assets.grounding.settings import Grounding

    Floats = NDArray[np.float32]
    Embed = Callable[[Sequence[str]], Floats]

MOST_BESIDE = 1000
"""Concepts that words are compared with, at most: so many, drawn evenly from the vocabulary."""

PHRASE = "a photo of a {}"
_AT_ONCE = 256


@dataclass(frozen=True)
class Vocabulary:
    """What words are compared with.

    Attributes:
        embed: unit vectors of texts in the scorer's space: float32 [m, d].
        beside: those of the concepts, [V, d].
        vectors: those of the words that were asked for, by word.
    """

    embed: Embed
    beside: Floats
    vectors: dict[str, Floats]

    @classmethod
    def of(cls, concepts: Sequence[str], embed: Embed) -> Vocabulary:
        """The concepts of a vocabulary."""
        places = np.unique(np.linspace(0, len(concepts) - 1, min(len(concepts), MOST_BESIDE)).astype(int))
        return cls(embed, embed([phrase(concepts[place]) for place in places]), {})

    def of_words(self, words: Sequence[str]) -> Floats:
        """Unit vectors of words, [m, d]; each is embedded once."""
        new = [word for word in dict.fromkeys(words) if word not in self.vectors]
        if new:
            self.vectors.update(zip(new, self.embed([phrase(word) for word in new]), strict=True))
        return np.stack([self.vectors[word] for word in words]) if len(words) else self.beside[:0]


@dataclass(frozen=True, slots=True)
class Images:
    """What is known of the images of n samples.

    Attributes:
        vectors: unit vectors [m, d] in the scorer's space.
        rows: int64 [m], ascending: the samples that they are of.
        tags: the concepts that the tagger finds, [n].
    """

    vectors: Floats
    rows: NDArray[np.int64]
    tags: Sequence[Sequence[str] | None]


def phrase(word: str) -> str:
    """A word, or a concept's name, as it is embedded."""
    return PHRASE.format(" ".join(word.replace("_", " ").split()))


def nearness(vectors: Floats, rows: NDArray[np.int64], words: Sequence[str], vocabulary: Vocabulary) -> Floats:
    """For each word, the share of the vocabulary's concepts that are less near to a vector than it is.

    Args:
        vectors: unit vectors [n, d] in the scorer's space.
        rows: int64 [m], ascending: which of them each word is compared with.
        words: [m].
        vocabulary: what words are compared with.

    Returns:
        float32 [m], 0 to 1.
    """
    of_words = vocabulary.of_words(words)
    found = np.zeros(len(rows), np.float32)
    for start in range(0, len(vectors), _AT_ONCE):
        low, high = np.searchsorted(rows, (start, start + _AT_ONCE))
        if low == high:
            continue
        beside = np.sort(vectors[start : start + _AT_ONCE] @ vocabulary.beside.T, axis=1)
        own = np.einsum("md,md->m", vectors[rows[low:high]], of_words[low:high])
        for place, (row, value) in enumerate(zip(rows[low:high] - start, own, strict=True), low):
            found[place] = np.searchsorted(beside[row], value) / beside.shape[1]
    return found


def ground(
    uids: pa.Array | pa.ChunkedArray,
    source: str,
    entities: Sequence[Sequence[str] | None],
    shown: Sequence[Sequence[str] | None],
    images: Images,
    *,
    vocabulary: Vocabulary,
    rules: Grounding,
) -> pa.Table:
    """``GROUNDING`` of the captions of one source, n rows.

    Args:
        uids: [n].
        source: the caption source.
        entities: the things that each caption names, [n]; None if there is no caption.
        shown: the concepts of the vocabulary that each caption shows, [n].
        images: what is known of the images.
        vocabulary: what words are compared with.
        rules: the settings.
    """
    place = {int(row): number for number, row in enumerate(images.rows)}
    rows = [row for row in place if entities[row] is not None]
    # A concept of several words that a caption shows is a thing like any other.
    named = {row: list(dict.fromkeys([*(entities[row] or ()), *(shown[row] or ())])) for row in rows}
    at = np.array([place[row] for row in rows for _ in named[row]], np.int64)
    near = nearness(images.vectors, at, [word for row in rows for word in named[row]], vocabulary)
    ends = np.cumsum([0, *(len(named[row]) for row in rows)])
    near_of = {row: near[ends[number] : ends[number + 1]] for number, row in enumerate(rows)}
    records = []
    for row, uid in enumerate(uids.to_pylist()):
        record = {"uid": uid, "caption_source": source}
        if row in near_of:
            seen = set(images.tags[row] or ())
            words = [
                word
                for word, share in zip(named[row], near_of[row], strict=True)
                if share < rules.found_above and word not in seen
            ]
            record |= _scored(named[row], words, sorted(seen), _missing(seen, named[row], vocabulary, rules), rules)
        records.append(record)
    return pa.Table.from_pylist(records, GROUNDING)


def _missing(tags: set[str], words: Sequence[str], vocabulary: Vocabulary, rules: Grounding) -> list[str]:
    """The concepts of an image that none of the words names, or nearly names."""
    left = sorted(tags - set(words))
    if not left or not words:
        return left
    of_tags, of_words = vocabulary.of_words(left), vocabulary.of_words(words)
    beside = np.sort(of_tags @ vocabulary.beside.T, axis=1)
    nearest = (of_tags @ of_words.T).max(axis=1)
    shares = [np.searchsorted(some, one) / len(some) for some, one in zip(beside, nearest, strict=True)]
    return [tag for tag, share in zip(left, shares, strict=True) if share < rules.akin_above]


def _scored(
    words: Sequence[str], ungrounded: list[str], tags: Sequence[str], missing: list[str], rules: Grounding
) -> dict[str, object]:
    precision = 1 - len(ungrounded) / len(words) if words else None
    recall = 1 - len(missing) / len(tags) if tags else None
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {
        "entities": list(words),
        "ungrounded": ungrounded,
        "missing": missing,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "flagged": precision is not None and len(words) >= rules.flag_from and precision < rules.flag_below,
    }
