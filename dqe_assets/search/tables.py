"""The tables of search: hits, and the map of the collection."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

SEARCH_HITS = table_schema(
    [
        UID,
        Column("score", pa.float32(), "cosine of what was looked for and what was found", "-1 to 1", nullable=False),
        Column("image_name", pa.string(), "the source's own name of the row", nullable=False),
        Column("caption", pa.string(), "the caption"),
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("similarity", pa.float32(), "cosine of that caption and the image", "-1 to 1"),
        Column("language", pa.string(), "language of the original caption, ISO 639"),
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("shard", pa.string(), "partition key", nullable=False),
        Column("url", pa.string(), "where the image came from"),
        Column("width", pa.int32(), "width of the image", "pixels"),
        Column("height", pa.int32(), "height of the image", "pixels"),
    ]
)


COLLECTION_MAP = table_schema(
    [
        UID,
        Column("x", pa.float32(), "place on the map: no unit, near means alike", nullable=False),
        Column("y", pa.float32(), "place on the map: no unit, near means alike", nullable=False),
        Column("topic", pa.int32(), "number of the topic, 0 is the largest", nullable=False),
        Column("topic_name", pa.string(), "the words that set the topic's captions apart", nullable=False),
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("similarity", pa.float32(), "cosine of image and original caption", "-1 to 1"),
    ]
)
