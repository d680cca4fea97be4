"""The table of grounding."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

GROUNDING = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column(
            "entities", pa.list_(pa.string()), "things that the caption names; null without caption or image vector"
        ),
        Column("ungrounded", pa.list_(pa.string()), "those of them that the image does not show, by scorer and tagger"),
        Column("missing", pa.list_(pa.string()), "concepts that the tagger finds in the image, and the caption lacks"),
        Column("precision", pa.float32(), "share of its things that the image shows; null if it names none", "0 to 1"),
        Column("recall", pa.float32(), "share of the image's concepts that it names; null if there is none", "0 to 1"),
        Column("f1", pa.float32(), "harmonic mean of both; null where one is", "0 to 1"),
        Column("flagged", pa.bool_(), "whether the caption is ungrounded, by grounding of data/dqe.yaml"),
    ]
)
