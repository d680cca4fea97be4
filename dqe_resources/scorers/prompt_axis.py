"""The scorer that asks which of two texts an image is nearer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.scorers.named import OfEmbedding

if TYPE_CHECKING:
    from typing import Self

    from dqe_resources.scorers.protocol import Scorer

AXES: dict[str, tuple[tuple[str, str], ...]] = {
    "quality": (("Good photo.", "Bad photo."), ("A sharp photo.", "A blurry photo.")),
    "watermark": (
        ("An image with a watermark.", "An image without a watermark."),
        ("A stock photo with text printed across it.", "A clean photo without any text."),
    ),
    "screenshot": (
        ("A screenshot of a computer or a phone.", "A photo taken with a camera."),
        ("A screenshot of a web page with menus and buttons.", "A picture of a real scene."),
    ),
    "nsfw": (
        ("A pornographic image.", "An image that is safe for work."),
        ("A photo of a naked person.", "A photo of a dressed person, an animal, a thing or a place."),
    ),
}
"""Ready pairs of prompts; the score is how much an image is like the first of each."""


class PromptAxis(OfEmbedding):
    """The probability of the first of two texts, by a softmax over the two, as CLIP classifies; the mean over pairs.

    As CLIP-IQA has it (Wang et al. 2022, arXiv 2207.12396), with "Good photo." and "Bad photo.".

    Attributes:
        axis: Ready pairs: ``quality``, ``watermark``, ``screenshot`` or ``nsfw``.
        prompts: Pairs of your own, in place of axis: two texts each, of which the first is what a high score means.
    """

    kind: ClassVar[str] = "prompt_axis"

    axis: Literal["quality", "watermark", "screenshot", "nsfw"] | None = None
    prompts: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.axis is None) == (self.prompts is None):
            raise PydanticCustomError("axis", "give either the key 'axis' or the key 'prompts'")
        for pair in self.prompts or ():
            if not all(text.strip() for text in pair) or pair[0] == pair[1]:
                raise PydanticCustomError("prompts", "prompts: a pair is two texts that differ, and neither is blank")
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of texts."""
        return self.prompts or AXES[self.axis or "quality"]

    def signature(self) -> dict[str, Any]:
        """The texts; the model is that of the embeddings."""
        return {"kind": self.kind, "pairs": [list(pair) for pair in self.pairs]}

    def scores(self, images: np.ndarray, scorer: Scorer) -> np.ndarray:
        """The score of each image: float32 [n], 0 to 1.

        Args:
            images: unit vectors [n, d].
            scorer: the model of these vectors.
        """
        texts = scorer.embed_texts([text for pair in self.pairs for text in pair]).vectors
        cosines = images @ texts.T
        # The softmax of two logits is the logistic function of their difference.
        odds = np.exp(-scorer.logit_scale * (cosines[:, 0::2].astype(np.float64) - cosines[:, 1::2]))
        return (1 / (1 + odds)).mean(axis=1).astype(np.float32)
