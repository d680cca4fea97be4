"""How well captions fit images: images and captions in one space, and the cosines between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.arrow import from_matrix, scatter, take_strings, to_matrix
from dqe_assets.schemas import CAPTION_PREFERENCE, CAPTION_SCORES, IMAGE, JOINT_EMBEDDINGS
from dqe_assets.score.sentences import readable_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dqe_assets.score.imported import ImportedPreference
    from dqe_resources.scorers.protocol import LongCaptions, Scorer
    from dqe_resources.text_encoders.protocol import TextEmbeddings

TRUNCATE: LongCaptions = "truncate"


@dataclass(frozen=True, slots=True)
class EmbeddedCaptions:
    """Captions in a scorer's space.

    Attributes:
        whole: each caption, or of one too long what the encoder reads.
        parts: float32 [p, d], the sentences of those too long; none where such captions are only truncated.
        of: int64 [p], the caption that each part is of, ascending.
    """

    whole: TextEmbeddings
    parts: np.ndarray
    of: np.ndarray


@dataclass(frozen=True, slots=True)
class CaptionSimilarity:
    """How well n captions fit their images, float32 [n] each; NaN where there is nothing to compare.

    Attributes:
        similarity: by the configured policy.
        truncated: of a caption too long, that of its beginning; NaN where the caption fits the encoder.
        sentences_mean: of a caption too long, the mean over its sentences; NaN where none were embedded.
        sentences_max: the highest of them.
    """

    similarity: np.ndarray
    truncated: np.ndarray
    sentences_mean: np.ndarray
    sentences_max: np.ndarray


def embed_captions(texts: Sequence[str], scorer: Scorer) -> EmbeddedCaptions:
    """Embed captions, and the sentences of those that are too long where the scorer's policy scores sentences.

    Args:
        texts: n captions, none blank.
        scorer: the scorer; ``long_captions`` is its policy.
    """
    whole = scorer.embed_texts(texts)
    long = np.flatnonzero(whole.truncated) if scorer.long_captions != TRUNCATE else np.empty(0, np.int64)
    if not long.size:
        return EmbeddedCaptions(whole, np.empty((0, scorer.dimension), np.float32), long)
    parts = readable_parts([texts[row] for row in long], scorer.count_tokens, scorer.max_tokens)
    vectors = scorer.embed_texts([part for of_text in parts for part in of_text]).vectors
    return EmbeddedCaptions(whole, vectors, np.repeat(long, [len(of_text) for of_text in parts]))


def caption_similarity(  # noqa: PLR0917
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


def joint_embeddings(  # noqa: PLR0917
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
        captions: n captions of each source; null or blank where there is none.
        scorer: the scorer.
        progress: is told how many images and captions are embedded.
    """
    total = len(uids)
    rows = np.flatnonzero(has_image)
    vectors = np.empty((len(rows), scorer.dimension), np.float32)
    done = 0
    for part in scorer.embed_image_batches(_with_image(samples, has_image)):
        vectors[done : done + len(part)] = part
        done += len(part)
        progress(done)
    tables = [_table(uids, IMAGE, embedding=from_matrix(vectors, rows, total, pa.float16()))]
    for source, texts in captions.items():
        present = np.flatnonzero(
            pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False).to_numpy(zero_copy_only=False)
        )
        embedded = []
        for start in range(0, len(present), TEXTS_AT_ONCE):
            some = present[start : start + TEXTS_AT_ONCE]
            embedded.append((some, embed_captions(take_strings(texts, some), scorer)))
            done += len(some)
            progress(done)
        tables.append(_caption_rows(uids, source, embedded))
    return pa.concat_tables(tables)


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
        if not len(both):
            left, right, vectors, image_vectors = (np.empty(0, np.int64),) * 2 + (np.empty((0, 1), np.float32),) * 2
        chosen = captions.take(pa.array(both))
        parts, of = _parts(chosen["parts"])
        truncated = chosen["truncated"].to_numpy()
        found = caption_similarity(image_vectors[left], vectors[right], truncated, parts, of, long_captions)
        scores = {
            name: pa.array(values, pa.float32(), from_pandas=True)
            for name, values in (
                ("similarity", found.similarity),
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
                    "similarity": scatter(scores.pop("similarity"), both, total, pa.float32()),
                    "tokens": captions["tokens"],
                    "truncated": captions["truncated"],
                    **{name: scatter(values, both, total, pa.float32()) for name, values in scores.items()},
                },
                schema=CAPTION_SCORES,
            )
        )
    return pa.concat_tables(tables)


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
