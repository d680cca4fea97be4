"""The settings of duplicates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dqe_resources.configurable import Strict

Representative = Literal["largest", "best_caption", "earliest"]
"""Which sample of a cluster is kept."""


class PairRules(Strict):
    """When two images are a pair.

    Attributes:
        max_distance: perceptual, in bits of the 64 of the hash.
        min_contrast: standard deviation of the luminance, 0 to 1, below which a hash says nothing.
        min_cosine: semantic, of the classifier's pooled features.
    """

    max_distance: Annotated[int, Field(ge=0, le=16)] = 8
    min_contrast: Annotated[float, Field(ge=0, le=1)] = 0.02
    min_cosine: Annotated[float, Field(gt=0, le=1)] = 0.85


class DuplicateRules(PairRules):
    """When images, and captions, are duplicates.

    Attributes:
        max_distance: Perceptual: the most bits of the 64-bit hash in which two images may differ.
        min_contrast: Perceptual: standard deviation of the luminance, 0 to 1, below which a hash says nothing.
        min_cosine: Semantic: the least cosine of the classifier's pooled features.
        min_jaccard: Captions: the least Jaccard similarity of their sets of four-letter runs.
        representative: Which sample of a cluster is kept: the one with the largest image, the one whose best caption
            fits best, or the earliest by shard and row. Of equal ones it is the one with the smallest uid.
    """

    min_jaccard: Annotated[float, Field(gt=0, le=1)] = 0.8
    representative: Representative = "largest"

    @property
    def pairs(self) -> PairRules:
        """What decides the pairs of images alone."""
        return PairRules(**{name: getattr(self, name) for name in PairRules.model_fields})
