"""How many samples have a text and an image that show different things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.concepts.counting import both
from dqe_assets.concepts.lists import flat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dqe_assets.concepts.lists import Lists


@dataclass(frozen=True, slots=True)
class Misalignment:
    """Samples whose text and image have no concept in common.

    Attributes:
        samples: all samples.
        comparable: samples that have a concept in the text and one in the image.
        rows: int64, ascending, those of them that have none in common: the misaligned samples.
    """

    samples: int
    comparable: int
    rows: NDArray[np.int64]

    @property
    def misaligned(self) -> int:
        """How many samples are misaligned."""
        return len(self.rows)

    @property
    def share(self) -> float:
        """Misaligned samples as a share of all: the misalignment degree of the paper; 0 if there are no samples."""
        return self.misaligned / self.samples if self.samples else 0.0

    @property
    def share_of_comparable(self) -> float:
        """Misaligned samples as a share of those that could be; 0 if there are none."""
        return self.misaligned / self.comparable if self.comparable else 0.0


def misalignment_degree(text_hits: Lists, image_hits: Lists) -> Misalignment:
    """The samples whose text and image each show a concept, but none in common.

    The paper (arXiv 2404.04125, section 5) gives their number over the size of the data set. Samples without any
    concept in the text, or in the image, are not misaligned: the concept list says nothing about them.

    Args:
        text_hits: list<int32>, concepts that the text of each sample shows.
        image_hits: list<int32>, those that its image shows.

    Raises:
        ValueError: the two differ in length.
    """
    agreed = both(text_hits, image_hits)
    has_text, has_image, has_both = (_has_any(hits) for hits in (text_hits, image_hits, agreed))
    comparable = has_text & has_image
    return Misalignment(len(agreed), int(comparable.sum()), np.flatnonzero(comparable & ~has_both))


def _has_any(hits: Lists) -> NDArray[np.bool_]:
    return np.bincount(flat(hits)[0], minlength=len(hits)) > 0
