"""Image bytes to pixels: within limits, upright, in sRGB."""

from __future__ import annotations

import io
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError, features

from dqe_resources.images.colour import flattened, in_srgb
from dqe_resources.images.containers import (
    UPRIGHT,
    Bare,
    bare_avif,
    bare_jpeg,
    bare_png,
    bare_tiff,
    ends_early,
    exif_orientation,
)
from dqe_resources.images.faults import ImageError, fault_of
from dqe_resources.images.formats import AVIF, BMP, DECODED, HEIC, JPEG, PNG, TIFF, WEBP, format_of
from dqe_resources.images.jpeg_scan import is_garbled, scan_complaint, with_end

if TYPE_CHECKING:
    from collections.abc import Iterator

# Pillow warns of large images and of odd metadata: the limits are our own, and the metadata is read here.
warnings.filterwarnings("ignore", module=r"PIL\.")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts about an image file that has been decoded completely.

    Attributes:
        format: jpeg, png, webp ...
        width: pixels, once upright.
        height: pixels, once upright.
        exif_orientation: as the file has it, 1 to 8; 1 is upright.
    """

    format: str
    width: int
    height: int
    exif_orientation: int


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """An image file whose header is read.

    Attributes:
        image: Pillow's image, not decoded yet.
        bare: the file that is decoded, and how its pixels are to be shown.
    """

    image: Image.Image
    bare: Bare

    @property
    def format(self) -> str:
        """Jpeg, png, webp ..., in lower case."""
        return str(self.image.format).lower()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, once upright."""
        width, height = self.image.size
        return (height, width) if self.bare.orientation >= 5 else (width, height)

    def draft(self, longest_side: int) -> None:
        """Have a JPEG decoded at a half, a quarter or an eighth of its size, but no smaller than asked for."""
        if self.format == "jpeg":
            scale = min(longest_side / max(self.image.size), 1)
            self.image.draft(None, (math.ceil(self.image.width * scale), math.ceil(self.image.height * scale)))

    def finished(self, pixels: Image.Image) -> Image.Image:
        """Pixels of the image, upright and in sRGB, holding nothing else of what the file says."""
        profile = self.bare.profile or self.image.info.get("icc_profile")
        shown = in_srgb(pixels, profile, self.bare.gamma)
        if (turn := _TURNS.get(self.bare.orientation)) is not None:
            shown = shown.transpose(turn)
        shown.info = {}
        return shown


