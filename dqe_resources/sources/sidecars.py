"""Caption files next to images: which belongs to which image, and what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dqe_resources.images import IMAGE_SUFFIXES
from dqe_resources.sources.local_file import FileError
from dqe_resources.sources.texts import readable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dqe_resources.sources.local_file import LocalFile

CAPTION_SUFFIXES = (".txt", ".caption")

CAPTION_FILES = "a.txt, a.jpg.txt, a.caption and a.jpg.caption next to a.jpg"
"""The names of an image's caption file, in the order in which they are looked for, for people."""

_MOST_BYTES = 1 << 20
_LINE_END = re.compile("\r\n|\r|\n")
_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Sorted:
    """The names of a folder's files, by what they are.

    Attributes:
        images: each with its caption file, or None.
        orphans: caption files that belong to no image, or to one that has another.
        others: all others.
    """

    images: list[tuple[str, str | None]] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def sort_names(names: Iterable[str]) -> Sorted:
    """Tell images, their caption files and other files apart, by their names.

    An image's caption file is called as the image, with ``.txt`` or ``.caption`` instead of its suffix or after it. A
    suffix may be in any letter case. Where no name fits so, one that differs in letter case fits too.
    """
    images: list[str] = []
    others: list[str] = []
    texts: dict[tuple[str, str], str] = {}
    for name in names:
        stem, suffix = _split(name)
        if (lower := suffix.lower()) in IMAGE_SUFFIXES:
            images.append(name)
        elif lower not in CAPTION_SUFFIXES or (stem, lower) in texts:
            others.append(name)
        else:
            texts[stem, lower] = name
    found = {image: next((texts[key] for key in _keys(image) if key in texts), None) for image in images}
    used = {text for text in found.values() if text is not None}
    folded = {(stem.lower(), suffix): text for (stem, suffix), text in texts.items() if text not in used}
    for image in images if folded else ():
        if found[image] is None:
            found[image] = next((folded[key] for key in _keys(image.lower()) if key in folded), None)
    used.update(text for text in found.values() if text is not None)
    return Sorted(list(found.items()), [text for text in texts.values() if text not in used], others)


def _keys(image: str) -> list[tuple[str, str]]:
    return [(stem, suffix) for suffix in CAPTION_SUFFIXES for stem in (_split(image)[0], image)]


def _split(name: str) -> tuple[str, str]:
    """A name without its suffix, and the suffix."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")


def read_captions(file: LocalFile) -> list[str]:
    """The captions in a caption file: its lines, but for blank ones.

    Raises:
        FileError: it cannot be read, or is not in UTF-8; its reason is that of the row then.
    """
    data = file.read(_MOST_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = _OTHER_ENCODINGS.get(data[:2])
        found = f"{encoding} text" if encoding else f"not UTF-8 text (byte {error.start})"
        raise FileError("bad_row", f"{readable(str(file.path))}: {found}; save it as UTF-8") from error
    return [line for line in map(str.strip, _LINE_END.split(text)) if line]
