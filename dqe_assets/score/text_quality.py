"""Measures of a caption from its text alone: language, length, signs, repetition, and known patterns."""

from __future__ import annotations

import sys
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.score.patterns import found_patterns
from dqe_assets.score.tables import TEXT_QUALITY
from dqe_resources.models.language import detect_language
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

READ = 10_000
"""Characters of a caption that are looked at; of a longer one, only the length is of the whole."""

READ_FOR_LANGUAGE = 128
"""Characters by which its language is told."""

GRAM = 3
"""Words of the runs whose repetition is counted."""

AT_ONCE = 1024
"""Captions measured at once."""

ENGLISH = "en"

# An odd number of 64 bits, whose powers keep runs of words apart.
_MIX = np.uint64(0x9E3779B97F4A7C15)
# One number counts signs, digits and spaces at once, in 20 bits each: more than READ can fill.
_SPECIAL, _DIGIT, _SPACE = 1, 1 << 20, 1 << 40


def text_quality(uids: pa.ChunkedArray, captions: Mapping[str, pa.Array]) -> pa.Table:
    """One row of ``TEXT_QUALITY`` for each caption, n for each source; null if there is no caption.

    Args:
        uids: n uids.
        captions: n captions of each source, null if there is none.
    """
    pieces = [
        (source, uids.slice(start, AT_ONCE), texts.slice(start, AT_ONCE))
        for source, texts in captions.items()
        for start in range(0, max(len(texts), 1), AT_ONCE)
    ]
    return pa.concat_tables(ordered_map(lambda piece: _piece(*piece), pieces, ahead=4))


def _piece(source: str, uids: pa.ChunkedArray, captions: pa.Array) -> pa.Table:
    read = pc.utf8_slice_codeunits(captions, 0, READ)
    languages, probabilities = languages_of(read)
    special, digits = sign_ratios(read)
    words, repeated = word_repetition(read)
    return pa.table(
        {
            "uid": uids,
            "caption_source": pa.repeat(source, len(captions)),
            "language": languages,
            "language_probability": probabilities,
            "words": words,
            "characters": pc.utf8_length(captions),
            "special_ratio": special,
            "digit_ratio": digits,
            "repetition": repeated,
            "patterns": found_patterns(read),
        },
        schema=TEXT_QUALITY,
    )


def languages_of(captions: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The likeliest language of each caption by its first ``READ_FOR_LANGUAGE`` characters, and its probability.

    Returns:
        ISO 639 codes, string [n], and probabilities, float32 [n]; null if a caption has no letter.
    """
    lettered = pc.if_else(pc.match_substring_regex(captions, r"\pL"), captions, pa.scalar(None, pa.string()))
    beginnings = pc.utf8_slice_codeunits(lettered, 0, READ_FOR_LANGUAGE).to_pylist()
    found = [(None, None) if text is None else detect_language(text) for text in beginnings]
    languages, probabilities = zip(*found, strict=True) if found else ((), ())
    return pa.array(languages, pa.string()), pa.array(probabilities, pa.float32())


def sign_ratios(captions: pa.Array) -> tuple[pa.Array, pa.Array]:
    """How much of each caption is neither letter, digit nor space, and how much is digits.

    Letters have the marks that go with them. A script's digits are what Unicode calls numbers.

    Args:
        captions: strings [n] of at most ``READ`` characters.

    Returns:
        float32 [n] and float32 [n], of all characters but spaces: 0 to 1; null if there is none.
    """
    lengths = pc.fill_null(pc.utf8_length(captions), 0).to_numpy(zero_copy_only=False)
    joined = "".join(captions.drop_null().to_pylist())
    counts = np.concatenate([[0], np.cumsum(_counted(np.frombuffer(joined.encode("utf-32-le"), np.uint32)))])
    ends = np.cumsum(lengths)
    inside = counts[ends] - counts[ends - lengths]
    visible = lengths - inside // _SPACE
    special, digits = (inside % _DIGIT, inside % _SPACE // _DIGIT)
    return tuple(
        pa.array((count / np.maximum(visible, 1)).astype(np.float32), mask=visible == 0) for count in (special, digits)
    )


def word_repetition(captions: pa.Array) -> tuple[pa.Array, pa.Array]:
    """How many words each caption has, and the share of them in runs of three that came before in it.

    As Rae et al. (Gopher, arXiv 2112.11446, A1.1) count the characters of a document that lie in duplicate n-grams,
    with words in place of characters, and the three words that a short text can repeat in place of five to ten. Words
    are separated by white space; case and the signs around them do not count.

    Returns:
        int32 [n] and float32 [n], 0 to 1; null if the caption is.
    """
    texts = pc.utf8_trim_whitespace(captions)
    split = pc.utf8_split_whitespace(texts)
    # Splitting an empty text gives one empty word.
    counts = pc.if_else(pc.equal(texts, ""), 0, pc.list_value_length(split))
    words = pc.utf8_trim(pc.utf8_lower(pc.list_flatten(split)), _punctuation())
    numbers = pc.dictionary_encode(words).indices.to_numpy().astype(np.uint64)
    lengths = pc.fill_null(pc.list_value_length(split), 0).to_numpy()
    owner = np.repeat(np.arange(len(captions)), lengths)
    starts = np.flatnonzero(owner[: max(len(owner) - GRAM + 1, 0)] == owner[GRAM - 1 :])
    runs = owner[starts].astype(np.uint64)
    for step in range(GRAM):
        runs = runs * _MIX + numbers[starts + step]
    _, first = np.unique(runs, return_index=True)
    again = np.delete(starts, first)
    repeated = np.zeros(len(numbers), bool)
    for step in range(GRAM):
        repeated[again + step] = True
    share = np.bincount(owner, repeated, len(captions)) / np.maximum(lengths, 1)
    mask = captions.is_null().to_numpy(zero_copy_only=False)
    return counts.cast(pa.int32()), pa.array(share.astype(np.float32), mask=mask)


def _counted(points: NDArray[np.uint32]) -> NDArray[np.int64]:
    """What each code point adds to the counts; those that come for the first time are looked up, once."""
    table = _added()
    added = table[points]
    unknown = np.unique(points[added < 0])
    if not unknown.size:
        return added
    for point in unknown.tolist():
        sign = chr(point)
        category = "Z" if sign.isspace() else unicodedata.category(sign)[0]
        table[point] = {"L": 0, "M": 0, "N": _DIGIT, "Z": _SPACE}.get(category, _SPECIAL)
    return table[points]


@cache
def _added() -> NDArray[np.int64]:
    """What each code point adds; -1 if that was not looked up yet."""
    return np.full(sys.maxunicode + 1, -1, np.int64)


@cache
def _punctuation() -> str:
    """The signs that can stand around a word."""
    return "".join(sign for sign in map(chr, range(0x2100)) if unicodedata.category(sign)[0] in "PS")
