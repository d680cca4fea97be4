"""Words, the same for captions and concepts.

Text is compared without regard to case or to the form of its characters (Unicode's NFKC and case folding, so that a
decomposed "é" or a fullwidth "Ａ" is the usual one). A **word** is a longest run of letters, marks and digits of any
script; everything else separates words: spaces, underscores, hyphens, slashes, brackets and all other punctuation. So
"t-shirt" is the words "t" and "shirt", and "F-16A/B" is "f", "16a" and "b". Two exceptions: the possessive "'s" is left
out ("cat's" is "cat"), and invisible format characters (soft hyphens, joiners) are as if they were not there. Scripts
that are written without spaces are not segmented: a run of Chinese is one word.

Words are compared as they are (``lowercased``) or by their English lemma (``lemmatized``), which needs no context and
so is looked up once for each distinct word, by simplemma (Barbaresi 2023). The lemma of a lemma is taken until it
stays: "paintings" becomes "painting", and that "paint", which one step alone would keep apart. Of 1,554 nouns among
the paper's concepts, the plural has the singular's lemma for all but 8, and would not for 25 without that step and a
few corrections. Of the words of 3,000 SBU captions 97 % have the lemma that spaCy finds in context; most others are
participles ("dining" is "dine" here, "dining" there).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

Method = Literal["lemmatized", "lowercased"]
"""How words are compared: by their lemmas, or in lower case alone."""

METHODS: tuple[Method, ...] = get_args(Method)

_MOST_KEPT = 1 << 18
PLURALS = {
    "calves": "calf",
    "crosses": "cross",
    "halves": "half",
    "leaves": "leaf",
    "lives": "life",
    "poles": "pole",
    "sales": "sale",
    "shelves": "shelf",
    "skies": "sky",
}
"""Plurals that simplemma takes for another word's: "leave", "ski", "calve". Concepts are nouns."""

_POSSESSIVE = re.compile(r"['’]s(?!\w)")


def split_words(text: str) -> list[str]:
    """The words of a text in order, in lower case; repeated words are repeated."""
    if text.isascii():
        folded = text.lower()
        if folded.isalnum():
            return [folded]
    else:
        folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(map(_kept, _POSSESSIVE.sub(" ", folded))).split()


def words_of(text: str, method: Method = "lemmatized") -> tuple[str, ...]:
    """The distinct words of a text as they are compared, in the order in which they occur.

    Raises:
        ValueError: the method is not known.
    """
    form = form_of(method)
    return tuple(dict.fromkeys(form(word) for word in split_words(text)))


def form_of(method: Method) -> Callable[[str], str]:
    """The function from a word in lower case to the form in which it is compared.

    Raises:
        ValueError: the method is not known.
    """
    if method not in METHODS:
        raise ValueError(f"the method is '{method}'; allowed: {', '.join(METHODS)}")
    return lemma if method == "lemmatized" else str


@lru_cache(maxsize=_MOST_KEPT)
def lemma(word: str) -> str:
    """The English lemma of a word in lower case, in lower case; a word that is not known is its own."""
    from simplemma import lemmatize

    seen = [PLURALS.get(word, word)]
    while (found := lemmatize(seen[-1], lang="en").casefold()) not in seen:
        seen.append(found)
    # Two words that are each other's lemma have one lemma all the same.
    return min(seen[seen.index(found) :])


@cache
def _kept(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in "LMN":
        return character
    return "" if category == "Cf" else " "
