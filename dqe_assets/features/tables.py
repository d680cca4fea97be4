"""The table of what is measured of each image."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import EMBEDDING, FAULT, UID, Column, table_schema

IMAGE_FEATURES = table_schema(
    [
        UID,
        Column("embedding", EMBEDDING, "pooled features of the backbone, not normalised"),
        Column("label_ids", pa.list_(pa.int16()), "the 20 most probable ImageNet classes, most probable first"),
        Column("label_probabilities", pa.list_(pa.float32()), "their probabilities", "0 to 1"),
        Column("top_label", pa.string(), "name of the most probable class"),
        Column("pixel_digest", pa.string(), "128-bit hex digest of the decoded pixels and their size"),
        Column("perceptual_hash", pa.uint64(), "64-bit DCT hash (pHash) of the luminance"),
        Column("sharpness", pa.float32(), "variance of the Laplacian of the luminance at the features' common size"),
        Column("brightness", pa.float32(), "mean luminance (Rec. 601)", "0 to 1"),
        Column("contrast", pa.float32(), "standard deviation of the luminance", "0 to 1"),
        Column("colourfulness", pa.float32(), "Hasler and Süsstrunk 2003, from pixels in 0 to 255"),
        Column("colours", pa.list_(pa.string()), "names of the colours that cover the most area, largest first"),
        Column("focus_x", pa.float32(), "centre of the detail (gradient energy) from the left", "0 to 1"),
        Column("focus_y", pa.float32(), "centre of the detail (gradient energy) from the top", "0 to 1"),
        FAULT,
    ]
)
