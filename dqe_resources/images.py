"""Decodes image bytes from the web with care; nothing else in the project decodes them."""

from __future__ import annotations

import io
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow's decoders that are used at all: the fewer, the less an image from the web can reach."""

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".avif", ".avifs", ".heic", ".heif", ".heics", ".heifs", ".hif", ".jxl", ".svg", ".svgz"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm", ".jxr", ".wdp", ".hdp", ".ico", ".cur", ".icns"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm", ".tga", ".dds", ".qoi", ".pcx", ".exr", ".hdr"),
        *(".psd", ".psb", ".xcf", ".eps", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".raf", ".orf"),
        *(".rw2", ".pef", ".srw"),
    }
)
"""How the names of image files end, in lower case: also of formats that are not decoded, which become rows too."""

_EXIF_ORIENTATION = 0x0112


class ImageError(DataQualityError):
    """Bytes that give no image.

    Attributes:
        reason: missing, empty, too_large, not_an_image, bomb, truncated or damaged.
        detail: what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about an image file that has been decoded completely.

    Attributes:
        format: jpeg, png, webp ...
        width: pixels, once upright.
        height: pixels, once upright.
        exif_orientation: 1 to 8; 1 is upright.
    """

    format: str
    width: int
    height: int
    exif_orientation: int


def inspect(data: bytes, *, max_bytes: int, max_pixels: int) -> ImageInfo:
    """Decode an image file completely and describe it.

    Raises:
        ImageError: it is not an image, incomplete, or too large. A large one is refused before it is decoded.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    if len(data) > max_bytes:
        raise ImageError("too_large", f"{len(data):,} bytes, at most {max_bytes:,} are allowed")
    with opened(data, max_pixels) as image:
        width, height = image.size
        orientation = _orientation(image)
        # A JPEG is read to its end at an eighth of its size too, for a fraction of the time.
        image.draft("L", (max(width // 8, 1), max(height // 8, 1)))
        image.load()
        if orientation >= 5:
            width, height = height, width
        return ImageInfo("jpeg" if image.format == "MPO" else str(image.format).lower(), width, height, orientation)


def decode(data: bytes, longest_side: int | None = None, max_pixels: int | None = None) -> Image.Image:
    """The image upright, in RGB, transparency on white; the first frame of an animation.

    Args:
        data: the image file.
        longest_side: what is wanted of it, in pixels: a JPEG may be decoded at a half, a quarter or an eighth of its
            size, in a fraction of the time, but no smaller than this. By default all of it.
        max_pixels: pixels that it may have; None if it was looked at before.

    Raises:
        ImageError: the bytes give no image, or one that is larger than allowed, which is then not decoded.
    """
    with opened(data, max_pixels) as image:
        if longest_side is not None:
            scale = min(longest_side / max(image.size), 1)
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        upright = eight_bit(ImageOps.exif_transpose(image))
        if has_transparency(upright):
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return upright.convert("RGB")


def eight_bit(image: Image.Image) -> Image.Image:
    """The image as it is, but 16 bits of grey as 8."""
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16 bits to 8 where it should scale them.
        return image.convert("I").point(lambda value: value / 257).convert("L")
    return image


def has_transparency(image: Image.Image) -> bool:
    """Whether the image may have pixels that are not opaque."""
    return image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info


@contextmanager
def opened(data: bytes, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """An image file with its header read.

    Args:
        data: the image file.
        max_pixels: pixels that it may have; None if it was looked at before.

    Raises:
        ImageError: it is none, larger than allowed, or whatever Pillow raises while it is used.
    """
    try:
        with warnings.catch_warnings():
            # The limit is our own, and checked before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", f"begins with {data[:16]!r}") from error
    except Exception as error:
        # Pillow's plugins raise errors of many kinds on hostile headers, and each of them is this row's outcome.
        raise ImageError("damaged", f"{type(error).__name__}: {error}") from error
    with image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise ImageError("bomb", f"{image.width} x {image.height} pixels, at most {max_pixels:,} are allowed")
        try:
            yield image
        except ImageError:
            raise
        except Exception as error:
            cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
            raise ImageError("truncated" if cut else "damaged", f"{type(error).__name__}: {error}") from error


def _orientation(image: Image.Image) -> int:
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
