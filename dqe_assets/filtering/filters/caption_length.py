"""How long captions are, as DataComp's filters ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from dqe_assets.filtering.filters.protocol import Mask, as_mask

if TYPE_CHECKING:
    import pyarrow as pa

_FEWEST_CHARACTERS = 6

# What str.isspace says of.
_SPACE = r"\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_THREE_WORDS = rf"[^{_SPACE}][{_SPACE}]+[^{_SPACE}]+[{_SPACE}]+[^{_SPACE}]"

# fastText cuts at these, and reads each line feed as a token of its own.
_CUT = r"\x00\t-\r\x20"
_TWO_TOKENS = rf"[^{_CUT}][{_CUT}]+[^{_CUT}]|\n(?s:.*)(?:\n|[^{_CUT}])|[^{_CUT}](?s:.*)\n"


def has_words(text: pa.Array | pa.ChunkedArray) -> Mask:
    """Where ``split()`` gives more than two words and there are more than five characters (code points): [n]."""
    return _is_long(text, _THREE_WORDS)


def has_tokens(text: pa.Array | pa.ChunkedArray) -> Mask:
    """Where fastText reads more than one token and there are more than five characters (code points): [n]."""
    return _is_long(text, _TWO_TOKENS)


def _is_long(text: pa.Array | pa.ChunkedArray, pattern: str) -> Mask:
    # A match ends at the first word that suffices, where splitting would go on to the last.
    matches = pc.match_substring_regex(text, pattern)
    return as_mask(pc.and_(pc.greater_equal(pc.utf8_length(text), _FEWEST_CHARACTERS), matches))
