"""Points of the collection: one for each sample that has a vector, with what a search shows and filters by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.schemas import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping


def collection_points(
    raw: pa.Table, captions: Mapping[str, pa.ChunkedArray | pa.Array], embeddings: pa.Table, scores: pa.Table
) -> pa.Table:
    """The points of a shard: a sample is one if it has an image and is not failed.

    Args:
        raw: uid, source, shard, image_name, url, width, height and status of ``raw_samples``.
        captions: the captions of each source, in the order of ``raw``.
        embeddings: ``JOINT_EMBEDDINGS``: a named vector for the image and for each caption source.
        scores: ``CAPTION_SCORES``.

    Returns:
        Columns uid, a list of floats for each named vector (null where absent), and the payload: image_name, source,
        shard, url, width, height, ``caption_<source>`` and ``similarity_<source>``.
    """
    points = raw.drop_columns(["status"])
    for source, texts in captions.items():
        similarity = scores.filter(pc.equal(scores["caption_source"], source))["similarity"]
        points = points.append_column(f"caption_{source}", texts).append_column(f"similarity_{source}", similarity)
    for item in (IMAGE, *captions):
        points = points.append_column(item, embeddings.filter(pc.equal(embeddings["item"], item))["embedding"])
    return points.filter(pc.equal(raw["status"], "ok"))
