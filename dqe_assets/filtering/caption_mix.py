"""Original captions where they fit, and synthetic ones in place of the others: the rule of Nguyen et al. 2023."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.schema import ORIGINAL
from dqe_assets.filtering.filters.top_fraction import at_least
from dqe_assets.filtering.tables import MIXED_CAPTIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def mixed_captions(
    raw: pa.Table, is_in: pa.Array, synthetic: pa.Table, scores: pa.Table, captioner: str, threshold: float
) -> pa.Table:
    """One caption for each sample, or none (Nguyen et al. 2023, arXiv 2307.10350).

    The original where its similarity reaches the threshold; else the synthetic one where its similarity does; else
    none.

    Args:
        raw: uid and caption of ``raw_samples``, [n].
        is_in: bool [n] without nulls, the samples that may have one: those of the pool.
        synthetic: caption of the captioner's ``synthetic_captions``, [n].
        scores: uid, caption_source and similarity of ``caption_scores``, for each source [n] in the same order.
        captioner: whose captions they are.
        threshold: the least similarity, -1 to 1.

    Returns:
        ``MIXED_CAPTIONS`` [n].
    """
    texts = {ORIGINAL: raw["caption"], captioner: synthetic["caption"]}
    similarities = {source: scores.filter(pc.equal(scores["caption_source"], source))["similarity"] for source in texts}
    fits = {source: fitting(texts[source], similarities[source], is_in, threshold) for source in texts}
    chosen = [fits[ORIGINAL], fits[captioner] & ~fits[ORIGINAL]]

    def either(values: dict[str, pa.ChunkedArray | pa.Scalar], empty: pa.DataType) -> pa.Array:
        return pc.case_when(
            pc.make_struct(*map(pa.array, chosen)), values[ORIGINAL], values[captioner], pa.scalar(None, empty)
        )

    return pa.table(
        {
            "uid": raw["uid"],
            "caption": either(texts, pa.string()),
            "caption_source": either({source: pa.scalar(source) for source in texts}, pa.string()),
            "similarity": either(similarities, pa.float32()),
        },
        schema=MIXED_CAPTIONS,
    )


def fitting(
    texts: pa.ChunkedArray, similarities: pa.ChunkedArray, is_in: pa.Array, threshold: float
) -> NDArray[np.bool_]:
    """Which samples of a pool have a caption of a source whose similarity reaches a threshold, [n]."""
    written = pc.fill_null(pc.match_substring_regex(texts, r"\S"), fill_value=False)
    return pc.and_(written, is_in).to_numpy() & at_least(similarities, threshold)
