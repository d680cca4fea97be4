"""The interface of a scorer."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from dqe_resources.configurable import Configurable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dqe_resources.models.text_encoders.protocol import TextEmbeddings

LongCaptions = Literal["truncate", "sentences_mean", "sentences_max"]
"""What is done with a caption that is longer than the text encoder reads."""


class Scorer(Configurable):
    """Puts images and texts into one space, where the cosine says how well a caption fits an image, as CLIP does.

    Attributes:
        long_captions: How a caption is scored that is longer than the encoder reads: its beginning (``truncate``), or
            all its sentences one by one, of which the mean (``sentences_mean``) or the best (``sentences_max``) counts.
    """

    asset: ClassVar[str]
    """The asset that images are read of: ``raw_samples`` for a model that sees them, or ``image_features``."""
    columns: ClassVar[tuple[str, ...]]
    """The columns that it reads of it."""

    long_captions: LongCaptions = "truncate"

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

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The most tokens that it reads of a text, special ones included."""

    @abstractmethod
    def embed_image_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
        """Unit vectors of samples that have an image, in order: float32 [m, d], of any m each time.

        Batches are taken as they are needed, and few of them are held at once. An image that cannot be read has NaN.

        Args:
            batches: the columns ``columns``, without nulls.
        """

    def embed_images(self, samples: pa.Table) -> np.ndarray:
        """Unit vectors, float32 [n, d]; NaN for a sample without an image, and for an image that cannot be read.

        Args:
            samples: the columns ``columns``, n rows; null if there is no image.
        """
        there = self.readable(samples)
        vectors = np.full((samples.num_rows, self.dimension), np.nan, np.float32)
        parts = self.embed_image_batches(samples.filter(pa.array(there)).combine_chunks().to_batches())
        vectors[there] = np.concatenate([np.empty((0, self.dimension), np.float32), *parts])
        return vectors

    def readable(self, samples: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Which samples have all that it reads: bool [n]."""
        valid = [samples[name].is_valid().to_numpy(zero_copy_only=False) for name in self.columns]
        there: np.ndarray = np.logical_and.reduce(valid)
        return there

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each whole text, special ones included: int32 [n]."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts, in order."""
