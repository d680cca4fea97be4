"""How well the further captions fit of a sample that has several: those after the first in the source's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.arrow import scatter, take_strings, to_matrix
from dqe_assets.score.alignment import TEXTS_AT_ONCE, similarities_with
from dqe_assets.score.tables import FURTHER_CAPTION_SCORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_resources.scorers.protocol import Scorer


def further_captions(raw: pa.Table) -> pa.Table:
    """The captions after the first of each sample, those that are not blank: uid, place and caption.

    Args:
        raw: uid and original_captions of ``raw_samples``.

    Returns:
        A row for each caption, in the order of the samples and of their lists. ``place``, int32, is 2 for the second
        caption. Captions are normalised as the first ones are before they are scored.
    """
    lists = raw["original_captions"].combine_chunks()
    rows = pc.list_parent_indices(lists).to_numpy()
    place = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
    chosen = np.flatnonzero(place > 1)
    texts = normalise_captions(pc.list_flatten(lists).take(pa.array(chosen)))
    found = pa.table(
        {"uid": raw["uid"].take(pa.array(rows[chosen])), "place": pa.array(place[chosen], pa.int32()), "caption": texts}
    )
    return found.filter(pc.fill_null(pc.not_equal(texts, ""), fill_value=False))


def further_caption_scores(
    further: pa.Table, images: pa.Table, scorer: Scorer, progress: Callable[[int], object] = lambda _: None
) -> pa.Table:
    """``FURTHER_CAPTION_SCORES``: the cosine of each of these captions with its image, as ``caption_scores`` has it.

    Few vectors are held at once, beside those of the images.

    Args:
        further: what ``further_captions`` gives.
        images: uid and embedding of the rows of ``joint_embeddings`` that are of images, those that have a vector.
        scorer: the scorer of those embeddings; it is not used where no caption has an image.
        progress: is told how many more captions are scored.
    """
    _, vectors = to_matrix(images["embedding"])
    of = pc.index_in(further["uid"], value_set=images["uid"])
    due = np.flatnonzero(of.is_valid().to_numpy())
    image = of.drop_null().to_numpy()
    similarity, tokens = np.empty(len(due), np.float32), np.empty(len(due), np.int32)
    truncated = np.empty(len(due), bool)
    for start in range(0, len(due), TEXTS_AT_ONCE):
        part = slice(start, start + TEXTS_AT_ONCE)
        texts = take_strings(further["caption"], due[part])
        similarity[part], whole = similarities_with(vectors[image[part]], texts, scorer)
        tokens[part], truncated[part] = whole.tokens, whole.truncated
        progress(len(texts))
    total = len(further)
    return pa.table(
        {
            "uid": further["uid"],
            "place": further["place"],
            "similarity": scatter(similarity, due, total, pa.float32()),
            "tokens": scatter(tokens, due, total, pa.int32()),
            "truncated": scatter(truncated, due, total, pa.bool_()),
        },
        schema=FURTHER_CAPTION_SCORES,
    )
