"""Images made smaller before they are kept."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageCms, ImageOps

from dqe_resources.images import eight_bit, has_transparency, opened

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

    The new image is upright, 8 bits deep, in sRGB (an embedded profile is converted from; without one the pixels stay
    as they are) and holds nothing but pixels. Of an animation it is the first frame, which is what the stages look at.

    Raises:
        ImageError: the bytes give no image.
    """
    with opened(data) as image:
        width, height = image.size
        longest = max(width, height)
        if longest <= longest_side:
            return None
        # A JPEG gives a half, a quarter or an eighth of its size for a fraction of the time; twice what is wanted
        # leaves the filter enough to work on.
        image.draft(None, (-(-2 * width * longest_side // longest), -(-2 * height * longest_side // longest)))
        image.load()
        upright = _continuous(eight_bit(ImageOps.exif_transpose(image)))
        scale = longest_side / max(upright.size)
        size = (max(round(upright.width * scale), 1), max(round(upright.height * scale), 1))
        small = _in_srgb(upright.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0), image.info)
        if small.mode in {"RGBA", "LA"}:
            if small.getchannel("A").getextrema() != (255, 255):
                return _encoded(small, "PNG")
            small = small.convert(small.mode.removesuffix("A"))
        return _encoded(small, "JPEG", quality=JPEG_QUALITY)


def _continuous(image: Image.Image) -> Image.Image:
    """The image in a mode whose values can be mixed: grey, RGB or CMYK, with an alpha channel if it is transparent."""
    if has_transparency(image):
        return image.convert("LA" if image.mode == "LA" else "RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")


def _in_srgb(image: Image.Image, info: dict[Any, Any]) -> Image.Image:
    profile = info.get("icc_profile")
    if profile and image.mode in {"RGB", "RGBA", "CMYK"}:
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        try:
            opened_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, opened_profile, _srgb(), outputMode=mode)
        except (ImageCms.PyCMSError, OSError):
            converted = None  # a profile that is damaged, or meant for another mode, says nothing
        if converted is not None:
            return converted
    return image.convert("RGB") if image.mode == "CMYK" else image


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _encoded(image: Image.Image, kind: str, **options: Any) -> Resized:
    image.info = {}  # else Pillow writes back what it read: profiles, comments, EXIF
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Resized(file.getvalue(), kind.lower(), image.width, image.height)
