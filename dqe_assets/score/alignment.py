"""How well captions fit images: images and captions in one space, and the cosines between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.arrow import from_matrix, scatter, to_matrix
from dqe_assets.schemas import CAPTION_PREFERENCE, CAPTION_SCORES, IMAGE, JOINT_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.text_encoders.protocol import TextEmbeddings


def joint_embeddings(
    uids: pa.ChunkedArray,
    samples: pa.Table,
    has_image: np.ndarray,
    captions: Mapping[str, pa.ChunkedArray | pa.Array],
    scorer: Scorer,
) -> pa.Table:
    """Images and captions in the scorer's joint space: ``JOINT_EMBEDDINGS``, n rows for the image and each source.

    Args:
        uids: n uids.
        samples: the columns that the scorer requires, n rows.
        has_image: bool [n].
        captions: n captions of each source; null or blank where there is none.
        scorer: the scorer.
    """
    total = len(uids)
    rows = np.flatnonzero(has_image)
    vectors = scorer.embed_images(samples.take(pa.array(rows)))
    parts = [
        pa.table(
            {
                "uid": uids,
                "item": pa.repeat(IMAGE, total),
                "embedding": from_matrix(vectors, rows, total, pa.float16()),
                "tokens": pa.nulls(total, pa.int32()),
                "truncated": pa.nulls(total, pa.bool_()),
            },
            schema=JOINT_EMBEDDINGS,
        )
    ]
    for source, texts in captions.items():
        present = np.flatnonzero(
            pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False).to_numpy(zero_copy_only=False)
        )
        embedded = scorer.embed_texts(texts.take(pa.array(present)).to_pylist())
        parts.append(
            pa.table(
                {
                    "uid": uids,
                    "item": pa.repeat(source, total),
                    "embedding": from_matrix(embedded.vectors, present, total, pa.float16()),
                    "tokens": scatter(embedded.tokens, present, total, pa.int32()),
                    "truncated": scatter(embedded.truncated, present, total, pa.bool_()),
                },
                schema=JOINT_EMBEDDINGS,
            )
        )
    return pa.concat_tables(parts)


def caption_scores(embeddings: pa.Table, caption_sources: Sequence[str]) -> pa.Table:
    """``CAPTION_SCORES`` of a table of ``JOINT_EMBEDDINGS``: the cosine of each caption with its image."""
    images = _items(embeddings, IMAGE)
    total = images.num_rows
    image_rows, image_vectors = to_matrix(images["embedding"])
    parts = []
    for source in caption_sources:
        captions = _items(embeddings, source)
        rows, vectors = to_matrix(captions["embedding"])
        both, left, right = np.intersect1d(image_rows, rows, assume_unique=True, return_indices=True)
        similarity = _cosines(image_vectors[left], vectors[right]) if len(both) else np.empty(0, np.float32)
        parts.append(
            pa.table(
                {
                    "uid": captions["uid"],
                    "caption_source": pa.repeat(source, total),
                    "similarity": scatter(similarity, both, total, pa.float32()),
                    "tokens": captions["tokens"],
                    "truncated": captions["truncated"],
                },
                schema=CAPTION_SCORES,
            )
        )
    return pa.concat_tables(parts)


def similarities_with(images: np.ndarray, texts: Sequence[str], scorer: Scorer) -> tuple[np.ndarray, TextEmbeddings]:
    """How well texts fit images, as ``caption_scores`` has it of captions that are in the store.

    Args:
        images: [n, d], of ``joint_embeddings``.
        texts: n texts.
        scorer: the scorer of those embeddings.

    Returns:
        float32 [n], and the texts' embeddings.
    """
    embedded = scorer.embed_texts(texts)
    if not len(texts):
        return np.empty(0, np.float32), embedded
    return _cosines(images, embedded.vectors.astype(np.float16).astype(np.float32)), embedded


def _cosines(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = np.clip(np.einsum("nd,nd->n", images, captions), -1, 1)
    return cosines


def caption_preference(
    scores: pa.Table, pairs: Sequence[tuple[str, str]], logit_scale: float, independent: Mapping[tuple[str, str], bool]
) -> pa.Table:
    """``CAPTION_PREFERENCE``: which of two captions of an image the scorer prefers, as CLIP classifies.

    Args:
        scores: ``CAPTION_SCORES``.
        pairs: pairs of caption sources; n rows for each.
        logit_scale: what a cosine is multiplied by before the softmax.
        independent: for each pair, whether the scorer shares no backbone with its captioners.
    """
    parts = []
    for a, b in pairs:
        first, second = _source(scores, a), _source(scores, b)
        # The softmax of two logits is the logistic function of their difference.
        difference = pc.subtract(first["similarity"], second["similarity"])
        odds = pc.exp(pc.multiply(pc.cast(difference, pa.float64()), -logit_scale))
        probability = pc.divide(1.0, pc.add(1.0, odds))
        parts.append(
            pa.table(
                {
                    "uid": first["uid"],
                    "source_a": pa.repeat(a, first.num_rows),
                    "source_b": pa.repeat(b, first.num_rows),
                    "probability_a": pc.cast(probability, pa.float32()),
                    "probability_b": pc.cast(pc.subtract(1.0, probability), pa.float32()),
                    "independent": pa.repeat(independent[a, b], first.num_rows),
                },
                schema=CAPTION_PREFERENCE,
            )
        )
    return pa.concat_tables(parts) if parts else CAPTION_PREFERENCE.empty_table()


def _items(embeddings: pa.Table, item: str) -> pa.Table:
    return embeddings.filter(pc.equal(embeddings["item"], item))


def _source(scores: pa.Table, source: str) -> pa.Table:
    return scores.filter(pc.equal(scores["caption_source"], source))
