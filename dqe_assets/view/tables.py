"""The table of thumbnails."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import FAULT, UID, Column, table_schema

THUMBNAILS = table_schema(
    [
        UID,
        Column("thumbnail", pa.binary(), "the image as a JPEG of 256 pixels at its longest side; null without one"),
        FAULT,
    ]
)
