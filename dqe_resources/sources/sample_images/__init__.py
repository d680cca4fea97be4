"""The embedded sample: real photos from PyPI wheels, and 256 rows made of them whose every defect is known.

A row's truth names its photo, the kind of its image and the kind of its caption. Images are decodable and show the
photo whole (`original`, `exact_copy` and NEAR_COPIES), or are something that a filter should find (`caption_drawn`,
`tiny`, `extreme_aspect`), or are BROKEN. A caption is `right`, `markup` (right, within HTML), `one_word` (right, but
one word), `language_<code>` (right, in another language), or says nothing of the picture: `other_photo`,
`file_name`, `empty`. Captions other than `right` are planted only on exact and near copies, so that each defect can
be measured by itself. The copies of a photo are all rows whose truth names that photo.
"""

from __future__ import annotations

from dqe_resources.sources.sample_images.photo import Photo, SamplePhotoError, require_packages
from dqe_resources.sources.sample_images.photos import PHOTOS
from dqe_resources.sources.sample_images.sample_rows import (
    BROKEN,
    CAPTION_KINDS,
    IMAGE_KINDS,
    LETTERED,
    NEAR_COPIES,
    SAMPLE_SIZE,
    sample_digest,
    sample_rows,
)

__all__ = [
    "BROKEN",
    "CAPTION_KINDS",
    "IMAGE_KINDS",
    "LETTERED",
    "NEAR_COPIES",
    "SAMPLE_SIZE",
    "Photo",
    "SamplePhotoError",
    "photos",
    "require_packages",
    "sample_digest",
    "sample_rows",
]


def photos() -> tuple[Photo, ...]:
    """The photos of the sample in the order of their keys, without reading them."""
    return tuple(PHOTOS.values())
