"""The tables of duplicates: pairs of images, clusters of images, repeated captions."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

DUPLICATE_PAIRS = table_schema(
    [
        Column("kind", pa.string(), "exact, perceptual or semantic", nullable=False),
        Column("uid_a", pa.string(), "the sample of the two with the smaller uid", nullable=False),
        Column(
            "uid_b",
            pa.string(),
            "the other; of samples that are equal, only the first by uid is paired with others",
            nullable=False,
        ),
        Column(
            "similarity",
            pa.float32(),
            "1 where they are equal, the share of equal bits of their hashes, or the cosine of their features",
            "0 to 1",
            nullable=False,
        ),
    ]
)


DUPLICATE_CLUSTERS = table_schema(
    [
        UID,
        Column("kind", pa.string(), "exact, perceptual, semantic, or any (their union)", nullable=False),
        Column("cluster", pa.string(), "smallest uid of the cluster", nullable=False),
        Column("representative", pa.string(), "uid of the sample to keep", nullable=False),
        Column("is_representative", pa.bool_(), "whether this is the sample to keep", nullable=False),
        Column("similarity", pa.float32(), "cosine of the features of this sample and the representative", "-1 to 1"),
        Column("size", pa.int32(), "samples in the cluster, 2 or more", "samples", nullable=False),
    ]
)


CAPTION_SIGNATURES = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("text_digest", pa.binary(16), "digest of the caption's words in lower case; null where it has no word"),
        Column(
            "signature",
            pa.list_(pa.uint64()),
            "MinHash of its four-letter runs: the lowest byte of each of 256 minima, eight to a number; null likewise",
        ),
    ]
)


CAPTION_DUPLICATES = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("kind", pa.string(), "exact (the same words), or near (or nearly the same)", nullable=False),
        Column("cluster", pa.string(), "smallest uid of the cluster", nullable=False),
        Column("representative", pa.string(), "uid of the sample whose caption stands for the others", nullable=False),
        Column("is_representative", pa.bool_(), "whether this is that sample", nullable=False),
        Column("similarity", pa.float32(), "Jaccard similarity of this caption and the representative's", "0 to 1"),
        Column("size", pa.int32(), "captions in the cluster, 2 or more", "captions", nullable=False),
    ]
)
