"""Points of the collection: one for each sample that has a vector, with what a search shows and filters by."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import IMAGE, ORIGINAL, has_image
from dqe_resources.models.language import detect_language
from dqe_resources.vectors.protocol import VectorsBrokenError, VectorsMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dqe_resources.vectors.protocol import Vectors


def collection_points(
    raw: pa.Table,
    captions: Mapping[str, pa.ChunkedArray | pa.Array],
    flags: Mapping[str, pa.ChunkedArray],
    embeddings: pa.Table,
    scores: pa.Table,
) -> pa.Table:
    """The points of a shard: a sample is one if it has an image and is not failed.

    Args:
        raw: uid, source, shard, image_name, url, width, height and status of ``raw_samples``.
        captions: the captions of each source, in the order of ``raw``.
        flags: what is wrong with each captioner's captions, in the same order.
        embeddings: ``JOINT_EMBEDDINGS``: a named vector for the image and for each caption source.
        scores: ``CAPTION_SCORES``.

    Returns:
        Columns uid, a list of floats for each named vector (null if absent), and the payload: image_name, source,
        shard, url, width, height, language (of the original caption), ``caption_<source>``, ``similarity_<source>``,
        ``flags_<captioner>``, and ``flagged_<captioner>``: whether there is any, null if there is no caption.
        Which duplicate cluster a sample is in is not among them: that is known only over all shards, and changes for
        old points with every new shard; a search asks the warehouse for it.
    """
    points = raw.drop_columns(["status"]).append_column("language", languages(captions[ORIGINAL]))
    for source, texts in captions.items():
        similarity = scores.filter(pc.equal(scores["caption_source"], source))["similarity"]
        points = points.append_column(f"caption_{source}", texts).append_column(f"similarity_{source}", similarity)
    for captioner, found in flags.items():
        points = points.append_column(f"flags_{captioner}", found)
        points = points.append_column(f"flagged_{captioner}", pc.greater(pc.list_value_length(found), 0))
    for item in (IMAGE, *captions):
        points = points.append_column(item, embeddings.filter(pc.equal(embeddings["item"], item))["embedding"])
    return points.filter(has_image(raw))


def remove_shards(vectors: Vectors, shards: Iterable[str]) -> None:
    """Remove all points of some shards from the collection, if there is one that can be read.

    Raises:
        VectorsError: the collection cannot be opened, or it failed.
    """
    with suppress(VectorsMissingError, VectorsBrokenError), vectors.open() as collection:
        for shard in shards:
            collection.replace_shard(shard, ())


def languages(texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The most likely language of each text, as an ISO 639 code; null if there is no letter to tell it by."""
    has_letter = ((text, bool(text) and any(map(str.isalpha, text))) for text in texts.to_pylist())
    return pa.array([detect_language(text)[0] if told else None for text, told in has_letter], pa.string())
