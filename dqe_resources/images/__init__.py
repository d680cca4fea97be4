"""Decodes image bytes from the web with care; nothing else in the project decodes them."""

from __future__ import annotations

from dqe_resources.images.decoding import ImageInfo, decode, inspect, is_plain, middle, opened, picture
from dqe_resources.images.faults import ImageError, fault_of, guarded
from dqe_resources.images.formats import IMAGE_SUFFIXES
from dqe_resources.images.hashes import perceptual_hash, pixel_digest

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageError",
    "ImageInfo",
    "decode",
    "fault_of",
    "guarded",
    "inspect",
    "is_plain",
    "middle",
    "opened",
    "perceptual_hash",
    "picture",
    "pixel_digest",
]
