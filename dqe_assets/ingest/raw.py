"""Rows of a source made into rows of ``raw_samples``: every one of them, whatever becomes of its image."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets import images
from dqe_assets.parallel import ordered_map
from dqe_assets.schemas import RAW_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dqe_assets.ingest.rows import SourceRow

_BATCH_ROWS = 512


def uid_of(source: str, key: str) -> str:
    """The uid of a row: 32 hex digits, of the source's name and its own key of the row."""
    return hashlib.blake2b(f"{source}\0{key}".encode(), digest_size=16).hexdigest()


def raw_samples(rows: Iterable[SourceRow], *, source: str, shard: str, max_bytes: int, max_pixels: int) -> pa.Table:
    """One row of ``RAW_SAMPLES`` for each row of the source, in order.

    Args:
        rows: the rows, an image given as bytes or as the path of a file.
        source: name of the source.
        shard: partition key.
        max_bytes: a larger file is not read.
        max_pixels: an image of more pixels is not decoded.
    """

    def record(numbered: tuple[int, SourceRow]) -> dict[str, Any]:
        number, row = numbered
        return {
            "uid": uid_of(source, row.key),
            "source": source,
            "shard": shard,
            "row": number,
            "image_name": row.key,
            "url": row.url,
            "caption": row.caption,
            "truth": None
            if row.truth is None
            else {"photo": row.truth.photo, "image": row.truth.image, "caption": row.truth.caption},
            **_image_columns(row, max_bytes=max_bytes, max_pixels=max_pixels),
        }

    records = ordered_map(record, enumerate(rows))
    batches = iter(lambda: list(islice(records, _BATCH_ROWS)), [])
    return pa.Table.from_batches((pa.RecordBatch.from_pylist(batch, RAW_SAMPLES) for batch in batches), RAW_SAMPLES)


def _image_columns(row: SourceRow, *, max_bytes: int, max_pixels: int) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    try:
        data = _image_bytes(row, max_bytes)
        columns |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        info = images.inspect(data, max_bytes=max_bytes, max_pixels=max_pixels)
    except images.ImageError as error:
        return columns | {"status": "failed", "reason": error.reason, "detail": error.detail}
    return columns | {
        "image": {"bytes": data, "path": Path(row.key).name},
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "exif_orientation": info.exif_orientation,
        "status": "ok",
        "reason": "ok",
    }


def _image_bytes(row: SourceRow, max_bytes: int) -> bytes:
    if isinstance(row.image, bytes):
        return row.image
    if row.image is None:
        raise images.ImageError("missing", "the source has no image for this row")
    try:
        size = row.image.stat().st_size
        if size > max_bytes:
            raise images.ImageError("too_large", f"{size:,} bytes, at most {max_bytes:,} are allowed")
        return row.image.read_bytes()
    except OSError as error:
        raise images.ImageError("missing", f"{row.image}: {error.strerror or error}") from error
