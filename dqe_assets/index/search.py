"""Searching the collection by text or by image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets import images
from dqe_assets.features.extract import image_features
from dqe_assets.schemas import IMAGE, IMAGE_TYPE
from dqe_resources.vectors import parse_where

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from dqe_assets.settings import Settings
    from dqe_resources.vectors.protocol import Hit


def search_collection(
    settings: Settings,
    *,
    text: str | None = None,
    image: Path | None = None,
    where: Sequence[str] = (),
    using: str = IMAGE,
    limit: int = 10,
) -> list[Hit]:
    """The samples nearest to a text, or to an image.

    Args:
        settings: the settings.
        text: what to look for, or None.
        image: file of an image to look for, or None.
        where: conditions such as ``source=sample`` or ``similarity_original>=0.3``.
        using: the named vector to search: ``image`` or a caption source.
        limit: how many at most.

    Raises:
        ValueError: a condition or the named vector is unknown.
        ImageError: the image cannot be read.
        VectorsError: the collection cannot be opened.
    """
    names = collection_vectors(settings)
    if using not in names:
        msg = f"there are no vectors '{using}'; there are: {', '.join(names)}"
        raise ValueError(msg)
    conditions = parse_where(where)
    vector = _text_vector(settings, text) if text is not None else _image_vector(settings, image)
    with settings.vectors.open() as collection:
        return collection.search(vector, using, limit, conditions)


def collection_vectors(settings: Settings) -> dict[str, int]:
    """The named vectors of the collection and their dimensions: the image, and a caption from each source."""
    return dict.fromkeys((IMAGE, *settings.caption_sources), settings.scorer.dimension)


def _text_vector(settings: Settings, text: str) -> np.ndarray:
    return settings.scorer.embed_texts([text]).vectors[0]


def _image_vector(settings: Settings, path: Path | None) -> np.ndarray:
    if path is None or not path.is_file():
        raise images.ImageError("missing", f"there is no file {path}")
    data = path.read_bytes()
    limits = settings.images
    images.inspect(data, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels)
    sample = pa.table({"uid": [path.name], "image": pa.array([{"bytes": data, "path": path.name}], IMAGE_TYPE)})
    if "image_features" in settings.scorer.requires:
        features = image_features(sample, settings.image_model)
        sample = pa.table({**{name: features[name] for name in features.column_names}, "image": sample["image"]})
    return settings.scorer.embed_images(sample)[0]
