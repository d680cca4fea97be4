"""The concepts that images show, by a tagger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.concepts.lists import as_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_resources.taggers.protocol import Tagger

THRESHOLD = 0.7
"""The paper's, for RAM++."""


def tag_images(
    tagger: Tagger, samples: pa.Table, concepts: Sequence[str], threshold: float = THRESHOLD, batch_size: int = 256
) -> pa.Table:
    """The concepts that each image shows with a probability above a threshold.

    Args:
        tagger: what says how probable they are.
        samples: the columns of ``tagger.asset``, of n samples that have an image.
        concepts: names.
        threshold: 0 to 1.
        batch_size: samples at a time: bounds the memory, which is a number for each sample and concept.

    Returns:
        concepts (list<int32>, ascending positions in ``concepts``) and probabilities (list<float32>), n rows.

    Raises:
        ValueError: a probability is not finite or out of range; says the tagger and the concept.
    """
    rows, places, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, samples.num_rows, batch_size):
        batch = samples.slice(start, batch_size)
        probabilities = tagger.probabilities(batch, concepts)
        wrong = ~((probabilities >= 0) & (probabilities <= 1 + 1e-6))
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            raise ValueError(f"{tagger.model} gives '{concepts[place]}' the probability {probabilities[row, place]}")
        row, place = np.nonzero(probabilities > threshold)
        rows.append(row + start)
        places.append(place)
        values.append(probabilities[row, place])
    of = np.concatenate(rows)
    return pa.table(
        {
            "concepts": as_lists(of, np.concatenate(places), samples.num_rows),
            "probabilities": as_lists(of, np.concatenate(values), samples.num_rows),
        }
    )
