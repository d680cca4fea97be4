"""Captions as sets of four-letter runs: what they share, and signatures that tell it without the texts."""

from __future__ import annotations

import unicodedata
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HASHES = 256
"""Bytes of a signature: the lowest byte of each of so many minima."""

_RUN = 4
_SEED = 1
# About 50 MB of hashes and minima for captions of a thousand letters.
_TEXTS_AT_ONCE = 1_000
_PAIRS_AT_ONCE = 4_000
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)


class _WordLetters(dict[int, int]):
    """Of each code point itself if it can be part of a word, else a space."""

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


_WORD_LETTERS = _WordLetters()
_ASCII_LETTERS = bytes(_WORD_LETTERS[ord(chr(code).lower())] for code in range(128)) + bytes(128)


def normalised_text(text: str) -> str:
    """A caption without what does not count: its words in lower case (NFKC, case-folded), one space between them.

    Words are runs of letters, marks and digits of any script. Empty if there is none.
    """
    if text.isascii():
        # The same, several times as fast.
        return b" ".join(text.encode().translate(_ASCII_LETTERS).split()).decode()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_WORD_LETTERS).split())


def text_digest(text: str) -> bytes:
    """16 bytes that are equal for equal normalised texts only."""
    return blake2b(text.encode(), digest_size=16).digest()


def signatures(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Signatures of normalised texts: b-bit MinHash (Broder 1997; Li and König 2010), of 8 bits.

    Of two texts whose sets of four-letter runs have a Jaccard similarity of J, a share of about J + (1 - J) / 256 of
    the bytes agree.

    Args:
        texts: none empty.

    Returns:
        uint8 [n, HASHES].
    """
    from rensa import RMinHash

    found = np.empty((len(texts), HASHES), np.uint8)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        hashes, offsets = _runs(pa.array(texts[start : start + _TEXTS_AT_ONCE], pa.string()))
        # MurmurHash3's finaliser: MinHash needs hashes in no order that the letters have.
        for mixer in _MIXERS:
            hashes ^= hashes >> _SHIFT
            hashes *= mixer
        hashes ^= hashes >> _SHIFT
        minima = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), HASHES, _SEED)
        found[start : start + _TEXTS_AT_ONCE] = np.array(minima.to_rows(), np.uint32).astype(np.uint8)
    return found


def jaccard(texts: pa.StringArray, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jaccard similarity of the sets of four-letter runs of each pair of texts.

    Args:
        texts: normalised, none null or empty.
        pairs: positions of texts, int64 [m, 2].

    Returns:
        float64 [m], 0 to 1.
    """
    sets = _run_sets(texts)
    sizes = np.diff(sets.indptr)
    similarity = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        left, right = pairs[start : start + _PAIRS_AT_ONCE].T
        shared = sets[left].multiply(sets[right]).sum(axis=1)
        similarity[start : start + _PAIRS_AT_ONCE] = shared / (sizes[left] + sizes[right] - shared)
    return similarity


def _run_sets(texts: pa.StringArray) -> Any:
    """The four-letter runs of each text: a scipy.sparse.csr_array with a 1 for each, in the column of its hash.

    With 63 bits, two runs of a pair of texts share a column by chance once in 10**12 pairs.
    """
    from scipy.sparse import csr_array

    hashes, offsets = _runs(texts)
    columns = (hashes & np.uint64(2**63 - 1)).view(np.int64)
    sets = csr_array((np.ones(len(columns), np.int32), columns, offsets), shape=(len(texts), 2**63 - 1))
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


def _runs(texts: pa.StringArray) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A 64-bit number of each four-letter run of " text ", one text after another; and where those of each begin."""
    space = pa.scalar(" ")
    padded = pc.utf8_rpad(pc.binary_join_element_wise(space, texts, space, ""), _RUN)
    ends = np.cumsum(pc.utf8_length(padded).to_numpy(), dtype=np.int64)
    # As one string: to decode it is many times as fast as to look at each text.
    whole = pc.binary_join(pa.ListArray.from_arrays([0, len(padded)], padded), "")[0].as_py()
    letters = np.frombuffer(whole.encode("utf-32-le"), np.uint32).astype(np.uint64)
    begins_run = np.ones(len(letters), np.bool_)
    for back in range(1, _RUN):
        begins_run[ends - back] = False
    hashes = np.zeros(max(0, len(letters) - _RUN + 1), np.uint64)
    for place in range(_RUN):
        hashes *= _FACTOR
        hashes += letters[place : place + len(hashes)]
    runs = np.concatenate([[0], ends - (_RUN - 1) * np.arange(1, len(ends) + 1)])
    return hashes[begins_run[: len(hashes)]], runs
