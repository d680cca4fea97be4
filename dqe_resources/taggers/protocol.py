"""What a tagger is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from dqe_resources.configurable import Configurable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa


class Tagger(Configurable):
    """Says how probable it is that an image shows each of a list of concepts, as RAM++ does in the paper."""

    asset: ClassVar[str]
    """The asset that it reads: ``raw_samples`` for a model that sees images, or ``image_features``."""

    @property
    @abstractmethod
    def model(self) -> str:
        """Name and version of the model."""

    @property
    @abstractmethod
    def backbones(self) -> frozenset[str]:
        """The image backbones inside, as in ``Captioner.backbones``."""

    @abstractmethod
    def probabilities(self, samples: pa.Table, concepts: Sequence[str]) -> np.ndarray:
        """The probability of each concept in each image.

        Args:
            samples: the columns of ``asset``, of n samples that have an image; a batch.
            concepts: names of C concepts.

        Returns:
            float32 [n, C], 0 to 1. A row depends on its image and on the concepts alone.
        """
