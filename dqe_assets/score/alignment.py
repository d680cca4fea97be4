"""How well captions fit images: images and captions in one space, and the cosines between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import from_matrix, scatter, take_strings, to_matrix
from dqe_assets.core.schema import FAULT, IMAGE
from dqe_assets.score.sentences import readable_parts
from dqe_assets.score.tables import CAPTION_PREFERENCE, CAPTION_SCORES, JOINT_EMBEDDINGS
from dqe_resources.models.text_encoders.protocol import TextEmbeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dqe_resources.scorers.protocol import LongCaptions, Scorer

TRUNCATE: LongCaptions = "truncate"
TEXTS_AT_ONCE = 1024

ROWS_AT_ONCE = 64
"""Samples that a scorer reads at once: a vector's last bits may depend on which others are read with it."""


@dataclass(frozen=True, slots=True)
class EmbeddedCaptions:
    """Captions in a scorer's space.

    Attributes:
        whole: each caption, or of one too long what the encoder reads.
        parts: float32 [p, d], the sentences of those too long; none if such captions are only truncated.
        of: int64 [p], the caption that each part is of, ascending.
    """

    whole: TextEmbeddings
    parts: np.ndarray
    of: np.ndarray


@dataclass(frozen=True, slots=True)
class Preferring:
    """A pair of caption sources, and who says which caption fits better.

    Attributes:
        source_a: one caption source.
        source_b: the other.
        scorer: name of the model that prefers.
        independent: whether it shares no backbone with their captioners.
    """

    source_a: str
    source_b: str
    scorer: str
    independent: bool


@dataclass(frozen=True, slots=True)
class CaptionSimilarity:
    """How well n captions fit their images, float32 [n] each; NaN if there is nothing to compare.

    Attributes:
        similarity: by the configured policy.
        truncated: of a caption too long, that of its beginning; NaN if the caption fits the encoder.
        sentences_mean: of a caption too long, the mean over its sentences; NaN if none were embedded.
        sentences_max: the highest of them.
    """

    similarity: np.ndarray
    truncated: np.ndarray
    sentences_mean: np.ndarray
    sentences_max: np.ndarray


def embed_captions(
    texts: Sequence[str], scorer: Scorer, progress: Callable[[int], object] = lambda _: None
) -> EmbeddedCaptions:
    """Embed captions, and the sentences of those that are too long where the scorer's policy scores sentences.

    Args:
        texts: n captions, none blank.
        scorer: the scorer; ``long_captions`` is its policy.
        progress: is told how many more are embedded.
    """
    total, dimension = len(texts), scorer.dimension
    vectors = np.empty((total, dimension), np.float32)
    tokens, truncated = np.empty(total, np.int32), np.empty(total, bool)
    parts, of = [np.empty((0, dimension), np.float32)], [np.empty(0, np.int64)]
    for start in range(0, total, TEXTS_AT_ONCE):
        rows = slice(start, start + TEXTS_AT_ONCE)
        whole = scorer.embed_texts(texts[rows])
        vectors[rows], tokens[rows], truncated[rows] = whole.vectors, whole.tokens, whole.truncated
        long = start + np.flatnonzero(whole.truncated)
        if len(long) and scorer.long_captions != TRUNCATE:
            sentences = readable_parts([texts[row] for row in long.tolist()], scorer.count_tokens, scorer.max_tokens)
            parts.append(scorer.embed_texts([part for of_text in sentences for part in of_text]).vectors)
            of.append(np.repeat(long, [len(of_text) for of_text in sentences]))
        progress(len(whole.tokens))
    return EmbeddedCaptions(TextEmbeddings(vectors, tokens, truncated), np.concatenate(parts), np.concatenate(of))


def caption_similarity(
    images: np.ndarray,
    captions: np.ndarray,
    truncated: np.ndarray,
    parts: np.ndarray,
    of: np.ndarray,
    policy: LongCaptions,
) -> CaptionSimilarity:
    """The cosines of captions with their images.

    Args:
        images: float32 [n, d], unit vectors.
        captions: float32 [n, d], unit vectors.
        truncated: bool [n], whether the caption was too long.
        parts: float32 [p, d], unit vectors of sentences.
        of: int64 [p], the caption that each is of, ascending.
        policy: what counts as the similarity of a caption that has sentences.
    """
    cosines = np.clip(np.einsum("nd,nd->n", images, captions), -1, 1, dtype=np.float32)
    nothing = np.full(len(cosines), np.nan, np.float32)
    mean, highest = nothing.copy(), nothing.copy()
    if len(of):
        of_parts = np.clip(np.einsum("pd,pd->p", images[of], parts), -1, 1)
        rows, starts = np.unique(of, return_index=True)
        mean[rows] = np.add.reduceat(of_parts, starts) / np.diff([*starts, len(of)])
        highest[rows] = np.maximum.reduceat(of_parts, starts)
    wanted = {TRUNCATE: nothing, "sentences_mean": mean, "sentences_max": highest}[policy]
    similarity = np.where(np.isnan(wanted), cosines, wanted)
    return CaptionSimilarity(similarity, np.where(truncated, cosines, nothing), mean, highest)


