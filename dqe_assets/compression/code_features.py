"""Vectors of samples made of the codes of their tokens, for k-means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Features: TypeAlias = Literal["histogram", "numbers", "embedding"]
"""What of a sample's codes is clustered: see ``CodeFeatures``."""

_BLOCK_CELLS = 1 << 23
_WHITENED = 256
"""Dimensions that the published script keeps of the code numbers."""


@dataclass(frozen=True)
class CodeFeatures:
    """Turns codes into vectors of unit length; what depends on the data is found by ``fitted_to``.

    - ``histogram``: how often each code stands in the image, square root. Inner products are then Bhattacharyya
      coefficients. Renumbered codes give the same clusters, and so does an image whose parts stand elsewhere.
    - ``numbers``: the code numbers themselves, as in the published script of TL;DR (Wang et al. 2023, arXiv
      2305.20087), centred, and whitened to their first 256 principal components where there are as many tokens. The
      numbers are names, not quantities: renumbered codes give other clusters. For comparison only.
    - ``embedding``: the mean of the codes' vectors.

    Attributes:
        features: which of these.
        n_codes: size of the codebook.
        names: the place of each code in a histogram [n_codes]; for ``histogram`` alone.
        codebook: the codes' vectors, float32 [n_codes, d]; for ``embedding`` alone.
        mean: of the code numbers, float32 [tokens]; for ``numbers`` alone.
        directions: their whitened principal directions, float32 [tokens, 256]; None if they are not whitened.
    """

    features: Features
    n_codes: int
    names: NDArray[np.integer] | None = None
    codebook: NDArray[np.float32] | None = None
    mean: NDArray[np.float32] | None = None
    directions: NDArray[np.float32] | None = None

    @classmethod
    def fitted_to(
        cls,
        codes: NDArray[np.integer],
        features: Features,
        n_codes: int,
        codebook: NDArray[np.float32] | None,
        names: NDArray[np.integer],
    ) -> CodeFeatures:
        """The features, fitted to codes, integers [n, tokens].

        Args:
            codes: which they are fitted to.
            features: which.
            n_codes: size of the codebook.
            codebook: the codes' vectors [n_codes, d], for ``embedding``.
            names: the places of the codes in a histogram [n_codes], for ``histogram``.

        Raises:
            ValueError: ``embedding`` without a codebook, or with one of another size; features of another name.
        """
        if features not in {"histogram", "numbers", "embedding"}:
            raise ValueError(f"features={features!r}: expected histogram, numbers or embedding")
        if features == "histogram":
            return cls(features, n_codes, names)
        if features == "embedding":
            if codebook is None or len(codebook) != n_codes:
                found = "none" if codebook is None else f"one of {len(codebook)}"
                raise ValueError(f"features='embedding' needs the codebook [{n_codes}, d]; found {found}")
            return cls(features, n_codes, codebook=np.asarray(codebook, np.float32))
        mean = (codes.sum(axis=0, dtype=np.float64) / max(len(codes), 1)).astype(np.float32)
        return cls(features, n_codes, mean=mean, directions=_whitened(codes - mean))

    def width(self, tokens: int) -> int:
        """Length of the vectors of samples of so many tokens."""
        if self.features == "histogram":
            return self.n_codes
        if self.codebook is not None:
            return self.codebook.shape[1]
        return tokens if self.directions is None else self.directions.shape[1]

    def vectors(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Vectors of unit length, float32 [n, width], of codes [n, tokens]."""
        found = np.empty((len(codes), self.width(codes.shape[1])), np.float32)
        rows = max(1, _BLOCK_CELLS // max(1, self.n_codes))
        for start in range(0, len(codes), rows):
            found[start : start + rows] = self._of_block(codes[start : start + rows])
        return found

    def _of_block(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        if self.codebook is not None:
            found = self._counts(codes) @ self.codebook
        elif self.mean is None:
            found = np.sqrt(self._counts(codes if self.names is None else self.names[codes]))
        else:
            found = np.asarray(codes - self.mean, np.float32)
            found = found if self.directions is None else found @ self.directions
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    def _counts(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        places = np.arange(len(codes), dtype=np.int64)[:, None] * self.n_codes + codes.astype(np.int64)
        counts = np.bincount(places.ravel(), minlength=len(codes) * self.n_codes)
        return counts.reshape(len(codes), self.n_codes).astype(np.float32)


def _whitened(centred: NDArray[np.float32]) -> NDArray[np.float32] | None:
    rows, tokens = centred.shape
    if min(rows - 1, tokens) < _WHITENED:
        return None
    values, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred / rows)
    values, directions = values[: -_WHITENED - 1 : -1], directions[:, : -_WHITENED - 1 : -1]
    # A token with the same code in every image has no variance, and no part in the distances.
    scale = np.where(values > 1e-9 * values[0], 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    return (directions * scale).astype(np.float32)
