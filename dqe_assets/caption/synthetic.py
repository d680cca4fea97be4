"""Captions asked of a captioner: one row for each sample, with or without a caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.arrow import scatter
from dqe_assets.caption.straightforward import straightforward_captions
from dqe_assets.schemas import SYNTHETIC_CAPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_resources.captioners.protocol import Captioner

NO_IMAGE = "no_image"


def synthetic_captions(
    samples: pa.Table,
    has_image: np.ndarray,
    captioner: Captioner,
    track: Callable[[Iterable[Any], int], Iterator[Any]] = lambda items, _: iter(items),
) -> pa.Table:
    """One row of ``SYNTHETIC_CAPTIONS`` for each sample.

    Args:
        samples: the columns that the captioner requires, and uid.
        has_image: bool [n], whether there is an image to caption.
        captioner: the captioner.
        track: reports progress over the captions.

    Raises:
        RuntimeError: the captioner gave another number of captions than it was asked for.
    """
    rows, total = np.flatnonzero(has_image), samples.num_rows
    captions = list(track(captioner.caption(samples.take(pa.array(rows))), len(rows)))
    if len(captions) != len(rows):
        msg = f"captioner {captioner.name} gave {len(captions)} captions for {len(rows)} images"
        raise RuntimeError(msg)
    text = scatter([caption.text for caption in captions], rows, total, pa.string())
    reasons = scatter([caption.finish_reason for caption in captions], rows, total, pa.string())
    return pa.table(
        {
            "uid": samples["uid"],
            "text": text,
            "caption": straightforward_captions(text),
            "finish_reason": pc.fill_null(reasons, NO_IMAGE),
            "model": pa.repeat(captioner.model, total),
            "error": scatter([caption.error for caption in captions], rows, total, pa.string()),
        },
        schema=SYNTHETIC_CAPTIONS,
    )