def joint_embeddings(
    uids: pa.ChunkedArray,
    samples: Iterable[pa.RecordBatch],
    has_image: np.ndarray,
    captions: Mapping[str, pa.ChunkedArray | pa.Array],
    scorer: Scorer,
    progress: Callable[[int], object] = lambda _: None,
) -> pa.Table:
    """Images and captions in the scorer's joint space: ``JOINT_EMBEDDINGS``, n rows for the image and each source.

    Args:
        uids: n uids.
        samples: the columns that the scorer reads, n rows in batches, of which few are held at once.
        has_image: bool [n].
        captions: n captions of each source; null or blank if there is none.
        scorer: the scorer.
        progress: is told how many more images or captions are embedded.
    """
    total = len(uids)
    tables = [_table(uids, IMAGE, **_embedded_images(samples, has_image, scorer, progress))]
    for source, texts in captions.items():
        present = np.flatnonzero(
            pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False).to_numpy(zero_copy_only=False)
        )
        embedded = embed_captions(take_strings(texts, present), scorer, progress)
        tables.append(
            _table(
                uids,
                source,
                embedding=from_matrix(embedded.whole.vectors, present, total, pa.float16()),
                tokens=scatter(embedded.whole.tokens, present, total, pa.int32()),
                truncated=scatter(embedded.whole.truncated, present, total, pa.bool_()),
                parts=_parts(embedded.parts, present[embedded.of], total),
            )
        )
    return pa.concat_tables(tables)


