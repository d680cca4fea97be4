"""The tables of what each filter keeps, and of mixed captions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

from dqe_assets.core.schema import UID, Column, table_schema


def filter_masks_schema(filters: Mapping[str, str]) -> pa.Schema:
    """The schema of ``filter_masks``: a column for each filter.

    Args:
        filters: what each filter is, by its name.
    """
    return table_schema(
        [UID, *(Column(name, pa.bool_(), f"whether {text} keeps it", nullable=False) for name, text in filters.items())]
    )


CAPTION_THRESHOLDS = table_schema(
    [
        Column("name", pa.string(), "the mix", nullable=False),
        Column("captioner", pa.string(), "whose captions take the place of originals", nullable=False),
        Column("fraction", pa.float64(), "share of the originals that are good enough", "0 to 1", nullable=False),
        Column("threshold", pa.float64(), "the similarity that this comes to", "-1 to 1", nullable=False),
        Column("samples", pa.int64(), "samples that have an image", "samples", nullable=False),
        Column("original", pa.int64(), "those whose original caption reaches it", "samples", nullable=False),
        Column("synthetic", pa.int64(), "of the others, those whose synthetic one does", "samples", nullable=False),
        Column("dropped", pa.int64(), "those that have neither", "samples", nullable=False),
    ]
)


MIXED_CAPTIONS = table_schema(
    [
        UID,
        Column("caption", pa.string(), "the caption to train with; null where none fits well enough, or no image is"),
        Column("caption_source", pa.string(), "original, or the captioner's name"),
        Column("similarity", pa.float32(), "its similarity to the image", "-1 to 1"),
    ]
)
