"""Writes nouns.txt, the nouns that ``lemma`` leaves as they are, from WordNet and simplemma.

    python -m dqe_assets.concepts.make_nouns [FOLDER OF WORDNET]

simplemma knows no parts of speech: it takes the noun "lighter" for a form of "light", "parking" of "park", "moped" of
"mope". So a noun of WordNet keeps itself, unless simplemma's step is a plural's or leads to another spelling:

- **A plural**: the step is one that WordNet's rules or its list of irregular nouns make, and leads to a noun, or to a
  word that WordNet does not have ("bikers"): "glasses" is "glass", "men" is "man". But "tights" stays, since "tight" is
  no noun, and so does a name if its singular is no noun ("Rhodes") or one that WordNet's tagged texts have less often
  ("Mars" is no plural of "mar").
- **Another spelling**, or a plural that WordNet does not list: one of the two words has all senses of the other, the
  step is none of a verb or an adjective, and the lemma is a noun at least as often as not: "defence" is "defense", and
  "algae" is "alga". But "dice" stays, since "die" is a verb before all.

The list is written rather than found at work, so that counts do not depend on whether a machine has WordNet.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from simplemma import lemmatize

from dqe_assets.concepts.lemmas import NOUNS, PLURALS, split_words

DEBIAN = Path("/usr/share/wordnet")

_HEADER = """\
# Nouns whose lemma is themselves, although simplemma has another one. Written by dqe_assets/concepts/make_nouns.py from
# WordNet, under its licence:
#
"""

_PLURAL_ENDINGS = (
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y")),
)
_OTHER_ENDINGS = (
    *(("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)
"""Of nouns, and of verbs and adjectives: WordNet's manual page morphy(7)."""


_LICENCE = re.compile(r" +\d+ ?")
"""How its lines begin, in WordNet's files."""


class Nouns:
    """What WordNet says of its nouns.

    Attributes:
        senses: the synsets of each noun.
        words: what WordNet knows as any part of speech.
    """

    def __init__(self, folder: Path) -> None:
        """Read WordNet's files of a folder."""
        entries = [line.split() for line in _lines(folder / "index.noun")]
        self.senses = {fields[0]: frozenset(fields[-int(fields[2]) :]) for fields in entries}
        self.words = set(self.senses)
        for part in ("verb", "adj", "adv"):
            self.words |= {line.split()[0] for line in _lines(folder / f"index.{part}")}
        self._irregular = {word: lemmas for word, *lemmas in map(str.split, _lines(folder / "noun.exc"))}
        spellings = defaultdict(set)
        for line in _lines(folder / "data.noun"):
            fields = line.split()
            for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]:
                spellings[word.lower()].add(word)
        self._names = {word for word, written in spellings.items() if word not in written}
        self._as_noun: Counter[str] = Counter()
        self._otherwise: Counter[str] = Counter()
        for line in _lines(folder / "cntlist.rev"):
            key, _, count = line.split()
            word, _, sense = key.partition("%")
            (self._as_noun if sense.startswith("1") else self._otherwise)[word] += int(count)

    def is_plural(self, word: str, lemma: str) -> bool:
        """Whether a noun is the plural of a lemma."""
        # WordNet's list of irregular nouns has "crying", a mistake.
        listed = lemma in self._irregular.get(word, ()) and not word.endswith("ing")
        if not listed and not _is_step(word, lemma, _PLURAL_ENDINGS):
            return False
        if word in self._names:
            return lemma in self.senses and self._as_noun[word] <= self._as_noun[lemma]
        return lemma in self.senses or lemma not in self.words

    def is_spelling(self, word: str, lemma: str) -> bool:
        """Whether a noun is a lemma in another spelling, or a plural that is not listed."""
        own, other = self.senses[word], self.senses.get(lemma, frozenset())
        return (
            bool(own & other)
            and (own <= other or other <= own)
            and not _is_step(word, lemma, _OTHER_ENDINGS)
            and self._as_noun[lemma] >= self._otherwise[lemma]
        )


def nouns_that_stay(folder: Path) -> list[str]:
    """The nouns of WordNet that simplemma takes for something else, in alphabetical order."""
    nouns = Nouns(folder)
    stay = []
    for word in nouns.senses:
        if word in PLURALS or split_words(word) != [word]:
            continue
        step = lemmatize(word, lang="en").casefold()
        if step != word and not (
            nouns.is_plural(word, step) or nouns.is_plural(step, word) or nouns.is_spelling(word, step)
        ):
            stay.append(word)
    return sorted(stay)


def _is_step(word: str, lemma: str, endings: tuple[tuple[str, str], ...]) -> bool:
    return any(word.endswith(ending) and word.removesuffix(ending) + instead == lemma for ending, instead in endings)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not _LICENCE.match(line)]


def write_nouns(folder: Path) -> None:
    """Write the list, with the licence that stands at the head of WordNet's files."""
    lines = (folder / "index.noun").read_text(encoding="utf-8").splitlines()
    licence = (f"# {line[found.end() :]}".rstrip() for line in lines if (found := _LICENCE.match(line)))
    NOUNS.write_text(_HEADER + "\n".join([*licence, *nouns_that_stay(folder), ""]), encoding="utf-8")


if __name__ == "__main__":
    write_nouns(Path(sys.argv[1]) if len(sys.argv) > 1 else DEBIAN)
