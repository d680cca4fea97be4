"""Images as a vision-language model gets them."""

from __future__ import annotations

import io

from PIL import Image

from dqe_resources.images import decode

_QUALITY = 90
_RESIZE_FROM = 2.0


def prepare_image(data: bytes, longest_side: int) -> bytes:
    """An image upright, in RGB, no larger than asked for, as a JPEG of quality 90.

    Args:
        data: the image file as found.
        longest_side: in pixels; a smaller image keeps its size, a larger one is resized by an antialiased filter.

    Raises:
        ImageError: the bytes give no image.
    """
    image = decode(data, longest_side)
    # reducing_gap: a box filter first, down to twice the size, which the eye cannot tell and takes half the time.
    image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC, reducing_gap=_RESIZE_FROM)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()
