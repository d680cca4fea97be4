"""A codebook: the vectors that image tokens are rounded to. It describes an image by a code for each token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.compression.tables import CODEBOOK
from dqe_assets.core.k_means import k_means, training_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MOST_CODES = 65_536
"""Codes are stored as 16-bit numbers."""

_BLOCK_CELLS = 1 << 23
_TOWER = "tower."


@dataclass(frozen=True)
class Codebook:
    """Codes, and what a token goes through before it is compared with them.

    Attributes:
        vectors: of the codes, float32 [codes, p].
        weight: of the projection, float32 [p, d]; None if tokens are compared as they are.
        bias: of the projection, float32 [p]; None with ``weight``.
        tower: weights of the image tower by name, float32, if it was trained too.
    """

    vectors: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    tower: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def nearest(self, tokens: NDArray[np.floating]) -> NDArray[np.uint16]:
        """The code of each token: that with the least Euclidean distance, the lower one of two.

        Args:
            tokens: [n, tokens, d].

        Returns:
            uint16 [n, tokens].
        """
        flat = np.asarray(tokens, np.float32).reshape(-1, tokens.shape[-1])
        found = np.empty(len(flat), np.uint16)
        half = (self.vectors**2).sum(axis=1) / 2
        rows = max(1, _BLOCK_CELLS // len(self.vectors))
        for start in range(0, len(flat), rows):
            block = flat[start : start + rows]
            if self.weight is not None and self.bias is not None:
                block = block @ self.weight.T + self.bias
            found[start : start + rows] = (block @ self.vectors.T - half).argmax(axis=1)
        return found.reshape(tokens.shape[:-1])

    def to_table(self) -> pa.Table:
        """The arrays as rows of ``CODEBOOK``."""
        arrays = {"vectors": self.vectors, "weight": self.weight, "bias": self.bias}
        arrays |= {_TOWER + name: array for name, array in self.tower.items()}
        rows = [
            {"name": name, "shape": list(array.shape), "values": np.asarray(array, np.float32).ravel()}
            for name, array in arrays.items()
            if array is not None
        ]
        return pa.Table.from_pylist(rows, CODEBOOK)

    @classmethod
    def from_table(cls, table: pa.Table) -> Codebook:
        """The reverse of ``to_table``."""
        columns = (table[column] for column in ("name", "shape", "values"))
        arrays: dict[str, Any] = {
            name.as_py(): np.asarray(values.values, np.float32).reshape(shape.as_py())
            for name, shape, values in zip(*columns, strict=True)
        }
        tower = {name.removeprefix(_TOWER): arrays.pop(name) for name in list(arrays) if name.startswith(_TOWER)}
        return cls(**arrays, tower=tower)


def k_means_codebook(tokens: NDArray[np.floating], codes: int, seed: int) -> Codebook:
    """Codes by k-means over tokens (Euclidean, 20 iterations), without any training: the cheap form.

    At most ``training_rows`` tokens are read.

    Args:
        tokens: [n, tokens, d], such as a memory map.
        codes: how many; fewer tokens than that give as many codes as there are tokens.
        seed: of the draw and of k-means.
    """
    width = tokens.shape[-1]
    flat = tokens.reshape(-1, width)
    most = min(len(flat), training_rows(codes, width))
    rows = np.sort(np.random.default_rng(seed).choice(len(flat), most, replace=False))
    return Codebook(k_means(np.asarray(flat[rows], np.float32), codes, seed=seed))


def health(counts: NDArray[np.integer]) -> Mapping[str, Any]:
    """How well a codebook is used: codes that occur, and the perplexity of all.

    The perplexity, exp of the entropy, is the number of codes that would say as much if all were as frequent: from 1 to
    the number of codes.

    Args:
        counts: how often each code occurs [codes].
    """
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return {
        "codes": len(counts),
        "codes_used": int((counts > 0).sum()),
        "perplexity": float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0,
    }
