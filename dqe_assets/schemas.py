"""The contract between stages: the Arrow schema of every table, each column with its meaning and unit.

Every per-shard table has exactly one row for each row of ``raw_samples``, in the same order and with the same
``uid`` (tables with a second key column, such as ``caption_source``, have a fixed number of rows for each). What
could not be measured is null and never missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

ORIGINAL = "original"
"""The caption source that every sample has: the caption it came with."""

IMAGE = "image"
"""The item of ``joint_embeddings`` that is the picture itself, beside the caption sources."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, meaning and, where it is a quantity, unit."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = True

    def field(self) -> pa.Field:
        """The Arrow field, its description and unit kept as field metadata."""
        metadata = {"description": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


def table_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a list of columns."""
    return pa.schema([column.field() for column in columns])


UID = Column("uid", pa.string(), "128-bit hex digest of the source's own key of the row", nullable=False)
EMBEDDING = pa.list_(pa.float16())

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What Hugging Face datasets calls an Image feature."""

TRUTH_TYPE = pa.struct([("photo", pa.string()), ("image", pa.string()), ("caption", pa.string())])

RAW_SAMPLES = table_schema(
    [
        UID,
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("shard", pa.string(), "partition key", nullable=False),
        Column("row", pa.int32(), "position in the shard, from 0", nullable=False),
        Column("image_name", pa.string(), "the source's own name of the row", nullable=False),
        Column("url", pa.string(), "where the image came from, if the source says"),
        Column("caption", pa.string(), "the caption as found, untouched"),
        Column("image", IMAGE_TYPE, "the image file's bytes as found, and its name; null unless status is ok"),
        Column("sha256", pa.string(), "hex digest of the bytes as found, also of a broken file"),
        Column("format", pa.string(), "image format: jpeg, png, webp, gif ..."),
        Column("bytes", pa.int64(), "size of the file", "bytes"),
        Column("width", pa.int32(), "width once the EXIF orientation is applied", "pixels"),
        Column("height", pa.int32(), "height once the EXIF orientation is applied", "pixels"),
        Column("exif_orientation", pa.int8(), "EXIF orientation, 1 to 8; 1 is upright"),
        Column("status", pa.string(), "ok or failed", nullable=False),
        Column(
            "reason", pa.string(), "ok, or why the row failed: missing, truncated, not_an_image ...", nullable=False
        ),
        Column("detail", pa.string(), "the error in full, if the row failed"),
        Column(
            "truth",
            TRUTH_TYPE,
            "what was planted in the embedded sample: photo, kind of image, kind of caption. "
            "No stage reads it; tests and benchmarks measure the stages against it",
        ),
    ]
)

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
    ]
)

SYNTHETIC_CAPTIONS = table_schema(
    [
        UID,
        Column("text", pa.string(), "the caption as generated; null where none was"),
        Column("caption", pa.string(), "the straightforward caption: opening formula stripped, entities unescaped"),
        Column("finish_reason", pa.string(), "stop, length, error, or no_image", nullable=False),
        Column("model", pa.string(), "model that wrote it", nullable=False),
        Column("error", pa.string(), "the error, if finish_reason is error"),
    ]
)

JOINT_EMBEDDINGS = table_schema(
    [
        UID,
        Column("item", pa.string(), "image, or the caption source: original or a captioner's name", nullable=False),
        Column("embedding", EMBEDDING, "unit vector in the scorer's joint space; null where there is nothing to embed"),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included; null for an image", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads; null for an image"),
    ]
)

CAPTION_SCORES = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("similarity", pa.float32(), "cosine of caption and image in the scorer's joint space", "-1 to 1"),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads"),
    ]
)

CAPTION_PREFERENCE = table_schema(
    [
        UID,
        Column("source_a", pa.string(), "caption source a", nullable=False),
        Column("source_b", pa.string(), "caption source b", nullable=False),
        Column("probability_a", pa.float32(), "softmax over the two captions of logit scale x similarity", "0 to 1"),
        Column("probability_b", pa.float32(), "1 - probability_a", "0 to 1"),
        Column(
            "independent",
            pa.bool_(),
            "false where the scorer shares a backbone with one of the captioners: the preference then proves nothing",
            nullable=False,
        ),
    ]
)

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

