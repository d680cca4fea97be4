"""What a scorer is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from dqe_resources.component import Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa

    from dqe_resources.text_encoders.protocol import TextEmbeddings


class Scorer(Component):
    """Puts images and texts into one space, where the cosine says how well a caption fits an image, as CLIP does."""

    requires: ClassVar[tuple[str, ...]]
    """The assets that ``embed_images`` reads: ``raw_samples`` for a model that sees images, or ``image_features``."""

    @property
    @abstractmethod
    def model(self) -> str:
        """Name and version of the model."""

    @property
    @abstractmethod
    def backbones(self) -> frozenset[str]:
        """The image backbones inside, as in ``Captioner.backbones``."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """What a cosine is multiplied by before a softmax over captions (CLIP: 100)."""

    @abstractmethod
    def embed_images(self, samples: pa.Table) -> np.ndarray:
        """Unit vectors, float32 [n, d], of samples that have an image.

        Args:
            samples: the columns of the assets in ``requires``, n rows.
        """

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts, in order."""
