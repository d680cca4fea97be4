"""Images made smaller before they are kept."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from dqe_resources import images

JPEG_QUALITY = 95
"""As img2dataset has it."""


@dataclass(frozen=True, slots=True)
class Resized:
    """An image file that takes the place of a larger one.

    Attributes:
        data: the file.
        format: jpeg, or png where pixels are not all opaque.
        width: pixels.
        height: pixels.
    """

    data: bytes
    format: str
    width: int
    height: int


def resize(data: bytes, longest_side: int) -> Resized | None:
    """An image made so small that its longest side is ``longest_side`` pixels; None if it is so already.

    The new image is upright, 8 bits deep, in sRGB, and holds nothing but pixels, and what the file said of its rights.
    Of an animation it is the first frame, which is what the stages look at.

    Raises:
        ImageError: the bytes give no image.
    """
    with images.opened(data) as found:
        longest = max(found.size)
    if longest <= longest_side:
        return None
    # A JPEG gives a half, a quarter or an eighth of its size for a fraction of the time; twice what is wanted leaves
    # the filter enough to work on.
    large = images.picture(data, 2 * longest_side)
    scale = longest_side / max(large.size)
    size = (max(round(large.width * scale), 1), max(round(large.height * scale), 1))
    small = large.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if small.mode in {"RGBA", "LA"}:
        if small.getchannel("A").getextrema() != (255, 255):
            return _encoded(small, data, "PNG")
        small = small.convert(small.mode.removesuffix("A"))
    return _encoded(small, data, "JPEG", quality=JPEG_QUALITY)


def _encoded(image: Image.Image, found: bytes, kind: str, **options: Any) -> Resized:
    file = io.BytesIO()
    image.save(file, kind, **options)
    rights = images.rights_of(found)
    smaller = images.with_rights(file.getvalue(), rights) if rights else file.getvalue()
    return Resized(smaller, kind.lower(), image.width, image.height)
