"""Tags above a threshold, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.concepts.tagging import tag_images
from dqe_resources.taggers.protocol import Tagger

if TYPE_CHECKING:
    from collections.abc import Sequence


class Stored(Tagger):
    """Gives what the samples say themselves."""

    kind: ClassVar[str] = "stored"
    asset: ClassVar[str] = "image_features"
    model: ClassVar[str] = "stored"
    backbones: ClassVar[frozenset[str]] = frozenset()

    def probabilities(self, samples: pa.Table, concepts: Sequence[str]) -> np.ndarray:
        values = np.array(samples["p"].to_pylist(), np.float32).reshape(samples.num_rows, -1)
        return values[:, : len(concepts)]


PROBABILITIES = [[0.1, 0.7, 0.71], [0.9, 0.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_concepts_above_the_threshold_with_their_probabilities(batch_size: int) -> None:
    tags = tag_images(Stored(), pa.table({"p": PROBABILITIES}), ["a", "b", "c"], 0.705, batch_size)
    assert tags["concepts"].to_pylist() == [[2], [0, 2], []]
    assert tags["concepts"].type == pa.list_(pa.int32())
    assert tags["probabilities"].type == pa.list_(pa.float32())
    assert [p for row in tags["probabilities"].to_pylist() for p in row] == pytest.approx([0.71, 0.9, 1.0])


def test_no_images_have_no_tags() -> None:
    tags = tag_images(Stored(), pa.table({"p": pa.array([], pa.list_(pa.float32()))}), ["a"])
    assert tags.num_rows == 0
    assert tags["concepts"].type == pa.list_(pa.int32())


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="stored gives 'b' the probability"):
        tag_images(Stored(), pa.table({"p": [[0.0, 0.0], [0.0, wrong]]}), ["a", "b"])
