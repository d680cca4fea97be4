"""How many captions show each of thousands of concepts, and which ones.

A caption shows a concept when all of the concept's words occur among the caption's words, in any order; once per
caption. This is the text search of Udandarao et al., "No 'Zero-Shot' Without Exponential Data" (arXiv 2404.04125), with
every word of a caption where their index holds nouns alone; ``lemmas`` says what a word is.

**Words in brackets** say which sense of a name is meant ("kite (bird of prey)"), and captions hardly repeat them. The
paper splits names at spaces and underscores alone and so looks for "(bird" and "prey)", which occur nowhere and are
ignored. Here they are left out if absent words are ignored, and needed like any other if absent words count.

**Corpora in parts.** With ``absent_words="ignore"`` a word that no caption has is not needed, so what a caption shows
depends on all other captions. It still takes one pass: a part whose captions lack a word that others have shows none of
the concepts that need it, and everything else in the part stays as it is. ``settled`` says which, and counts of parts
merge exactly, in any order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.lemmas import Method, form_of, split_words
from dqe_assets.concepts.lists import as_lists, flat, gather

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from dqe_assets.concepts.lists import Lists

    Captions: TypeAlias = pa.Array | pa.ChunkedArray | Iterable[str | None]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]

AbsentWords = Literal["ignore", "zero"]
"""What a word that no caption of the corpus has does to a concept: nothing, or its count becomes 0."""

ABSENT_WORDS: tuple[AbsentWords, ...] = get_args(AbsentWords)

_BATCH = 16_384
_MOST_KEPT = 1 << 20
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class ConceptHits:
    """What the captions of one corpus, or of one part of it, show.

    Attributes:
        concepts: list<int32>, for each caption the ascending positions of the concepts that it shows, if these captions
            are the whole corpus; ``ConceptIndex.settle`` makes it the answer for a part of one.
        words: list<int32>, for each caption the ascending positions of its words in ``ConceptIndex.words``.
    """

    concepts: pa.ListArray
    words: pa.ListArray


@dataclass(frozen=True, slots=True)
class ConceptCounts:
    """How many captions of a corpus, or of one part of it, show each concept.

    Attributes:
        counts: int64, for each concept; as if these captions were the whole corpus.
        seen: bool, for each of ``ConceptIndex.words`` whether a caption has it.
        captions: captions counted, those without text included.
    """

    counts: Counts
    seen: Mask
    captions: int


class ConceptIndex:
    """A list of concepts, made ready to be looked for in captions.

    Attributes:
        concepts: the names, as given.
        words: the distinct words that they need, in the form in which they are compared.
    """

    def __init__(
        self, concepts: Sequence[str], method: Method = "lemmatized", absent_words: AbsentWords = "ignore"
    ) -> None:
        """Look up the words of each concept.

        Args:
            concepts: names; a name may be there twice, and one without a word is shown by no caption.
            method: how words are compared.
            absent_words: whether a word that occurs nowhere is ignored, or makes the count 0.

        Raises:
            ValueError: the method or what to do with absent words is not known.
        """
        if absent_words not in ABSENT_WORDS:
            raise ValueError(f"absent_words is '{absent_words}'; allowed: {', '.join(ABSENT_WORDS)}")
        self.concepts = tuple(concepts)
        self._ignores = absent_words == "ignore"
        self._form = form_of(method)
        places: dict[str, int] = {}
        needs = [
            sorted({places.setdefault(word, len(places)) for word in self._needed(concept)}) for concept in concepts
        ]
        self.words = tuple(places)
        self._places = places
        self._concept_of_need = np.repeat(np.arange(len(needs)), [len(words) for words in needs])
        self._needs = np.array([word for words in needs for word in words], np.int64)
        self._known: dict[str, tuple[int, ...]] = {}

    def _needed(self, concept: str) -> list[str]:
        words = split_words(_BRACKETS.sub(" ", concept)) if self._ignores else []
        return [self._form(word) for word in words or split_words(concept)]

    def hits(self, captions: Captions) -> ConceptHits:
        """The concepts that each caption shows, and what ``settle`` needs to know where these are part of a corpus.

        Args:
            captions: texts; null has no words. All of them are kept, as numbers: give a corpus in parts.
        """
        parts = [self._words(batch) for batch in _batches(captions)]
        words = pa.concat_arrays(parts) if parts else as_lists(_NONE, _NONE, 0)
        seen = self.seen(words)
        matched = [self._match(part, seen) for part in parts]
        return ConceptHits(pa.concat_arrays(matched) if matched else words, words)

    def count(self, captions: Captions) -> ConceptCounts:
        """How many captions show each concept, in one pass and in memory that does not grow with the captions."""
        total = ConceptCounts(np.zeros(len(self.concepts), np.int64), np.zeros(len(self.words), bool), 0)
        for batch in _batches(captions):
            words = self._words(batch)
            seen = self.seen(words)
            counts = tally(self._match(words, seen), len(self.concepts))
            total = self.merge(total, ConceptCounts(counts, seen, len(batch)))
        return total

    def merge(self, first: ConceptCounts, second: ConceptCounts) -> ConceptCounts:
        """The counts of two parts of a corpus as one; exact, and the same in any order."""
        seen = first.seen | second.seen
        counts = sum(np.where(self.settled(part.seen, seen), part.counts, 0) for part in (first, second))
        return ConceptCounts(np.asarray(counts), seen, first.captions + second.captions)

    def seen(self, words: Lists) -> Mask:
        """Which of ``words`` occur in ``ConceptHits.words``: bool, for each word."""
        return tally(words, len(self.words)) > 0

    def settled(self, seen_here: Mask, seen_anywhere: Mask) -> Mask:
        """Which concepts a part of a corpus shows as often as if it were the whole; of the others it shows none.

        Args:
            seen_here: bool, for each word whether a caption of the part has it.
            seen_anywhere: bool, whether a caption of the corpus has it.

        Returns:
            bool, for each concept.
        """
        missing = seen_anywhere & ~seen_here
        settled = np.ones(len(self.concepts), bool)
        settled[self._concept_of_need[missing[self._needs]]] = False
        return settled

    def settle(self, concepts: Lists, seen_here: Mask, seen_anywhere: Mask) -> pa.ListArray:
        """What each caption of a part shows, now that the words of the whole corpus are known.

        Args:
            concepts: ``ConceptHits.concepts`` of the part.
            seen_here: bool, for each word whether a caption of the part has it.
            seen_anywhere: bool, whether a caption of the corpus has it.
        """
        rows, values = flat(concepts)
        kept = self.settled(seen_here, seen_anywhere)[values]
        return as_lists(rows[kept], values[kept], len(concepts))

    def _words(self, captions: pa.Array) -> pa.ListArray:
        """The positions of each caption's words. Python looks at each distinct piece between spaces, and only once."""
        pieces = pc.ascii_split_whitespace(captions)
        lengths = pieces.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        encoded = pieces.flatten().dictionary_encode()
        known = [self._places_of(piece) for piece in encoded.dictionary.to_pylist()]
        offsets = np.zeros(len(known) + 1, np.int64)
        np.cumsum([len(places) for places in known], out=offsets[1:])
        places = np.fromiter((place for some in known for place in some), np.int64, offsets[-1])
        occurring, words = gather(offsets, places, encoded.indices.to_numpy().astype(np.int64))
        rows = np.repeat(np.arange(len(captions)), lengths)[occurring]
        width = max(len(self.words), 1)
        keys = np.sort(rows * width + words)
        keys = keys[np.diff(keys, prepend=-1) > 0]
        return as_lists(keys // width, keys % width, len(captions))

    def _places_of(self, piece: str) -> tuple[int, ...]:
        found = self._known.get(piece)
        if found is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            places = (self._places.get(self._form(word)) for word in split_words(piece))
            found = self._known[piece] = tuple(place for place in places if place is not None)
        return found

    def _match(self, words: pa.ListArray, seen: Mask) -> pa.ListArray:
        """The concepts whose needed words all occur: looked for only if the rarest of them does."""
        rows, occurring = flat(words)
        needed = seen[self._needs] if self._ignores else np.ones(len(self._needs), bool)
        concept, need = self._concept_of_need[needed], self._needs[needed]
        frequency = np.bincount(occurring, minlength=len(self.words))
        order = np.lexsort((frequency[need], concept))
        concept, need = concept[order], need[order]
        begins = np.searchsorted(concept, np.arange(len(self.concepts) + 1))
        needy = np.flatnonzero(np.diff(begins))
        rarest = need[begins[needy]]
        by_word = np.argsort(rarest, kind="stable")
        at_word = np.searchsorted(rarest[by_word], np.arange(len(self.words) + 1))
        occurrence, candidate = gather(at_word, needy[by_word], occurring)
        caption = rows[occurrence]
        # Ascending, as captions and the words of each are: a word of a caption is found by bisection.
        width = max(len(self.words), 1)
        keys = rows * width + occurring
        for place in range(1, int(np.diff(begins).max(initial=0))):
            asked = begins[candidate] + place
            asks = asked < begins[candidate + 1]
            wanted = caption[asks] * width + need[asked[asks]]
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            kept = ~asks
            kept[asks] = keys[found] == wanted
            caption, candidate = caption[kept], candidate[kept]
        order = np.lexsort((candidate, caption))
        return as_lists(caption[order], candidate[order], len(words))


_NONE = np.empty(0, np.int64)


def count_concepts(
    captions: Captions,
    concepts: Sequence[str],
    method: Method = "lemmatized",
    absent_words: AbsentWords = "ignore",
) -> pa.Table:
    """How many captions show each concept.

    Args:
        captions: texts, as an Arrow array or anything that yields strings, which is read once and in batches; null has
            no words.
        concepts: names; see ``ConceptIndex``.
        method: how words are compared.
        absent_words: whether a word that no caption has is ignored, or makes the count 0.

    Returns:
        concept (string) and count (int64), a row for each name in the order given.

    Raises:
        ValueError: the method or what to do with absent words is not known.
    """
    index = ConceptIndex(concepts, method, absent_words)
    counts = index.count(captions).counts
    return pa.table({"concept": pa.array(index.concepts, pa.string()), "count": pa.array(counts, pa.int64())})


def concept_hits(
    captions: Captions,
    concepts: Sequence[str],
    method: Method = "lemmatized",
    absent_words: AbsentWords = "ignore",
) -> pa.ListArray:
    """The concepts that each caption shows: list<int32>, ascending positions in ``concepts``, a list for each caption.

    See ``count_concepts`` for the arguments and errors.
    """
    return ConceptIndex(concepts, method, absent_words).hits(captions).concepts


def tally(hits: Lists, concepts: int) -> Counts:
    """How many lists hold each of so many concepts: int64. A concept is at most once in a list."""
    return np.bincount(flat(hits)[1], minlength=concepts)


def both(text_hits: Lists, image_hits: Lists) -> pa.ListArray:
    """The concepts on which the text and the image of each sample agree: list<int32>.

    Raises:
        ValueError: the two differ in length.
    """
    (rows, values), width = flat(text_hits), 1 + max(flat(hits)[1].max(initial=0) for hits in (text_hits, image_hits))
    if len(text_hits) != len(image_hits):
        raise ValueError(f"{len(text_hits)} samples have texts, and {len(image_hits)} images")
    other_rows, others = flat(image_hits)
    kept = np.isin(rows * width + values, other_rows * width + others)
    return as_lists(rows[kept], values[kept], len(text_hits))


def _batches(captions: Captions) -> Iterator[pa.Array]:
    if isinstance(captions, pa.Array):
        captions = pa.chunked_array([captions])
    if isinstance(captions, pa.ChunkedArray):
        for chunk in captions.iterchunks():
            for start in range(0, len(chunk), _BATCH):
                yield chunk.slice(start, _BATCH).cast(pa.string())
        return
    if isinstance(captions, str):
        raise TypeError("captions is a string: give a list of captions")
    rest = iter(captions)
    while some := list(islice(rest, _BATCH)):
        yield pa.array(some, pa.string())
