"""What is measured of an image without a model: its fingerprint, light, sharpness, colours and layout."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from dqe_resources.images import perceptual_hash, pixel_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMMON_SIDE = 256
"""Longest side, in pixels, of the copy that is measured; a smaller image is measured at its own size."""

COLOURS = (
    *("black", "grey", "white", "red", "orange", "brown", "beige"),
    *("yellow", "green", "teal", "blue", "purple", "pink"),
)
"""The names that a colour can have."""

MAX_COLOURS = 3
MIN_COLOUR_AREA = 0.15

COLOUR_SIDE = 64

# Below the chroma (OKLab) at its lightness a pixel reads as black, grey or white: the eye needs more chroma to see a
# hue in the dark than in the light.
_NEUTRAL_LIGHTNESS = (0.0, 0.25, 0.45, 0.75, 1.0)
_NEUTRAL_CHROMA = (0.10, 0.050, 0.034, 0.028, 0.022)
_BLACK_BELOW = 0.33
_WHITE_FROM = 0.88

# Degrees of hue (OKLab) from which each name of a clear, light colour holds, up to the next.
_HUES = (
    (0, "pink"),
    (14, "red"),
    (38, "orange"),
    (77, "yellow"),
    (116, "green"),
    (174, "teal"),
    (222, "blue"),
    (290, "purple"),
    (332, "pink"),
)


# Ottosson 2020, "A perceptual color space for image processing".
_LINEAR_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


class ImageMeasures(NamedTuple):
    """The columns of ``image_features`` that need no model; see schemas.py for meanings and units.

    ``pixel_digest`` is a hex digest, ``perceptual_hash`` an int of 64 bits; ``colours`` holds 0 to 3 names; every float
    is finite.
    """

    pixel_digest: str
    perceptual_hash: int
    sharpness: float
    brightness: float
    contrast: float
    colourfulness: float
    colours: tuple[str, ...]
    focus_x: float
    focus_y: float


def measure(image: Image.Image) -> ImageMeasures:
    """Measure one image.

    The perceptual hash is taken from the whole image, so that it equals other tools' hashes; everything else comes
    from one copy of at most ``COMMON_SIDE`` pixels a side, so that figures of large and small images compare.

    Args:
        image: RGB and upright (any EXIF orientation applied), of any size from 1x1.

    Returns:
        The measures; for an image of one flat colour sharpness, contrast and colourfulness say so and the focus is
        the middle.

    Raises:
        ValueError: if the image is not RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"measure needs an RGB image, not {image.mode}")
    copy = _downscaled(image, COMMON_SIDE)
    luminance = np.asarray(copy.convert("L"), dtype=np.float32)
    focus_x, focus_y = _focus(luminance)
    return ImageMeasures(
        pixel_digest=pixel_digest(image),
        perceptual_hash=perceptual_hash(image),
        sharpness=_sharpness(luminance),
        brightness=float(luminance.mean(dtype=np.float64)) / 255,
        contrast=float(luminance.std(dtype=np.float64)) / 255,
        colourfulness=_colourfulness(np.asarray(copy, dtype=np.float32)),
        colours=dominant_colours(copy),
        focus_x=focus_x,
        focus_y=focus_y,
    )


def dominant_colours(image: Image.Image) -> tuple[str, ...]:
    """Names of the colours that cover at least ``MIN_COLOUR_AREA`` of an RGB image, largest first.

    Returns:
        At most ``MAX_COLOURS`` of ``COLOURS``; colours of equal area come in the order of that list.
    """
    pixels = np.asarray(_downscaled(image, COLOUR_SIDE)) >> 3
    cells = (pixels[..., 0].astype(np.int32) << 10) | (pixels[..., 1].astype(np.int32) << 5) | pixels[..., 2]
    areas = np.bincount(_colour_table()[cells.ravel()], minlength=len(COLOURS)) / cells.size
    largest = np.argsort(-areas, kind="stable")[:MAX_COLOURS]
    return tuple(COLOURS[i] for i in largest if areas[i] >= MIN_COLOUR_AREA)


