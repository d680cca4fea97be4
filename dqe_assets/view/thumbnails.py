"""Small copies of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.figures import MOST_PIXELS, jpeg
from dqe_assets.view.tables import THUMBNAILS
from dqe_resources import images
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIDE = 256
"""Longest side of a thumbnail, in pixels."""

_QUALITY = 80


def thumbnails(raw: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of ``THUMBNAILS``, a row for each row of ``raw_samples``; null where there is no image, or with a fault.

    Args:
        raw: batches with the columns uid and image.
    """
    for batch in raw:
        files = [image["bytes"] if image else None for image in batch["image"].to_pylist()]
        made = list(ordered_map(images.guarded(_thumbnail), files))
        pictures = [None if isinstance(one, images.ImageError) else one for one in made]
        faults = [str(one) if isinstance(one, images.ImageError) else None for one in made]
        columns = [batch["uid"], pa.array(pictures, pa.binary()), pa.array(faults, pa.string())]
        yield pa.record_batch(columns, schema=THUMBNAILS)


def _thumbnail(data: bytes | None) -> bytes | None:
    if data is None:
        return None
    picture = images.decode(data, SIDE, MOST_PIXELS)
    picture.thumbnail((SIDE, SIDE))
    return jpeg(picture, _QUALITY)