_LAW = {
    "a": "scale of the law, common to a metric's pools: error above d after 100,000 new samples",
    "b": "utility of a new sample of the pool, below 0: the lower, the better",
    "tau": "half-life of that utility: passes over the pool after which it has halved; inf for no decay",
    "d": "error that no amount of data removes, common to a metric's pools",
}

_ENDS = {"": "", "_low": "lower end", "_high": "upper end"}

POOL_UTILITIES = table_schema(
    [
        Column("metric", pa.string(), "what was measured", nullable=False),
        Column("pool", pa.string(), "pool of data", nullable=False),
        Column("rank", pa.int32(), "place by utility among the metric's pools, 1 is best", nullable=False),
        Column("pool_size", pa.int64(), "samples in the pool", "samples", nullable=False),
        *(
            Column(
                f"{name}{suffix}",
                pa.float64(),
                f"{name}: {ends} of its 95 % interval" if ends else meaning,
                "epochs" if name == "tau" else "",
                nullable=False,
            )
            for name, meaning in _LAW.items()
            for suffix, ends in _ENDS.items()
        ),
        Column("points", pa.int32(), "measured points of the pool's training curve", nullable=False),
        Column("least_samples_seen", pa.int64(), "samples seen at its first point", "samples", nullable=False),
        Column("most_samples_seen", pa.int64(), "samples seen at its last point", "samples", nullable=False),
        Column("epochs", pa.float64(), "passes over the pool at its last point", "epochs", nullable=False),
        Column("residual", pa.float64(), "root mean square of fitted less measured error", nullable=False),
        Column("warning", pa.string(), "what the data cannot say; null if they say everything"),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
        Column("measured_samples_seen", pa.list_(pa.float64()), "samples seen at each point", "samples"),
        Column("measured_error", pa.list_(pa.float64()), "error measured at each point", "0 to 1"),
        *(
            Column(f"drawn_{name}", pa.list_(pa.float64()), f"{name} in each fit to resampled errors, for intervals")
            for name in _LAW
        ),
    ]
)

FILTER_RECOMMENDATION = table_schema(
    [
        Column("metric", pa.string(), "what is predicted", nullable=False),
        Column("samples_seen", pa.int64(), "compute: samples seen in training", "samples", nullable=False),
        Column("keep", pa.int32(), "how many of the best pools are kept", "pools", nullable=False),
        Column("pools", pa.list_(pa.string()), "their names, the best first", nullable=False),
        Column("kept_samples", pa.int64(), "samples in them", "samples", nullable=False),
        Column("epochs", pa.float64(), "passes over them", "epochs", nullable=False),
        Column("error", pa.float64(), "predicted error", nullable=False),
        Column("error_low", pa.float64(), "predicted error: lower end, 95 % interval", nullable=False),
        Column("error_high", pa.float64(), "predicted error: upper end, 95 % interval", nullable=False),
        Column("is_best", pa.bool_(), "whether no other number of pools has a lower predicted error", nullable=False),
        Column("share_best", pa.float64(), "share of the resampled fits in which it is best", "0 to 1", nullable=False),
        Column("is_measured", pa.bool_(), "whether the compute lies within the measured curves", nullable=False),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
    ]
)

SYNTHETIC_CAPTIONS_PREFIX = "synthetic_captions/"

_TABLES = {
    "raw_samples": RAW_SAMPLES,
    "image_features": IMAGE_FEATURES,
    "joint_embeddings": JOINT_EMBEDDINGS,
    "caption_scores": CAPTION_SCORES,
    "caption_preference": CAPTION_PREFERENCE,
    "duplicate_pairs": DUPLICATE_PAIRS,
    "duplicate_clusters": DUPLICATE_CLUSTERS,
    "caption_duplicates": CAPTION_DUPLICATES,
    "pool_utilities": POOL_UTILITIES,
    "filter_recommendation": FILTER_RECOMMENDATION,
}


def schema_of(asset: str) -> pa.Schema:
    """The schema of an asset's table.

    Raises:
        KeyError: the asset is not a table.
    """
    return SYNTHETIC_CAPTIONS if asset.startswith(SYNTHETIC_CAPTIONS_PREFIX) else _TABLES[asset]