def name_colours(rgb: NDArray[np.uint8]) -> NDArray[np.str_]:
    """The everyday name of each sRGB colour.

    Colours are judged in OKLab (Ottosson 2020) by lightness, chroma and hue, as the eye does: a dark orange is
    brown, a pale dull one beige, a light red pink.

    Args:
        rgb: sRGB values, uint8 [..., 3].

    Returns:
        Names, str [...].
    """
    lightness, a, b = np.moveaxis(_oklab(rgb), -1, 0)
    chroma = np.hypot(a, b)
    hue = np.degrees(np.arctan2(b, a)) % 360
    from_degree, hue_names = zip(*_HUES, strict=True)
    clear = np.array(hue_names)[np.searchsorted(from_degree, hue, side="right") - 1]

    reddish = (hue >= 14) & (hue < 38)
    orangish = (hue >= 38) & (hue < 77)
    yellowish = (hue >= 77) & (hue < 116)
    warm = orangish | yellowish
    neutral = chroma < np.interp(lightness, _NEUTRAL_LIGHTNESS, _NEUTRAL_CHROMA) * np.where(warm, 0.8, 1.0)
    dull = chroma < 0.11
    pale = (lightness >= 0.70) | ((lightness >= 0.64) & (chroma < 0.08))
    rules = [
        (neutral & (lightness < _BLACK_BELOW), "black"),
        (neutral & (lightness >= _WHITE_FROM), "white"),
        (neutral, "grey"),
        (reddish & dull & pale, "pink"),
        (reddish & (chroma < 0.12), "brown"),
        (warm & dull & pale & (hue < 108), "beige"),
        (orangish & ((lightness < 0.50) | dull | ((lightness < 0.60) & (chroma < 0.15))), "brown"),
        (yellowish & (hue >= 108) & (lightness < 0.85), "green"),
        (yellowish & (hue >= 98) & (lightness < 0.70), "green"),
        (yellowish & (lightness < 0.68), "brown"),
        ((clear == "pink") & (hue < 14) & (lightness < 0.55), "red"),
        ((clear == "pink") & (lightness < 0.55), "purple"),
    ]
    conditions, names = zip(*rules, strict=True)
    return np.select(conditions, names, clear)


def _oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    encoded = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _LINEAR_TO_CONES.T) @ _CONES_TO_OKLAB.T


@cache
def _colour_table() -> NDArray[np.intp]:
    """Index in ``COLOURS`` of each colour of 5 bits a channel, by ``r << 10 | g << 5 | b``."""
    channel = np.arange(32, dtype=np.uint8) * 8 + 4
    cells = np.stack(np.meshgrid(channel, channel, channel, indexing="ij"), axis=-1).reshape(-1, 3)
    by_name = {name: i for i, name in enumerate(COLOURS)}
    return np.array([by_name[name] for name in name_colours(cells).tolist()])


def _downscaled(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if max(width, height) <= side:
        return image
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)


def _sharpness(luminance: NDArray[np.float32]) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000), borders repeated outwards."""
    padded = np.pad(luminance, 1, mode="edge")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * luminance
    return float(laplacian.var(dtype=np.float64))


def _colourfulness(rgb: NDArray[np.float32]) -> float:
    """Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images"."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    red_green = red - green
    yellow_blue = (red + green) / 2 - blue
    spread = np.hypot(red_green.std(dtype=np.float64), yellow_blue.std(dtype=np.float64))
    offset = np.hypot(red_green.mean(dtype=np.float64), yellow_blue.mean(dtype=np.float64))
    return float(spread + 0.3 * offset)


def _focus(luminance: NDArray[np.float32]) -> tuple[float, float]:
    """Centre of the gradient energy as fractions of width and height; the middle if there is no gradient."""
    padded = np.pad(luminance, 1, mode="edge")
    across = padded[1:-1, 2:] - padded[1:-1, :-2]
    down = padded[2:, 1:-1] - padded[:-2, 1:-1]
    energy = across * across + down * down
    columns, rows = energy.sum(axis=0, dtype=np.float64), energy.sum(axis=1, dtype=np.float64)
    total = float(columns.sum())
    if total == 0:
        return 0.5, 0.5
    height, width = energy.shape
    return (
        float(columns @ (np.arange(width) + 0.5)) / (total * width),
        float(rows @ (np.arange(height) + 0.5)) / (total * height),
    )
