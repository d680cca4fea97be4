"""Plants defects in the photo files of the embedded sample.

Every choice is a digest of the plant's seed, so a plant is the same whenever and in whatever order it is made. Only
JPEG is written: Pillow's libjpeg-turbo gives the same bytes on every processor, its zlib-ng does not.
"""

from __future__ import annotations

import hashlib
import html
import io
import textwrap
import unicodedata
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from dqe_resources.images import picture

if TYPE_CHECKING:
    from collections.abc import Callable

QUALITY = 88
"""JPEG quality of every plant but the recompressed ones."""

SHORT_SIDE = 205
"""A resized photo's shorter side stays above this, in pixels, so that it is a near copy and not a small image."""

TINY_SIDE = 32
"""The longer side of a tiny image is at most this, in pixels."""


def fraction(seed: str, what: str) -> float:
    """A number in [0, 1) that depends on the seed and on what it is for, and on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{what}".encode()).digest()[:6], "big") / 2**48


def between(seed: str, what: str, low: float, high: float) -> float:
    """A number in [low, high) that depends on the seed and on what it is for, and on nothing else."""
    return low + (high - low) * fraction(seed, what)


def make(kind: str, base: bytes, seed: str, caption: str | None) -> bytes | None:
    """The file of one plant.

    Args:
        kind: kind of image, a key of `sample_rows.IMAGE_KINDS`.
        base: the file of the photo's original.
        seed: what the plant's choices are made of.
        caption: the words that `caption_drawn` draws into the picture.

    Returns:
        The file's bytes; None for `missing`.

    Raises:
        KeyError: there is no such kind.
    """
    if kind in {"original", "exact_copy"}:
        return base
    if kind == "missing":
        return None
    if kind == "not_an_image":
        return _NOT_IMAGES[int(fraction(seed, "body") * len(_NOT_IMAGES))]
    if kind == "caption_drawn":
        return _jpeg(_caption_drawn(_decoded(base), seed, _ascii(html.unescape(caption or ""))))
    return _MAKERS[kind](_decoded(base), seed)


def _decoded(base: bytes) -> Image.Image:
    image = picture(base)
    return image.convert("L" if image.mode == "L" else "RGB")


def _jpeg(image: Image.Image, quality: int = QUALITY, exif: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _recompressed(image: Image.Image, seed: str) -> bytes:
    return _jpeg(image, quality=int(between(seed, "quality", 30, 61)))


def _resized(image: Image.Image, seed: str) -> bytes:
    factor = max(between(seed, "factor", 0.5, 0.7), min(0.7, SHORT_SIDE / min(image.size)))
    width, height = image.size
    return _jpeg(image.resize((round(width * factor), round(height * factor)), Image.Resampling.LANCZOS))


def _cropped(image: Image.Image, seed: str) -> bytes:
    width, height = image.size
    left, top, right, bottom = (between(seed, side, 0.05, 0.1) for side in ("left", "top", "right", "bottom"))
    box = (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    return _jpeg(image.crop(box))


def _gamma(image: Image.Image, *exponents: float) -> Image.Image:
    table = [round(255 * (value / 255) ** exponent) for exponent in exponents for value in range(256)]
    return image.convert("RGB").point(table)


_RECOLOURS: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda image: _gamma(image, 0.65, 0.65, 0.65),
    lambda image: _gamma(image, 1.5, 1.5, 1.5),
    lambda image: _gamma(image, 0.75, 1.0, 1.4),
    lambda image: _gamma(image, 1.35, 1.0, 0.75),
    lambda image: ImageEnhance.Color(image).enhance(1.7),
    lambda image: ImageEnhance.Color(image).enhance(0.35),
    ImageOps.grayscale,
)
"""Brighter, darker, warm, cool; then, for photos that have colours, vivid, pale and grey."""

_RECOLOURS_OF_GREY = 4


def _recoloured(image: Image.Image, seed: str) -> bytes:
    choices = _RECOLOURS if image.mode == "RGB" else _RECOLOURS[:_RECOLOURS_OF_GREY]
    return _jpeg(choices[int(fraction(seed, "recolour") * len(choices))](image))


_STORED = {
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is stored for a reader to turn it back by its EXIF orientation."""

_ORIENTATION_TAG = 0x0112


def _rotated_exif(image: Image.Image, seed: str) -> bytes:
    orientation = (6, 8, 3, 5)[int(fraction(seed, "orientation") * 4)]
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    return _jpeg(image.transpose(_STORED[orientation]), exif=exif.tobytes())


def _tiny(image: Image.Image, seed: str) -> bytes:
    factor = int(between(seed, "side", 12, TINY_SIDE + 1)) / max(image.size)
    width, height = (max(4, round(side * factor)) for side in image.size)
    return _jpeg(image.resize((width, height), Image.Resampling.LANCZOS))


def _extreme_aspect(image: Image.Image, seed: str) -> bytes:
    width, height = image.size
    aspect = between(seed, "aspect", 4.3, 7.0)
    place = between(seed, "place", 0.3, 0.7)
    if fraction(seed, "upright") < 1 / 3:
        strip = round(height / aspect)
        left = round((width - strip) * place)
        return _jpeg(image.crop((left, 0, left + strip, height)))
    strip = round(width / aspect)
    top = round((height - strip) * place)
    return _jpeg(image.crop((0, top, width, top + strip)))


def _truncated(image: Image.Image, seed: str) -> bytes:
    whole = _jpeg(image)
    return whole[: int(len(whole) * between(seed, "cut", 0.35, 0.6))]


_MAKERS: dict[str, Callable[[Image.Image, str], bytes]] = {
    "recompressed": _recompressed,
    "resized": _resized,
    "cropped": _cropped,
    "recoloured": _recoloured,
    "rotated_exif": _rotated_exif,
    "tiny": _tiny,
    "extreme_aspect": _extreme_aspect,
    "truncated": _truncated,
}


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        msg = "the embedded sample draws captions with Pillow's scalable font, and this Pillow has no FreeType support"
        raise TypeError(msg)
    # Complex layout needs FriBiDi on the machine and may place letters otherwise than the basic one does.
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def _ascii(words: str) -> str:
    # Pillow's font has no accented letters.
    return unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()


def _caption_drawn(image: Image.Image, seed: str, words: str) -> Image.Image:
    image = image.convert("RGB")
    width, height = image.size
    size = max(20, min(width, height) // 14)
    font = _font(size)
    columns = int((width - size) / (font.getlength(words) / len(words)))
    text = "\n".join(textwrap.wrap(words, columns - 2))
    stroke = max(2, size // 12)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, stroke_width=stroke, align="center")
    text_height = bottom - top
    y = size // 2 if fraction(seed, "at the top") < 1 / 3 else height - text_height - size // 2
    if fraction(seed, "band") < 1 / 2:
        draw.rectangle((0, y - size // 2, width, y + text_height + size // 2), fill="black")
    place = ((width - (right - left)) / 2 - left, y - top)
    draw.multiline_text(place, text, "white", font, align="center", stroke_width=stroke, stroke_fill="black")
    return image


_NOT_IMAGES = (
    (
        b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n"
        b"<body><h1>Not Found</h1><p>The requested URL was not found on this server.</p></body></html>\n"
    ),
    (
        b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
        b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    ),
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>',
    b'{"stat": "fail", "code": 1, "message": "Photo not found"}\n',
    b"This photo is currently unavailable.\n",
)
