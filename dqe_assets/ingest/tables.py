"""The table of raw samples."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import IMAGE_TYPE, UID, Column, table_schema

TRUTH_TYPE = pa.struct([("photo", pa.string()), ("image", pa.string()), ("caption", pa.string())])


RAW_SAMPLES = table_schema(
    [
        UID,
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("shard", pa.string(), "partition key", nullable=False),
        Column("row", pa.int32(), "position in the shard, from 0", nullable=False),
        Column("image_name", pa.string(), "the source's own name of the row", nullable=False),
        Column("url", pa.string(), "where the image came from, if the source says"),
        Column("caption", pa.string(), "the caption as found, untouched; of several the first"),
        Column("original_captions", pa.list_(pa.string()), "all captions, if the source has several of the image"),
        Column(
            "image",
            IMAGE_TYPE,
            "the image file's bytes, as found unless images.longest_side made it smaller, and its name; "
            "null unless status is ok",
        ),
        Column("sha256", pa.string(), "hex digest of the bytes as found, also of a broken file"),
        Column("format", pa.string(), "image format: jpeg, png, webp, gif ..."),
        Column("bytes", pa.int64(), "size of the file as stored, or of a broken one as found", "bytes"),
        Column("width", pa.int32(), "width once the EXIF orientation is applied", "pixels"),
        Column("height", pa.int32(), "height once the EXIF orientation is applied", "pixels"),
        Column("exif_orientation", pa.int8(), "EXIF orientation of the file as stored, 1 to 8; 1 is upright"),
        Column("original_bytes", pa.int64(), "size of the file as found; null if it is stored as found", "bytes"),
        Column("original_width", pa.int32(), "width as found; null if it is stored as found", "pixels"),
        Column("original_height", pa.int32(), "height as found; null if it is stored as found", "pixels"),
        Column("status", pa.string(), "ok or failed", nullable=False),
        Column(
            "reason",
            pa.string(),
            "ok, or why the row failed: http_404, dns, timeout, truncated ... (docs/ingest.md has all)",
            nullable=False,
        ),
        Column("detail", pa.string(), "the error in full, if the row failed"),
        Column("attempts", pa.int16(), "how often the URL was asked for; null where the image came with the source"),
        Column("http_status", pa.int16(), "status of the last answer; null if none came"),
        Column("final_url", pa.string(), "the last URL that was asked for, after redirects"),
        Column("seconds", pa.float32(), "that the requests took, without waiting for their turn", "seconds"),
        Column("fetched_at", pa.timestamp("us", tz="UTC"), "when fetching ended"),
        Column("source_metadata", pa.string(), "JSON of what else the source says of the row: sizes, scores ..."),
        Column(
            "truth",
            TRUTH_TYPE,
            "what was planted in the embedded sample: photo, kind of image, kind of caption. "
            "Nothing is decided by it: tests, benchmarks and the warehouse's table of filters measure against it",
        ),
    ]
)
