"""The tables of contamination: what reference sets are compared by, which samples are in them, planted copies."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import EMBEDDING, IMAGE_TYPE, UID, Column, table_schema
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES

KINDS = ("exact", "perceptual", "semantic", "caption", "image_text")
"""The ways in which a sample can be found in a reference set."""

_ROW = Column("reference_row", pa.int32(), "position in the reference set, from 0", nullable=False)
_NAME = Column("reference", pa.string(), "the set's own name of that row", nullable=False)
_SET = Column("reference_set", pa.string(), "name of the reference set", nullable=False)


def _whole(name: str, of: pa.Schema) -> pa.Field:
    """A column of the whole picture alone."""
    return of.field(name).with_nullable(True)


REFERENCE_FEATURES = pa.schema(
    [
        *table_schema(
            [
                _ROW,
                Column(
                    "variant",
                    pa.string(),
                    "what of the picture: whole, middle (cut all around), lettered_top or lettered_bottom",
                    nullable=False,
                ),
                _NAME,
                Column("texts", pa.list_(pa.string()), "captions or answers of the row; at the variant whole"),
            ]
        ),
        _whole("sha256", RAW_SAMPLES),
        *(_whole(name, IMAGE_FEATURES) for name in ("pixel_digest", "perceptual_hash")),
        *table_schema([Column("mirrored_hash", pa.uint64(), "perceptual hash of the picture, mirrored")]),
        *(_whole(name, IMAGE_FEATURES) for name in ("contrast", "embedding")),
        *table_schema(
            [
                Column("code", EMBEDDING, "random projection of the features to 128 numbers, of length 1"),
                Column("image", IMAGE_TYPE, "the picture, made small, as JPEG; at the variant whole"),
                Column("fault", pa.string(), "why the row has no picture; at the variant whole; null if it has one"),
            ]
        ),
    ]
)


CONTAMINATION = table_schema(
    [
        UID,
        Column(
            "kind",
            pa.string(),
            "exact, perceptual or semantic: by the picture; caption or image_text: by the text",
            nullable=False,
        ),
        _SET,
        _ROW,
        _NAME,
        Column(
            "similarity",
            pa.float32(),
            "1 where they are equal, the share of equal bits of their hashes, the cosine of their features, or the "
            "share of the text's runs of words that the sample's text has",
            "0 to 1",
            nullable=False,
        ),
        Column("reference_text", pa.string(), "the text that was found; null where a picture was"),
    ]
)


PLANTED_COPIES = table_schema(
    [
        _SET,
        _ROW,
        _NAME,
        Column("copy", pa.string(), "recompressed, cropped, mirrored or lettered", nullable=False),
        Column("distance", pa.int16(), "fewest bits in which the hashes of copy and picture differ", "bits"),
        Column("cosine", pa.float32(), "highest cosine of the features of copy and picture", "-1 to 1"),
        Column("other_distance", pa.int16(), "likewise, of the copy and all other pictures", "bits"),
        Column("other_cosine", pa.float32(), "likewise", "-1 to 1"),
        Column("is_found", pa.bool_(), "whether it is near enough to its own picture", nullable=False),
        Column("is_mistaken", pa.bool_(), "whether it is so near to another picture", nullable=False),
    ]
)
