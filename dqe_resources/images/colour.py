"""Pixels of any mode as a browser shows them: 8 bits of sRGB, with what is transparent."""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAME = 2
"""Levels by which a profile may differ from sRGB and still be one: the profiles that cameras write do, by rounding."""

_SRGB_GAMMA = 0.45455
_GAMMA_TOLERANCE = 0.05

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def in_srgb(image: Image.Image, profile: bytes | None = None, gamma: float | None = None) -> Image.Image:
    """An image of any mode in 8 bits of sRGB: L or RGB, and LA or RGBA if it may have pixels that are not opaque.

    Grey of 32 bits and of floats is scaled from its lowest value to its highest. A profile that is damaged, or meant
    for other pixels, is ignored, as browsers ignore it.

    Args:
        image: the image.
        profile: the ICC profile of its colours, if it has one.
        gamma: the exponent by which light became a value; used only without a profile.
    """
    image = _of_eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in {"L", "LA", "La"} else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode.removesuffix("A"))
    if image.mode == "LAB":
        profile = _lab()
    elif image.mode not in {"L", "RGB", "CMYK"}:
        image = image.convert("RGB")
    if profile is not None:
        image = _converted(image, profile)
    elif gamma is not None and abs(gamma - _SRGB_GAMMA) > _GAMMA_TOLERANCE and image.mode in {"L", "RGB"}:
        image = image.point(_from_gamma(gamma) * len(image.getbands()))
    if image.mode == "CMYK":
        image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image


def flattened(image: Image.Image) -> Image.Image:
    """An image of ``in_srgb`` in RGB, what is transparent on white."""
    if image.mode in {"LA", "RGBA"}:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """The image, but grey of more than 8 bits as 8, and black and white as grey."""
    if image.mode == "1":
        return image.convert("L")
    if not image.mode.startswith(("I", "F")):
        return image
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        full = (1 << tags.get(_TIFF_BITS, (16,))[0]) - 1
        levels = np.minimum((values.astype(np.uint32) * 255 + full // 2) // full, 255).astype(np.uint8)
    else:
        # Pillow reads unsigned integers of 32 bits as signed ones.
        is_unsigned = image.mode == "I" and tags.get(_TIFF_SAMPLES, (None,))[0] == _UNSIGNED
        levels = _scaled(values.view(np.uint32) if is_unsigned else values)
    # Where Pillow knows it for 8 bits only.
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels
    grey = Image.fromarray(levels)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _scaled(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Numbers as levels, 0 for the lowest and 255 for the highest; for all alike, and for what is no number, 0."""
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    low, high = (numbers[finite].min(), numbers[finite].max()) if finite.any() else (0.0, 0.0)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        shares = (np.clip(numbers, low, high) - low) / (high - low)
    return np.round(np.nan_to_num(shares) * 255).astype(np.uint8)


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _transform(profile, image.mode)
    if transform is None and image.mode == "L" and _transform(profile, "RGB") is not None:
        # Grey in the space of a colour profile, as cameras write black-and-white photos.
        return _converted(image.convert("RGB"), profile)
    if transform is None:
        return image
    converted = transform.apply(image)
    return converted.convert("L") if image.mode == "L" else converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What takes pixels of a mode from a profile to sRGB; None if nothing is to be done, or the profile is no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform from RGB leaves a lattice of colours as they are."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(16, 256, 3)
    changed = np.asarray(transform.apply(Image.fromarray(colours)))
    return int(np.abs(changed.astype(int) - colours.astype(int)).max()) <= _SAME


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@cache
def _lab() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@lru_cache(maxsize=16)
def _from_gamma(gamma: float) -> list[int]:
    """The level in sRGB of each of 256 levels that light became by this exponent (PNG, third edition, 11.3.2.2)."""
    light = (np.arange(256) / 255) ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    levels: list[int] = np.round(encoded * 255).astype(int).tolist()
    return levels