def parts_of(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The vectors in the column ``parts`` of ``JOINT_EMBEDDINGS``: float32 [p, d], and the row that each is of."""
    whole = column.combine_chunks()
    _, vectors = to_matrix(pc.list_flatten(whole))
    return vectors, pc.list_parent_indices(whole).to_numpy()


def caption_scores(
    embeddings: pa.Table, caption_sources: Sequence[str], long_captions: LongCaptions = TRUNCATE
) -> pa.Table:
    """``CAPTION_SCORES`` of a table of ``JOINT_EMBEDDINGS``: the cosine of each caption with its image.

    Args:
        embeddings: of the images and of these sources.
        caption_sources: the sources.
        long_captions: what counts of a caption that has parts.
    """
    images = _items(embeddings, IMAGE)
    total = images.num_rows
    image_rows, image_vectors = to_matrix(images["embedding"])
    tables = []
    for source in caption_sources:
        captions = _items(embeddings, source)
        rows, vectors = to_matrix(captions["embedding"])
        both, left, right = np.intersect1d(image_rows, rows, assume_unique=True, return_indices=True)
        chosen = captions.take(pa.array(both))
        # With no pair at all one side may have no vector, and so no dimension.
        vectors = vectors[right].reshape(len(both), image_vectors.shape[1])
        truncated = chosen["truncated"].to_numpy()
        found = caption_similarity(image_vectors[left], vectors, truncated, *parts_of(chosen["parts"]), long_captions)
        scores = {
            name: scatter(pa.array(values, pa.float32(), from_pandas=True), both, total, pa.float32())
            for name, values in (
                ("similarity_truncated", found.truncated),
                ("similarity_sentences_mean", found.sentences_mean),
                ("similarity_sentences_max", found.sentences_max),
            )
        }
        tables.append(
            pa.table(
                {
                    "uid": captions["uid"],
                    "caption_source": pa.repeat(source, total),
                    "similarity": scatter(found.similarity, both, total, pa.float32()),
                    "tokens": captions["tokens"],
                    "truncated": captions["truncated"],
                    **scores,
                },
                schema=CAPTION_SCORES,
            )
        )
    return pa.concat_tables(tables)


def similarities_with(images: np.ndarray, texts: Sequence[str], scorer: Scorer) -> tuple[np.ndarray, TextEmbeddings]:
    """How well texts fit images, as ``caption_scores`` has it of captions that are in the store.

    Args:
        images: [n, d], of ``joint_embeddings``.
        texts: n texts.
        scorer: the scorer of those embeddings.

    Returns:
        float32 [n], and the texts' embeddings.
    """
    embedded = embed_captions(texts, scorer)
    whole, parts = _as_stored(embedded.whole.vectors), _as_stored(embedded.parts)
    found = caption_similarity(images, whole, embedded.whole.truncated, parts, embedded.of, scorer.long_captions)
    return found.similarity, embedded.whole


def _as_stored(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float16).astype(np.float32)


def caption_preference(
    scores: pa.Table,
    pairs: Sequence[Preferring],
    logit_scale: float,
    imported: Mapping[tuple[str, str], tuple[pa.Array, pa.Array]],
) -> pa.Table:
    """``CAPTION_PREFERENCE``: which of two captions of an image a scorer prefers, as CLIP classifies.

    Args:
        scores: ``CAPTION_SCORES``.
        pairs: pairs of caption sources; n rows for each.
        logit_scale: what a cosine is multiplied by before the softmax.
        imported: float32 [n] probabilities of the two captions of those pairs whose probabilities were not computed.
    """
    tables = []
    for pair in pairs:
        first, second = _source(scores, pair.source_a), _source(scores, pair.source_b)
        if (pair.source_a, pair.source_b) in imported:
            probability_a, probability_b = imported[pair.source_a, pair.source_b]
        else:
            # The softmax of two logits is the logistic function of their difference.
            difference = pc.subtract(first["similarity"], second["similarity"])
            odds = pc.exp(pc.multiply(pc.cast(difference, pa.float64()), -logit_scale))
            probability = pc.divide(1.0, pc.add(1.0, odds))
            probability_a = pc.cast(probability, pa.float32())
            probability_b = pc.cast(pc.subtract(1.0, probability), pa.float32())
        tables.append(
            pa.table(
                {
                    "uid": first["uid"],
                    "source_a": pa.repeat(pair.source_a, first.num_rows),
                    "source_b": pa.repeat(pair.source_b, first.num_rows),
                    "probability_a": probability_a,
                    "probability_b": probability_b,
                    "independent": pa.repeat(pair.independent, first.num_rows),
                    "scorer": pa.repeat(pair.scorer, first.num_rows),
                },
                schema=CAPTION_PREFERENCE,
            )
        )
    return pa.concat_tables(tables) if tables else CAPTION_PREFERENCE.empty_table()


def _embedded_images(
    samples: Iterable[pa.RecordBatch], has_image: np.ndarray, scorer: Scorer, progress: Callable[[int], object]
) -> dict[str, pa.Array]:
    """The columns embedding and fault of the images."""
    is_read = np.zeros(len(has_image), bool)

    def read() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in samples:
            rows = slice(first, first + batch.num_rows)
            is_read[rows] = has_image[rows] & scorer.readable(batch)
            yield batch.filter(pa.array(is_read[rows]))
            first += batch.num_rows

    vectors = np.empty((int(has_image.sum()), scorer.dimension), np.float32)
    done = 0
    for part in scorer.embed_image_batches(read()):
        vectors[done : done + len(part)] = part
        done += len(part)
        progress(len(part))
    rows = np.flatnonzero(is_read)
    if done != len(rows):
        msg = f"the scorer {scorer.model} gave {done} vectors for {len(rows)} images"
        raise RuntimeError(msg)
    is_there = np.isfinite(vectors[:done]).all(axis=1)
    faults = np.full(len(has_image), None, dtype=object)
    faults[has_image & ~is_read] = f"{scorer.asset} has nothing of it: its fault says why"
    faults[rows[~is_there]] = f"{scorer.model} gives no vector for it"
    return {
        "embedding": from_matrix(vectors[:done][is_there], rows[is_there], len(has_image), pa.float16()),
        FAULT.name: pa.array(faults, pa.string()),
    }


def _table(uids: pa.ChunkedArray, item: str, **columns: pa.Array) -> pa.Table:
    """Rows of ``JOINT_EMBEDDINGS``, null if nothing is said."""
    empty = {name: pa.nulls(len(uids), JOINT_EMBEDDINGS.field(name).type) for name in JOINT_EMBEDDINGS.names[2:]}
    return pa.table({"uid": uids, "item": pa.repeat(item, len(uids)), **empty, **columns}, schema=JOINT_EMBEDDINGS)


def _parts(vectors: np.ndarray, of: np.ndarray, total: int) -> pa.Array:
    """A column that ``parts_of`` reads, of ``total`` rows, null if there are none; ``of`` is the row of each."""
    each = from_matrix(vectors, np.arange(len(of)), len(of), pa.float16())
    counts = np.bincount(of, minlength=total)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), each, mask=pa.array(counts == 0))


def _items(embeddings: pa.Table, item: str) -> pa.Table:
    return embeddings.filter(pc.equal(embeddings["item"], item))


def _source(scores: pa.Table, source: str) -> pa.Table:
    return scores.filter(pc.equal(scores["caption_source"], source))
