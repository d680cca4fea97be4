"""Hashes of pictures: of their pixels, and of what they look like."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

HASH_INPUT_SIDE = 32
HASH_SIDE = 8


def pixel_digest(image: Image.Image) -> str:
    """Hex digest (128 bits) of an image's size and pixels: the same for files that decode to the same picture."""
    digest = hashlib.blake2b(repr((image.mode, image.size)).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def perceptual_hash(image: Image.Image) -> int:
    """The 64-bit pHash, bit for bit that of the imagehash library for images of RGB or L mode.

    The luminance is resized to 32x32 (Lanczos); of its type II DCT the 8x8 lowest frequencies are compared with their
    median, row by row from the most significant bit (Zauner 2010, "Implementation and Benchmarking of Perceptual Image
    Hash Functions"). An image of one flat colour hashes to its top bit alone (to 0 if it is black).

    Returns:
        0 to 2**64 - 1; near copies differ in few bits (Hamming distance).
    """
    small = image.convert("L").resize((HASH_INPUT_SIDE, HASH_INPUT_SIDE), Image.Resampling.LANCZOS)
    basis = _dct_basis()
    low = basis @ np.asarray(small, dtype=np.float64) @ basis.T
    # Frequencies that are absent come out as rounding noise, whose sign would be random bits.
    low = np.round(low, 6)
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _dct_basis() -> NDArray[np.float64]:
    """The ``HASH_SIDE`` lowest type II DCT vectors over ``HASH_INPUT_SIDE`` samples, unnormalised."""
    frequency = np.arange(HASH_SIDE)[:, None]
    sample = np.arange(HASH_INPUT_SIDE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * sample + 1) / (2 * HASH_INPUT_SIDE))
