"""What the pictures and texts of a reference set are compared by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import ImageOps

from dqe_assets.contamination.tables import REFERENCE_FEATURES
from dqe_assets.contamination.variants import LONGEST_SIDE, VARIANTS, WHOLE
from dqe_assets.core.arrow import from_matrix, to_matrix
from dqe_assets.core.figures import jpeg
from dqe_assets.core.schema import EMBEDDING, IMAGE_TYPE
from dqe_assets.dedup.codebook import codes
from dqe_assets.dedup.semantic import has_direction
from dqe_assets.features.extract import image_features
from dqe_assets.ingest.raw import raw_samples
from dqe_assets.ingest.remote import Fetches
from dqe_resources import images
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.core.work import Work
    from dqe_assets.ingest.settings import IngestSettings
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.sources import Source

    Track = Callable[[Iterable[Any], int], Iterator[Any]]

PICTURE_SIDE = 384
"""Pixels of the longest side of the picture that is kept."""

_ROWS_AT_ONCE = 256
_QUALITY = 95
_FILES = pa.schema([("uid", pa.string()), ("image", IMAGE_TYPE)])


def read_set(work: Work, source: Source, ingest: IngestSettings) -> Iterator[pa.RecordBatch]:
    """The rows of a reference set as those of a source are read: some hundred at a time, in ``RAW_SAMPLES``.

    Args:
        work: the work.
        source: the set.
        ingest: limits on images, and how they are fetched.
    """
    ingest = ingest.model_copy(update={"sources": [source]})
    for shard in source.shards():
        # What has been fetched is kept for each shard until all of it is read.
        of_shard = replace(work, partition=source.key(shard.index))
        for batch in raw_samples(
            lambda index=shard.index: source.rows(index),  # type: ignore[misc]
            source=source.name,
            shard=source.key(shard.index),
            # What no model is trained on may be compared with.
            limits=ingest.images.model_copy(update={"disallowed_data_mining": ()}),
            fetch=lambda wanted, of=of_shard, rows=shard.rows: Fetches(of, ingest, wanted, rows),  # type: ignore[misc]
        ):
            yield from (batch.slice(start, _ROWS_AT_ONCE) for start in range(0, batch.num_rows, _ROWS_AT_ONCE))
        of_shard.checkpoint.clear()


@dataclass(frozen=True, slots=True)
class _Looked:
    """A picture made small, its variants as files, and the hashes of all of them, mirrored."""

    picture: bytes
    variants: dict[str, bytes]
    mirrored: dict[str, int]


def reference_features(raw: pa.RecordBatch, first: int, model: ImageModel) -> pa.RecordBatch:
    """Rows of ``REFERENCE_FEATURES`` for some rows of a set: a row for each, then one for each variant of a picture.

    Args:
        raw: the rows, in ``RAW_SAMPLES``.
        first: number of the first of them in the set.
        model: the backbone.
    """
    table = pa.Table.from_batches([raw])
    whole = image_features(table.select(["uid", "image"]), model)
    seen = np.flatnonzero(whole["perceptual_hash"].is_valid().to_numpy()).tolist()

    @images.guarded
    def looked_at(row: int) -> _Looked:
        picture = images.decode(table["image"][row]["bytes"].as_py())
        mirrored = {WHOLE: images.perceptual_hash(ImageOps.mirror(picture))}
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        made = {name: variant(picture) for name, variant in VARIANTS.items()}
        mirrored |= {name: images.perceptual_hash(ImageOps.mirror(one)) for name, one in made.items()}
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        return _Looked(jpeg(picture), {name: jpeg(one, _QUALITY) for name, one in made.items()}, mirrored)

    found = zip(seen, ordered_map(looked_at, seen), strict=True)
    looked = {row: one for row, one in found if isinstance(one, _Looked)}
    made = [(row, name) for name in VARIANTS for row in looked]
    files = [{"bytes": looked[row].variants[name], "path": ""} for row, name in made]
    numbers = [str(number) for number in range(len(made))]
    variants = image_features(pa.table({"uid": numbers, "image": files}, _FILES), model)
    features = pa.concat_tables([whole, variants]).combine_chunks()
    at, vectors = to_matrix(features["embedding"])
    directed = has_direction(vectors)
    code = codes(vectors[directed]) if directed.any() else np.empty((0, 0), np.float16)
    places = [*((row, WHOLE) for row in range(len(table))), *made]
    of = pa.array([row for row, _ in places], pa.int32())
    is_whole = pa.array([name == WHOLE for _, name in places])

    def of_whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        return pc.if_else(is_whole, column.take(of), pa.scalar(None, column.type))

    def own(values: Iterable[Any], name: str) -> pa.Array:
        return of_whole(pa.array(list(values), REFERENCE_FEATURES.field(name).type))

    about = table.select(["status", "reason", "detail", "caption", "original_captions"]).to_pylist()
    rows = range(table.num_rows)
    columns: dict[str, Any] = {
        "reference_row": pc.add(of, pa.scalar(first, pa.int32())),
        "variant": [name for _, name in places],
        "reference": table["image_name"].take(of),
        "texts": own(map(_texts, about), "texts"),
        "sha256": of_whole(pc.if_else(pc.equal(table["status"], "ok"), table["sha256"], None)),
        "pixel_digest": of_whole(whole["pixel_digest"]),
        "perceptual_hash": features["perceptual_hash"],
        "mirrored_hash": pa.array(
            [looked[row].mirrored[name] if row in looked else None for row, name in places], pa.uint64()
        ),
        "contrast": whole["contrast"].take(of),
        "embedding": features["embedding"],
        "code": from_matrix(code, at[directed], len(places), EMBEDDING.value_type),
        "image": own(({"bytes": looked[row].picture, "path": ""} if row in looked else None for row in rows), "image"),
        "fault": own(map(_fault, about, whole["fault"].to_pylist()), "fault"),
    }
    return pa.table(columns, REFERENCE_FEATURES).combine_chunks().to_batches()[0]


def _texts(row: dict[str, Any]) -> list[str] | None:
    """All captions of a row; null without any."""
    return row["original_captions"] or ([row["caption"]] if row["caption"] else None)


def _fault(row: dict[str, Any], fault: str | None) -> str | None:
    return fault if row["status"] == "ok" else row["detail"] or row["reason"]


def batched(parts: Iterable[pa.RecordBatch], count: int) -> Iterator[pa.RecordBatch]:
    """Several batches as one: what is written is a row group each."""
    parts = iter(parts)
    while some := list(islice(parts, count)):
        yield pa.Table.from_batches(some).combine_chunks().to_batches()[0]
