"""The tables of the codebook, of the codes of images, and of their clusters."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import FAULT, UID, Column, table_schema

CODEBOOK = table_schema(
    [
        Column(
            "name",
            pa.string(),
            "array: vectors of the codes, weight and bias of the projection, tower.<name> of a trained tower",
            nullable=False,
        ),
        Column("shape", pa.list_(pa.int32()), "its shape", nullable=False),
        Column("values", pa.list_(pa.float32()), "its values, row by row", nullable=False),
    ]
)

IMAGE_CODES = table_schema(
    [UID, Column("codes", pa.list_(pa.uint16()), "code of each token of the image; null without an image"), FAULT]
)

CODE_CLUSTERS = table_schema(
    [
        UID,
        Column("code_cluster", pa.int32(), "cluster of the image's codes, the largest is 0; null without an image"),
        Column("code_distance", pa.float32(), "squared Euclidean distance to the cluster's centroid"),
    ]
)
