"""Scores that were computed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from dqe_resources.keyed_table import KeyedTable
from dqe_resources.scorers.named import SampleScorer

if TYPE_CHECKING:
    from collections.abc import Sequence


class ImportedScore(KeyedTable, SampleScorer):
    """A column of numbers of a Parquet, CSV, TSV or JSON Lines file, by uid, url or image name.

    The file is read once for each shard, in blocks, and only the rows of that shard are held.

    Attributes:
        column: Column of the scores; by default it is called as the scorer is.
    """

    kind: ClassVar[str] = "imported"
    holds: ClassVar[str] = "scores"
    values_type: ClassVar[pa.DataType] = pa.float64()

    column: str | None = None

    @property
    def value_columns(self) -> list[str]:
        """The scores."""
        return [self.column or self.name]

    def signature(self) -> dict[str, Any]:
        """The settings, and the state of the file."""
        return {**super().signature(), "column": self.column or self.name, **self.state()}

    def scores(self, keys: Sequence[str | None]) -> np.ndarray:
        """The score of each of n samples: float32 [n]; NaN if the file has none.

        Args:
            keys: the column ``key`` of the samples.

        Raises:
            TableError: the file cannot be read, or has rows of one key with different scores.
        """
        found, (column,) = self.find(keys), self.value_columns
        return np.array([found[key][1][column] if key in found else np.nan for key in keys], np.float32)
