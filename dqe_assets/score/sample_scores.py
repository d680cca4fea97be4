"""Numbers to choose samples by: one for each sample and scorer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.schema import IMAGE, ORIGINAL, has_image
from dqe_assets.score.alignment import caption_scores
from dqe_assets.score.tables import SAMPLE_SCORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_resources.scorers.protocol import LongCaptions

NO_IMAGE, NO_CAPTION = "it has no image", "it has no caption"


def of_captions(raw: pa.Table, embeddings: pa.Table, long_captions: LongCaptions) -> pa.Table:
    """How well the original caption of each sample fits its image: ``SAMPLE_SCORES``, n rows.

    Args:
        raw: uid and status of ``RAW_SAMPLES``, n rows.
        embeddings: ``JOINT_EMBEDDINGS`` of the images and the original captions.
        long_captions: what counts of a caption that is longer than the encoder reads.
    """
    scores = caption_scores(embeddings, [ORIGINAL], long_captions)["similarity"].to_numpy()
    captions = embeddings.filter(pc.equal(embeddings["item"], ORIGINAL))
    reasons = _without_image(raw, embeddings)
    reasons[(reasons == None) & captions["embedding"].is_null().to_numpy()] = NO_CAPTION  # noqa: E711 - of each
    return table_of(raw, scores, reasons)


def of_images(raw: pa.Table, embeddings: pa.Table, scores: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    """What a function of unit vectors [m, d] says of each image: ``SAMPLE_SCORES``, n rows.

    Args:
        raw: uid and status of ``RAW_SAMPLES``, n rows.
        embeddings: ``JOINT_EMBEDDINGS``, of which the images are read.
        scores: gives float32 [m]; it is not called if there is no vector.
    """
    rows, vectors = to_matrix(embeddings.filter(pc.equal(embeddings["item"], IMAGE))["embedding"])
    found = np.full(raw.num_rows, np.nan, np.float32)
    if len(rows):
        found[rows] = scores(vectors)
    return table_of(raw, found, _without_image(raw, embeddings))


def table_of(raw: pa.Table, scores: np.ndarray, reasons: np.ndarray) -> pa.Table:
    """``SAMPLE_SCORES`` of the samples of ``raw``, of scores float32 [n] with NaN where there is a reason [n]."""
    return pa.table(
        {
            "uid": raw["uid"],
            "score": pa.array(scores, pa.float32(), from_pandas=True),
            "reason": pa.array(reasons, pa.string()),
        },
        schema=SAMPLE_SCORES,
    )


def _without_image(raw: pa.Table, embeddings: pa.Table) -> np.ndarray:
    """Why there is no vector of an image, [n] of objects; None where there is one."""
    images = embeddings.filter(pc.equal(embeddings["item"], IMAGE))
    missing = pc.if_else(has_image(raw), images["fault"], NO_IMAGE)
    reasons: np.ndarray = missing.to_numpy(zero_copy_only=False).astype(object)
    return reasons
