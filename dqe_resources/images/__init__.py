"""Decodes image bytes from the web with care; nothing else in the project decodes them."""

from __future__ import annotations

from dqe_resources.images.cleaning import NotCleanError, cleaned, with_rights
from dqe_resources.images.decoding import ImageInfo, decode, inspect, is_plain, middle, opened, picture
from dqe_resources.images.faults import ImageError, fault_of, guarded
from dqe_resources.images.formats import IMAGE_SUFFIXES
from dqe_resources.images.hashes import perceptual_hash, pixel_digest
from dqe_resources.images.rights import ImageRights, data_mining, has_c2pa, rights_of

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageError",
    "ImageInfo",
    "ImageRights",
    "NotCleanError",
    "cleaned",
    "data_mining",
    "decode",
    "fault_of",
    "guarded",
    "has_c2pa",
    "inspect",
    "is_plain",
    "middle",
    "opened",
    "perceptual_hash",
    "picture",
    "pixel_digest",
    "rights_of",
    "with_rights",
]
