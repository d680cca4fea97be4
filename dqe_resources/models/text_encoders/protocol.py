"""The interface of a text encoder."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dqe_resources.configurable import Configurable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True, slots=True)
class TextEmbeddings:
    """Embedded texts.

    Attributes:
        vectors: float32 [n, d], unit length.
        tokens: int32 [n], tokens of the whole text, special ones included, before any cut.
        truncated: bool [n], whether the encoder read less than the whole text.
    """

    vectors: np.ndarray
    tokens: np.ndarray
    truncated: np.ndarray


class TextEncoder(Configurable):
    """Embeds texts."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """The most tokens that it reads of a text, special ones included."""

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each whole text, special ones included: int32 [n]."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts, in order; an empty list gives arrays of length 0."""
