"""Captions from the web that describe nothing: file names, a shop's or an agency's phrases, markup ..."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Pattern:
    """Something that a caption can be or contain.

    Attributes:
        meaning: what it says of a caption.
        expression: in RE2's syntax, matched anywhere in the caption without regard to case.
    """

    meaning: str
    expression: str


def _any_of(*expressions: str) -> str:
    return f"(?:{'|'.join(expressions)})"


def _whole(*expressions: str) -> str:
    return rf"^\s*{_any_of(*expressions)}\s*$"


_EXTENSION = r"\.(?:jpe?g|jfif|png|gif|tiff?|bmp|webp|avif|hei[cf]|svg|psd|raw|cr[23]|nef|arw|dng)"
_ADDRESS_END = r"\.(?:com|net|org|info|biz|edu|gov|io|co\.uk|de|fr|ru|jp|cn|nl)"
_ELEMENT = (
    "(?:a|b|body|br|center|div|em|embed|font|form|h[1-6]|head|hr|html|i|iframe|img|input|li|link|meta|object|ol|p|pre"
    "|script|span|strong|style|sub|sup|svg|table|tbody|t[dhr]|u|ul|video)"
)
_AGENCIES = (
    r"(?:getty\s?images|shutterstock|istock(?:photo)?|alamy|dreamstime|123rf|depositphotos|fotolia|adobe\s?stock)"
)

PATTERNS = {
    "file_name": Pattern(
        "it is the name of a file, as a camera, a scanner or a program gives it",
        _whole(
            rf"\S[^\n]{{0,200}}{_EXTENSION}",
            # IMG_1234, DSC-00012, 100_2456, PXL_20210312_101512; and without a sign between, P1010317
            r"[a-z]{0,5}\d{0,4}[_-]\d{3,}(?:[_-][a-z]{0,3}\d{1,})*",
            r"[a-z]{1,5}\d{4,}|\d{8}_\d{4,}",
            r"(?:img|image|photo|picture|pic|scan|screen\s?shot|untitled|unnamed|download|capture|copy)"
            r"[\s_#(-]*\d+[\s)]*",
        ),
    ),
    "placeholder": Pattern(
        "it says that there is no caption",
        _whole(
            r"(?:null|none|nan|nil|n/a|undefined|unknown|untitled|unnamed|no\s(?:name|title|caption|description|text))",
            r"(?:image|photo|picture|thumbnail|img|pic|alt|title|caption|description|placeholder)",
            r"(?:no\s(?:image|photo|picture)|(?:image|photo|picture)\snot)\s(?:available|found|yet)",
        ),
    ),
    "boilerplate": Pattern(
        "it has a phrase of a web page or a picture agency",
        _any_of(
            r"\bclick\s(?:here|to\s(?:enlarge|view|zoom|see|expand)|(?:on\s)?(?:the\s|this\s)?(?:image|photo|picture))\b",
            r"\bstock\s(?:photo|image|picture|footage|illustration|vector|photograph)",
            r"\broyalty[\s-]free\b",
            r"\ball\srights\sreserved\b",
            r"\bcopyright\s(?:©|\(c\)|\d{4})",
            r"©|\(c\)\s?\d{4}",
            rf"\b{_AGENCIES}\b",
            r"\b(?:buy\snow|add\sto\s(?:cart|basket|wish\s?list)|shop\snow|free\s(?:shipping|download)|in\sstock)\b",
            r"\b(?:read\smore|see\smore|view\s(?:full\ssize|larger\simage)|sign\sup\s(?:now|for)|log\sin\sto)\b",
            r"\b(?:image|photo)\smay\scontain\b",
            r"\b(?:posted|uploaded)\sby\b",
            r"\blorem\sipsum\b",
        ),
    ),
    "credit": Pattern(
        "it says whose picture it is",
        _any_of(
            r"\b(?:photo|image|picture)(?:graph)?(?:ed)?\s?(?:credits?\b|courtesy\b|source\b|by:|©)",
            r"\bphotos?\sby\s",
            r"\bcourtesy\sof\s",
        ),
    ),
    "url": Pattern(
        "it has the address of a web page",
        _any_of(r"https?://", r"\bwww\.[a-z0-9]", rf"\b[a-z0-9-]{{2,63}}{_ADDRESS_END}\b"),
    ),
    "email": Pattern("it has an e-mail address", r"[a-z0-9][a-z0-9._%+-]{0,63}@[a-z0-9-]{1,63}\.[a-z]{2}"),
    "price": Pattern(
        "it has a price", _any_of(r"[$€£¥₹]\s?\d", r"\d\s?[€£₹]", r"\b\d[\d.,]*\s?(?:usd|eur|gbp|dollars\seach)\b")
    ),
    "product_code": Pattern(
        "it has the number of a product",
        _any_of(
            r"\b(?:sku|isbn|asin|upc|ean|mpn)\b[\s:#]*[a-z0-9-]*\d",
            r"\b(?:item|ref|model|product|part|art|style|lot)\.?\s?(?:no\.?|nr\.?|number|code|id|#)[\s:#]*[a-z0-9-]*\d",
        ),
    ),
    "markup": Pattern(
        "it has elements of HTML or BBCode",
        _any_of(rf"</?{_ELEMENT}(?:\s[^<>]*)?/?>", r"<!--", r"\[/?(?:url|img|b|i|u|quote)(?:=[^\]]*)?\]"),
    ),
    "only_hashtags": Pattern(
        "it is nothing but hashtags and names of accounts", _whole(r"[#@][^\s#@]+(?:[\s,]*[#@][^\s#@]+)*")
    ),
    "no_letters": Pattern("there is no letter in it", r"^\PL*$"),
}  # fmt: skip
"""Each pattern by its name."""


def found_patterns(captions: pa.Array) -> pa.ListArray:
    """The names of the patterns that match each caption, in the order of ``PATTERNS``.

    RE2 takes time in proportion to a caption's length, whatever is in it.

    Args:
        captions: strings [n].

    Returns:
        list<string> [n], null if the caption is.
    """
    matches = [pc.match_substring_regex(captions, one.expression, ignore_case=True) for one in PATTERNS.values()]
    grid = np.stack([pc.fill_null(found, fill_value=False).to_numpy(zero_copy_only=False) for found in matches], axis=1)
    offsets = np.concatenate([[0], np.cumsum(grid.sum(axis=1))]).astype(np.int32)
    names = pa.array(PATTERNS).take(pa.array(np.nonzero(grid)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names, mask=captions.is_null())
