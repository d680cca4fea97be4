"""T-MARS: how well captions fit what is left of an image once its text is painted over.

Maini et al. 2023, "T-MARS: Improving Visual Representations by Circumventing Text Feature Learning" (arXiv 2307.03132):
a scorer that can read gives a high score to an image that does no more than spell its caption.
"""

from __future__ import annotations

import io
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import scatter, to_matrix
from dqe_assets.features.extract import read_by
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.alignment import caption_similarity, parts_of
from dqe_assets.score.image_text import corners_of, without_text
from dqe_assets.score.tables import MASKED_SIMILARITY
from dqe_resources import images
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.scorers.protocol import Scorer

MASKED_SIDE = 1024
"""Longest side of a masked image, in pixels: more than any scorer looks at."""

AT_ONCE = 32
"""Masked images in memory at once."""

_READ = pa.schema([RAW_SAMPLES.field("uid"), RAW_SAMPLES.field("image")])
_NO_IMAGE = {"uid": "", "image": None}


def masked_similarity(
    text: pa.Table,
    scored: pa.Table,
    raw: Iterable[pa.RecordBatch],
    scorer: Scorer,
    image_model: ImageModel,
    *,
    fill: str = "surrounding_mean",
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``MASKED_SIMILARITY`` for each sample; null if the original caption has no score, or at a fault.

    The masked images go to the scorer as the images themselves went: as files where it looks at images, or as the
    features of ``image_features`` where it looks at those.

    Args:
        text: ``IMAGE_TEXT``, n rows.
        scored: of the original captions, n rows: similarity, and embedding, truncated and parts of
            ``JOINT_EMBEDDINGS``.
        raw: columns uid and image of ``raw_samples``, n rows in batches.
        scorer: what the similarities were measured by.
        image_model: the backbone of ``image_features``.
        fill: what text is painted over with, as in ``without_text``.
        track: reports progress over the masked images.
    """
    masked = pc.fill_null(
        pc.and_(pc.greater(text["text_area"], 0), pc.is_valid(scored["similarity"])), fill_value=False
    )
    rows = np.flatnonzero(masked.to_numpy())
    regions = dict(zip(rows.tolist(), text["regions"].take(pa.array(rows)).to_pylist(), strict=True))

    @images.guarded
    def masked_picture(one: tuple[dict[str, Any], list[dict[str, Any]]]) -> dict[str, Any]:
        return masked_sample(*one, fill)

    tracked = track(ordered_map(masked_picture, _samples(raw, regions), ahead=AT_ONCE), len(rows))
    vectors = [np.empty((0, scorer.dimension), np.float32)]
    faults: list[str | None] = []
    while chunk := list(islice(tracked, AT_ONCE)):
        samples = [_NO_IMAGE if isinstance(one, images.ImageError) else one for one in chunk]
        part = scorer.embed_images(read_by(scorer, pa.Table.from_pylist(samples, _READ), image_model))
        vectors.append(part)
        for one, is_missing in zip(chunk, np.isnan(part).any(axis=1), strict=True):
            fault = str(one) if isinstance(one, images.ImageError) else f"{scorer.model} gives no vector for it"
            faults.append(fault if is_missing else None)
    captions = scored.take(pa.array(rows))
    # Through 16 bits, as the vectors of the images themselves were stored.
    seen = np.concatenate(vectors).astype(np.float16).astype(np.float32)
    without = scored["similarity"].to_numpy().astype(np.float32)
    without[rows] = caption_similarity(
        seen,
        to_matrix(captions["embedding"])[1].reshape(seen.shape),
        captions["truncated"].to_numpy(),
        *parts_of(captions["parts"]),
        scorer.long_captions,
    ).similarity
    return pa.table(
        {
            "uid": text["uid"],
            "masked_similarity": pa.array(without, mask=np.isnan(without)),
            "similarity": scored["similarity"],
            "text_area": text["text_area"],
            "fault": scatter(faults, rows, len(text), pa.string()),
        },
        schema=MASKED_SIMILARITY,
    )


def masked_sample(sample: dict[str, Any], regions: list[dict[str, Any]], fill: str) -> dict[str, Any]:
    """A row of ``raw_samples`` with its image painted over where it has text, and no larger than ``MASKED_SIDE``."""
    image = images.decode(sample["image"]["bytes"], MASKED_SIDE)
    image.thumbnail((MASKED_SIDE, MASKED_SIDE))
    file = io.BytesIO()
    # Lossless, and written in no time; it never leaves memory.
    without_text(image, corners_of(regions), fill).save(file, "BMP")
    return {**sample, "image": {"bytes": file.getvalue(), "path": sample["image"]["path"]}}


def _samples(
    raw: Iterable[pa.RecordBatch], regions: Mapping[int, list[dict[str, Any]]]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The rows that have text, each with its regions."""
    start = 0
    for batch in raw:
        inside = [row for row in range(batch.num_rows) if start + row in regions]
        for row, sample in zip(inside, batch.take(pa.array(inside, pa.int64())).to_pylist(), strict=True):
            yield sample, regions[start + row]
        start += batch.num_rows