def inspect(data: bytes, *, max_bytes: int, max_pixels: int) -> ImageInfo:
    """Decode an image file completely and describe it.

    Raises:
        ImageError: it is not an image, incomplete, damaged, or too large. A large one is refused before it is decoded.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    if len(data) > max_bytes:
        raise ImageError("too_large", f"{len(data):,} bytes, at most {max_bytes:,} are allowed")
    with opened(data, max_pixels) as found:
        size = found.size
        if found.format == "jpeg":
            _check_scan(found)
        else:
            found.image.load()
            # A pixel tells whether such pixels can be brought into sRGB.
            found.finished(found.image.crop((0, 0, 1, 1)))
        return ImageInfo(found.format, *size, found.bare.orientation)


def decode(data: bytes, longest_side: int | None = None, max_pixels: int | None = None) -> Image.Image:
    """The image as a browser shows it on white: upright, in RGB (sRGB); the first frame of an animation.

    Args:
        data: the image file.
        longest_side: what is wanted of it, in pixels: a JPEG may be decoded at a half, a quarter or an eighth of its
            size, in a fraction of the time, but no smaller than this. By default all of it.
        max_pixels: pixels that it may have; None if it was looked at before.

    Raises:
        ImageError: the bytes give no image, or one that is larger than allowed, which is then not decoded.
    """
    return flattened(picture(data, longest_side, max_pixels))


def picture(data: bytes, longest_side: int | None = None, max_pixels: int | None = None) -> Image.Image:
    """As ``decode``, but in L or RGB, and LA or RGBA if it may have pixels that are not opaque."""
    with opened(data, max_pixels) as found:
        if longest_side is not None:
            found.draft(longest_side)
        found.image.load()
        return found.finished(found.image)


def middle(image: Image.Image, most: int = 32) -> Image.Image:
    """The middle of a strip, or the whole of any other image.

    Networks' transforms make the shorter side as large as they want before they cut a square: of a strip of a line of
    pixels they would make gigabytes.

    Args:
        image: the image.
        most: how many times as long as its shorter side it may be.
    """
    limit = most * min(image.size)
    width, height = min(image.width, limit), min(image.height, limit)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def is_plain(data: bytes) -> bool:
    """Whether every reader shows the image as ``decode`` does: it needs not be turned, and has 8 bits of grey or RGB.

    An embedded profile is left to the reader.

    Raises:
        ImageError: the bytes give no image.
    """
    with opened(data) as found:
        is_common = found.image.mode in {"1", "L", "LA", "P", "RGB", "RGBA"}
        is_as_stored = found.bare.orientation == UPRIGHT and found.bare.gamma is None and found.bare.is_sound
        # Of a JPEG or PNG of which nothing was left out, and so no EXIF, Pillow has opened the file itself already.
        is_opened = found.format in {"jpeg", "png"} and found.bare.data == data
        return is_common and is_as_stored and (is_opened or _opens(data, str(found.image.format)))


@contextmanager
def opened(data: bytes, max_pixels: int | None = None) -> Iterator[OpenedImage]:
    """An image file with its header read.

    Args:
        data: the image file.
        max_pixels: pixels that it may have; None if it was looked at before.

    Raises:
        ImageError: it is none, larger than allowed, or whatever is raised while it is used.
    """
    found = _open(data)
    with found.image as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise ImageError("bomb", f"{image.width} x {image.height} pixels, at most {max_pixels:,} are allowed")
        try:
            yield found
        except Exception as error:
            # Pillow raises errors of many kinds on hostile images, and each of them is this image's outcome.
            raise _fault(format_of(data) or "", data, error) from error


def _open(data: bytes) -> OpenedImage:
    name = format_of(data)
    if name is None:
        raise ImageError("not_an_image", f"begins with {data[:16]!r}")
    if name not in DECODED or not has_decoder(name):
        raise ImageError("unsupported_format", name)
    try:
        bare = _BARE.get(name, Bare)(data)
        image = Image.open(io.BytesIO(bare.data), formats=(DECODED[name],))
        if name in {WEBP, AVIF}:
            bare = replace(bare, orientation=exif_orientation(image.info.get("exif", b"")))
    except Image.DecompressionBombError as error:
        raise ImageError("bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(*_unidentified(name, data)) from error
    except Exception as error:
        raise _fault(name, data, error) from error
    return OpenedImage(image, bare)


def _fault(name: str, data: bytes, error: Exception) -> ImageError:
    fault = fault_of(error)
    if fault.reason == "damaged" and ends_early(name, data):
        return ImageError("truncated", fault.detail)
    return fault


def _bare_jpeg(data: bytes) -> Bare:
    bare = bare_jpeg(data)
    ended = with_end(bare.data)
    return replace(bare, data=ended, is_sound=ended is bare.data)


_BARE = {JPEG: _bare_jpeg, PNG: bare_png, AVIF: bare_avif, TIFF: bare_tiff}


def _opens(data: bytes, name: str) -> bool:
    """Whether Pillow, as most training reads images, opens the file as it is, whatever is in it beside pixels."""
    try:
        with Image.open(io.BytesIO(data), formats=(name,)) as image:
            image.getexif()
            return True
    except Exception:  # noqa: BLE001 - its plugins raise errors of many kinds
        return False


def _unidentified(name: str, data: bytes) -> tuple[str, str]:
    """Reason and detail of a file of a known format that Pillow doesn't recognise."""
    if ends_early(name, data):
        return "truncated", f"{name}: it ends too early"
    if name == BMP:
        return "not_an_image", f"begins with {data[:16]!r}"  # so may any text
    if name in {TIFF, AVIF, HEIC}:
        return "unsupported_format", f"{name} of a kind that is not decoded"
    return "damaged", f"{name}: its header cannot be read"


@cache
def has_decoder(name: str) -> bool:
    """Whether the decoder of a format is installed."""
    if name == AVIF:
        return bool(features.check("avif"))
    if name != HEIC:
        return True
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _check_scan(found: OpenedImage) -> None:
    """Read a JPEG to its end, which takes a fraction of decoding it.

    Raises:
        ImageError: it is cut off or garbled. Pillow itself notices only the first.
    """
    complaint = scan_complaint(found.bare.data)
    if complaint is None:
        return
    found.draft(1)
    found.image.load()
    if is_garbled(complaint):
        raise ImageError("damaged", f"JPEG: {complaint}")
