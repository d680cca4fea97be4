"""Pictures as copies of them are likely to look: what a sample is compared with is not only the picture itself.

Features and hashes of a picture that was cut, or has words over it, are far from those of the whole. The pictures of a
reference set are few and looked at once, so that each is looked at in several variants, and a sample in one.
"""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = "whole"

LONGEST_SIDE = 512
"""Pixels of the longest side of a picture that variants are made of: features and hashes look at fewer."""

_MIDDLE = 0.85
_WORDS = "when you see what nobody else has ever seen before, you tell it to them"
_SMALLEST_LETTERS = 6


def _middle(image: Image.Image) -> Image.Image:
    """What is left when a seventh of width and height is cut off, half of it on each side."""
    width, height = image.size
    left, top = (round(side * (1 - _MIDDLE) / 2) for side in (width, height))
    return image.crop((left, top, max(width - left, left + 1), max(height - top, top + 1)))


def _lettered(image: Image.Image, *, at_the_top: bool) -> Image.Image:
    """With a line or two of white letters on a black band."""
    image = image.copy()
    width, height = image.size
    size = max(_SMALLEST_LETTERS, min(width, height) // 14)
    font = ImageFont.load_default(size)
    letters = max(1, int(width / (font.getlength(_WORDS) / len(_WORDS))) - 2)
    text = "\n".join(textwrap.wrap(_WORDS, letters)[:3])
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, align="center")
    band = bottom - top + size
    begin = 0 if at_the_top else height - band
    draw.rectangle((0, begin, width, begin + band), fill="black")
    place = ((width - (right - left)) / 2 - left, begin + size / 2 - top)
    draw.multiline_text(place, text, "white", font, align="center")
    return image


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "middle": _middle,
    "lettered_bottom": partial(_lettered, at_the_top=False),
    "lettered_top": partial(_lettered, at_the_top=True),
}
"""What is made of an RGB picture, apart from the whole, by the name of the variant."""
