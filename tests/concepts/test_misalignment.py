"""Misaligned samples, by the paper's definition."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.misalignment import misalignment_degree

SETS = st.sets(st.integers(0, 4), max_size=3)


def lists(values: list[list[int] | None]) -> pa.ListArray:
    return pa.array(values, pa.list_(pa.int32()))


@settings(deadline=None)
@given(st.lists(st.tuples(SETS, SETS), max_size=12))
def test_a_sample_is_misaligned_if_both_show_something_and_nothing_in_common(
    samples: list[tuple[set[int], set[int]]],
) -> None:
    found = misalignment_degree(*(lists([sorted(sample[side]) for sample in samples]) for side in (0, 1)))
    rows = [row for row, (text, image) in enumerate(samples) if text and image and not text & image]
    assert found.rows.tolist() == rows
    assert (found.misaligned, found.samples) == (len(rows), len(samples))
    assert found.comparable == sum(bool(text and image) for text, image in samples)
    assert found.share * len(samples) == pytest.approx(len(rows))
    assert found.share_of_comparable * found.comparable == pytest.approx(len(rows))


def test_the_share_is_of_all_samples() -> None:
    found = misalignment_degree(lists([[0], [1], [], None]), lists([[1], [0, 1], [2], [2]]))
    assert found.rows.tolist() == [0]
    assert (found.share, found.share_of_comparable) == (0.25, 0.5)


def test_no_samples() -> None:
    found = misalignment_degree(lists([]), lists([]))
    assert (found.share, found.share_of_comparable) == (0.0, 0.0)
