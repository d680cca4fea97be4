"""First synsets of words in WordNet 3.0, as NLTK 3.8.1 finds them, which DataComp's code pins.

A synset is known by its offset in the files of WordNet, the number in an ImageNet id. DataComp's code compares offsets
alone, so that a verb's or an adjective's synset whose offset is by chance an ImageNet id's counts as found.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dqe_resources.errors import WholeRunError
from dqe_resources.models.packages import package_file

_PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
"""In NLTK's order: a word's first synset is a noun's if there is one."""

_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
        *(("men", "man"), ("ies", "y")),
    ),
    "verb": (*(("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
"""Morphy's rules of detachment: an ending, and what takes its place (WordNet's manual page morphy(7))."""

_LONGEST_WORD = 10_000

_HELP = (
    "WordNet 3.0 comes with NLTK (python -m nltk.downloader wordnet) and Debian (apt install wordnet-base), "
    "or name the folder of its index.noun and noun.exc"
)


class WordNetError(WholeRunError):
    """WordNet's files are not there or cannot be read; says where it looked and what to do."""


@dataclass(frozen=True)
class _PartOfSpeech:
    """The lemmas of one part of speech, each with the offset of its first synset, and the irregular forms."""

    offsets: dict[str, int]
    exceptions: dict[str, tuple[str, ...]]
    endings: tuple[tuple[str, str], ...]

    def first_offset(self, word: str) -> int | None:
        irregular = self.exceptions.get(word)
        forms = self._detached((word,)) if irregular is None else irregular
        for form in (word, *forms):
            if form in self.offsets:
                return self.offsets[form]
        # A regular form that leads nowhere is cut again, until nothing is left to cut.
        while forms and irregular is None:
            forms = self._detached(forms)
            for form in forms:
                if form in self.offsets:
                    return self.offsets[form]
        return None

    def _detached(self, forms: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            form.removesuffix(ending) + instead
            for form in forms
            for ending, instead in self.endings
            if form.endswith(ending)
        )


class WordNet:
    """WordNet's index, read from a folder.

    Attributes:
        folder: where it was read from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = [
            _PartOfSpeech(_read_index(folder, part), _read_exceptions(folder, part), _ENDINGS[part])
            for part in _PARTS_OF_SPEECH
        ]

    @property
    def digest(self) -> str:
        """Of the files that decide."""
        digest = hashlib.sha256()
        for part in _PARTS_OF_SPEECH:
            for name in (f"index.{part}", f"{part}.exc"):
                digest.update((self.folder / name).read_bytes())
        return f"sha256:{digest.hexdigest()}"

    def first_offset(self, word: str) -> int | None:
        """Offset of a word's first synset, or None if WordNet does not know it.

        Args:
            word: as it stands in a text; lower-cased, and nothing stripped off it. One of more than 10,000 characters
                is not looked up: cutting ending after ending off it may take seconds.
        """
        if len(word) > _LONGEST_WORD:
            return None
        lower = word.lower()
        for part in self._parts:
            offset = part.first_offset(lower)
            if offset is not None:
                return offset
        return None


@cache
def open_wordnet(folder: Path | None = None) -> WordNet:
    """WordNet from a folder, or from where NLTK or Debian puts it.

    NLTK's is the original, with which DataComp's subsets were made. Debian's has the same nouns and forms, but the
    verbs and adjectives of its rebuilt files have other offsets, so that others of them meet an ImageNet id by chance:
    of 757,000 forms of WordNet's words the outcome differs for 183 (visual, install, rocking ...).

    Raises:
        WordNetError: it is not there, or not readable.
    """
    if folder is None:
        folders = [*(root / "corpora" / "wordnet" for root in _nltk_roots()), Path("/usr/share/wordnet")]
        folder = next((path for path in folders if (path / "index.noun").is_file()), None)
        if folder is None:
            raise WordNetError(f"WordNet is not in {', '.join(map(str, folders))}. {_HELP}")
    return WordNet(folder)


@cache
def imagenet21k_offsets() -> frozenset[int]:
    """Offsets of ImageNet-21k's 21,843 synsets: Google's list, which DataComp's code reads, from timm's data files."""
    ids = package_file("timm", "timm", "data/_info/imagenet21k_goog_synsets.txt").read_text(encoding="ascii").split()
    return frozenset(int(wordnet_id[1:]) for wordnet_id in ids)


def _nltk_roots() -> list[Path]:
    named = [Path(root) for root in os.environ.get("NLTK_DATA", "").split(os.pathsep) if root]
    return [*named, Path.home() / "nltk_data", Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")]


def _read_index(folder: Path, part: str) -> dict[str, int]:
    offsets = {}
    for number, line in enumerate(_lines(folder / f"index.{part}"), 1):
        if line.startswith(" "):  # the licence
            continue
        # lemma, part of speech, synsets, n, n pointers, senses, senses in use, offsets (the manual page wndb(5))
        fields = line.split()
        try:
            offsets[fields[0]] = int(fields[6 + int(fields[3])])
        except (IndexError, ValueError) as error:
            raise WordNetError(f"{folder / f'index.{part}'}, line {number}: not an entry of WordNet's index") from error
    return offsets


def _read_exceptions(folder: Path, part: str) -> dict[str, tuple[str, ...]]:
    entries = (line.split() for line in _lines(folder / f"{part}.exc"))
    return {entry[0]: tuple(entry[1:]) for entry in entries if entry}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WordNetError(f"{path}: cannot be read ({error}). {_HELP}") from error
