"""The tables of decisions."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

DROP, KEEP = "drop", "keep"

HISTORY = pa.struct(
    [
        ("number", pa.int64()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("by", pa.string()),
        ("decision", pa.string()),
        ("value", pa.string()),
        ("why", pa.string()),
        ("holds", pa.bool_()),
    ]
)
"""A decision: number of the import, when, by whom, what, its tag or caption, why, and whether it holds."""

REVIEWS = table_schema(
    [
        UID,
        Column("review", pa.string(), "keep or drop, as people decided; null where nobody has"),
        Column("review_tags", pa.list_(pa.string()), "tags that people gave it, sorted; null if there are none"),
        Column("caption", pa.string(), "the caption that a person wrote or chose; null if there is none"),
        Column("decided_at", pa.timestamp("us", tz="UTC"), "when the last decision that holds was made"),
        Column("decided_by", pa.string(), "who made it"),
        Column("why", pa.string(), "the reason that was given for it"),
        Column("decisions", pa.list_(HISTORY), "all decisions about it, the earliest first; null if there are none"),
    ]
)
"""Schema of ``reviews``: a row for each row of ``raw_samples``, in their order."""

REVIEWED_CAPTION_SCORES = table_schema(
    [
        UID,
        Column("similarity", pa.float32(), "cosine of the reviewed caption and the image", "-1 to 1"),
        Column("tokens", pa.int32(), "tokens of the caption for the scorer, special ones included", "tokens"),
        Column("truncated", pa.bool_(), "whether it is longer than the scorer reads"),
    ]
)
"""Schema of ``reviewed_caption_scores``: a row for each sample that has a reviewed caption."""
