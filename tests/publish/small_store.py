"""A store of small pictures, written by hand: shards of several row groups, captions of two sources."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.tables import CAPTION_SCORES, FURTHER_CAPTION_SCORES
from dqe_resources.store import Stamp, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARDS, ROWS, GROUP = 3, 40, 8
BROKEN, UNCAPTIONED, SEVERAL = 5, 9, 3
"""Of the rows of a shard: the number of one without an image, of one without a caption; each third has two."""

UNSCORED = 1
"""The shard whose further captions have no scores."""


def uid(shard: int, row: int) -> str:
    return hashlib.md5(f"{shard} {row}".encode()).hexdigest()


UIDS = [uid(shard, row) for shard in range(SHARDS) for row in range(ROWS) if row != BROKEN]
"""Of the samples that have an image."""


def picture(shard: int, row: int) -> bytes:
    """A PNG; of each tenth a TIFF, which is published as a JPEG."""
    image = Image.fromarray(np.full((6, 8, 3), (row * 5, shard * 60, 200), np.uint8))
    image.save(file := io.BytesIO(), "TIFF" if row % 10 == 7 else "PNG")
    return file.getvalue()


def make_store(root: str) -> Store:
    """Write it to a folder or URL."""
    store = Store(root)
    for shard in range(SHARDS):
        key = f"mine-{shard:05d}"
        raw = [_raw(shard, row, key) for row in range(ROWS)]
        batches = [
            pa.RecordBatch.from_pylist(raw[start : start + GROUP], RAW_SAMPLES) for start in range(0, ROWS, GROUP)
        ]
        store.write_batches("raw_samples", key, batches, RAW_SAMPLES, lambda: Stamp("1", "1", ROWS))
        made = [_synthetic(row["uid"], row["row"], f"model {key} {row['row']}") for row in raw]
        store.write_table(
            "synthetic_captions/model", key, table(made, SYNTHETIC_CAPTIONS), SYNTHETIC_CAPTIONS, Stamp("1", "1", ROWS)
        )
        scores = [
            {"uid": row["uid"], "caption_source": source, "similarity": similarity}
            for source, similarity in (("original", 0.25), ("model", 0.5))
            for row in raw
        ]
        store.write_table(
            "caption_scores", key, table(scores, CAPTION_SCORES), CAPTION_SCORES, Stamp("1", "1", 2 * ROWS)
        )
        if shard == UNSCORED:
            continue
        further = [
            {"uid": row["uid"], "place": 2, "similarity": row["row"] / 100} for row in raw if row["original_captions"]
        ]
        store.write_table(
            "further_caption_scores",
            key,
            table(further, FURTHER_CAPTION_SCORES),
            FURTHER_CAPTION_SCORES,
            Stamp("1", "1", len(further)),
        )
    return store


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of a table, null where nothing is said."""
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in schema} for row in rows], schema)


def _raw(shard: int, row: int, key: str) -> Mapping[str, Any]:
    is_there = row != BROKEN
    caption = None if row == UNCAPTIONED else f"original {key} {row}"
    captions = [caption, f"further {key} {row}"] if row % SEVERAL == 0 and row != UNCAPTIONED else None
    return {field.name: None for field in RAW_SAMPLES} | {
        "uid": uid(shard, row),
        "source": "mine",
        "shard": key,
        "row": row,
        "image_name": f"{row}.png",
        "caption": caption,
        "original_captions": captions,
        "image": {"bytes": picture(shard, row), "path": f"{row}.png"} if is_there else None,
        "format": "tiff" if row % 10 == 7 else "png",
        "status": "ok" if is_there else "failed",
        "reason": "ok" if is_there else "missing",
    }


def _synthetic(name: str, row: int, caption: str) -> dict[str, Any]:
    is_there = row % 4 != 1
    return {
        "uid": name,
        "text": caption if is_there else None,
        "caption": caption if is_there else None,
        "finish_reason": "stop" if is_there else "error",
        "model": "model",
    }
