"""Long captions cut into sentences that a text encoder reads whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]*]*\s+|(?<=[。！？])\s*|\s*\n\s*")
# What a full stop behind it does not end: titles, abbreviations, and the initial of a name.
_NO_END = re.compile(r"(?:^|[\s(])(?:mr|mrs|ms|dr|st|mt|prof|vs|approx|e\.g|i\.e|[a-z])\.$", re.IGNORECASE)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order: nothing but white space is lost.

    A sentence ends with ``.``, ``!``, ``?`` or an ellipsis before white space, with their Chinese and Japanese forms,
    or with a line; not after a title, an initial or the like ("Dr. J. Smith").
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        if not _NO_END.search(text, start, end.start()):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def readable_parts(
    texts: Sequence[str], count_tokens: Callable[[Sequence[str]], np.ndarray], max_tokens: int
) -> list[list[str]]:
    """Each text as sentences that an encoder reads whole.

    A sentence that is too long is halved between words until its parts fit, so that they are of like length. Sentences
    are never joined: a short one says as much of the image as a long one, and costs no more. Of a single word that
    does not fit the encoder reads the beginning.

    Args:
        texts: n texts.
        count_tokens: tokens of texts, special ones included.
        max_tokens: the most that the encoder reads.
    """
    parts = [split_sentences(text) for text in texts]
    while True:
        flat = [part for of_text in parts for part in of_text]
        too_long = iter((count_tokens(flat) > max_tokens).tolist())
        halved = [
            [half for part in of_text for half in (_halves(part) if next(too_long) else [part])] for of_text in parts
        ]
        if halved == parts:
            return parts
        parts = halved


def _halves(text: str) -> list[str]:
    words = text.split()
    middle = (len(words) + 1) // 2
    return [" ".join(half) for half in (words[:middle], words[middle:]) if half] if len(words) > 1 else [text]
