"""Preferences that were computed elsewhere: a model's probabilities for the two captions of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from dqe_resources.keyed_table import KeyedTable, TableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOLERANCE = 0.01
"""How far the sum of the two may be from 1: half precision leaves 0.001."""


class PreferenceImport(KeyedTable):
    """Probabilities of the captions of two sources, in a Parquet, CSV, TSV or JSON Lines file.

    They replace the configured scorer's for that pair of sources, in all rows: a sample that is not in the file has
    none. Similarities are still the configured scorer's, since a probability compares two captions and says nothing of
    one alone.

    Attributes:
        source_a: First caption source: original, or a captioner's name.
        source_b: Second caption source.
        scorer: The model that gave the probabilities.
        probability_a_column: Column of the probabilities of the first source's captions.
        probability_b_column: Column of the probabilities of the second source's captions; by default 1 minus the first.
        image_backbones: Image backbones inside that model. A captioner that shares one is not judged by it.
    """

    holds: ClassVar[str] = "probabilities"
    values_type: ClassVar[pa.DataType] = pa.float64()

    source_a: str
    source_b: str
    scorer: str
    probability_a_column: str = "probability_a"
    probability_b_column: str | None = None
    image_backbones: tuple[str, ...] = ()

    @property
    def value_columns(self) -> list[str]:
        """The probabilities."""
        return [name for name in (self.probability_a_column, self.probability_b_column) if name]

    @property
    def pair(self) -> frozenset[str]:
        """The two caption sources."""
        return frozenset({self.source_a, self.source_b})

    def signature(self) -> dict[str, Any]:
        """The settings, and the state of the file."""
        return {**self.model_dump(mode="json", exclude={"image_backbones"}), **self.state()}

    def probabilities(self, keys: Sequence[str | None]) -> tuple[pa.Array, pa.Array]:
        """The probability of each caption of n samples, float32 [n] each; null if the file has no row.

        Args:
            keys: the column ``key`` of the samples.

        Raises:
            TableError: the file cannot be read, or two values are not the probabilities of two captions.
        """
        found = self.find(keys)
        values = np.full((2, len(keys)), np.nan, np.float32)
        for place, key in enumerate(keys):
            if key in found:
                row, columns = found[key]
                first = columns[self.probability_a_column]
                second = columns[self.probability_b_column] if self.probability_b_column else 1 - first
                if second is None or not (min(first, second) >= 0 and abs(first + second - 1) <= _TOLERANCE):
                    raise TableError(
                        f"{self.path}, row {row:,}: {first} and {second} are not the probabilities of two captions, "
                        "each must be from 0 to 1, and their sum 1"
                    )
                values[:, place] = first, second
        first_values, second_values = (pa.array(one, pa.float32(), from_pandas=True) for one in values)
        return first_values, second_values
