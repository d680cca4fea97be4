"""The things that a caption names: words of ImageNet-21k, and concepts of the vocabulary."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from dqe_assets.concepts.lemmas import lemma, split_words, words_of
from dqe_assets.concepts.vocabulary import nouns_of
from dqe_resources.models.packages import package_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_INFO = "data/_info/{}.txt"
_SHORTEST = 3

# Senses of such words are in WordNet among things; in captions they hardly ever name one.
_NO_THINGS = frozenset(
    """
    and are but can for had has her him his its may not off out she that the them then they was were who will with you
    all any back best big black blue bottom brown center centre close color colour dark day down end few front full good
    great green grey gray group hand here high home image kind large last left light line look lot low made middle more
    most near new next night now old one orange other part people photo photograph pick picture piece pink place point
    purple red right round row scene set shot show side size small some still thing three time top total turn two type
    upper view way white work year yellow
    """.split()  # noqa: SIM905
)


def things(captions: Iterable[str | None], *, nouns: bool) -> Iterator[list[str]]:
    """The things that each caption names, in order and each once, as lemmas.

    Args:
        captions: texts; null names nothing.
        nouns: only words that spaCy finds to be nouns where they stand.

    Raises:
        ConceptsError: spaCy is asked for, and not installed.
        PackageError: timm is not installed.
    """
    known = _known()
    words = nouns_of(captions) if nouns else (words_of(caption or "") for caption in captions)
    for found in words:
        yield [word for word in dict.fromkeys(found) if word in known]


@cache
def _known() -> frozenset[str]:
    """Single words that name one of ImageNet-21k's 21,843 synsets, as lemmas."""
    synsets = set(_lines("imagenet21k_goog_synsets"))
    names = (line.partition("\t") for line in _lines("imagenet_synset_to_lemma"))
    words = (split_words(name) for synset, _, some in names if synset in synsets for name in some.split(","))
    single = {lemma(found[0]) for found in words if len(found) == 1}
    return frozenset(word for word in single - _NO_THINGS if len(word) >= _SHORTEST and not word.isdigit())


def _lines(name: str) -> list[str]:
    return package_file("timm", "timm", _INFO.format(name)).read_text(encoding="utf-8").splitlines()
