"""The long tail, against definitions written out."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.tail import correlate, gini, rank_frequency, rarest, share_under

if TYPE_CHECKING:
    from pathlib import Path


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    n = len(counts)
    difference = sum(abs(first - second) for first, second in product(counts, counts)) / n**2
    assert gini(counts) == pytest.approx(difference / (2 * sum(counts) / n), abs=1e-12)


def test_gini_at_its_ends() -> None:
    assert gini([5, 5, 5]) == 0
    assert gini([0] * 99 + [7]) == pytest.approx(0.99)
    assert math.isnan(gini([0, 0]))
    assert math.isnan(gini([]))


def test_ranks_shares_and_the_rarest() -> None:
    counts = [5, 100, 0, 99, 5000, 5]
    ranks, frequencies = rank_frequency(counts)
    assert ranks.tolist() == [1, 2, 3, 4, 5, 6]
    assert frequencies.tolist() == [5000, 100, 99, 5, 5, 0]
    assert share_under(counts) == pytest.approx({10: 3 / 6, 100: 4 / 6, 1000: 5 / 6})
    assert math.isnan(share_under([])[10])
    assert rarest(list("fedcba"), counts, 3) == [("d", 0), ("a", 5), ("f", 5)]
    assert len(rarest(list("fedcba"), counts, 290)) == 6


def test_correlation_of_two_data_sets() -> None:
    first = np.array([0, 1, 10, 100, 1000])
    same = correlate(first, first * 7)
    assert (same.spearman, same.concepts) == (pytest.approx(1), 5)
    assert same.pearson == pytest.approx(
        np.corrcoef(np.log([1, 1, 10, 100, 1000]), np.log([1, 7, 70, 700, 7000]))[0, 1]
    )
    assert correlate(first, first[::-1]).spearman == pytest.approx(-1)
    assert math.isnan(correlate([1, 1], [1, 2]).pearson)
    with pytest.raises(ValueError, match="5 counts and 2"):
        correlate(first, [1, 2])


def test_the_papers_data_sets_are_long_tailed_and_alike(sbu: Path) -> None:
    table = pq.read_table(sbu.parent / "concept_frequency" / "search_counts.parquet")
    table = table.filter(pc.equal(table["search"], "lemmatized"))
    cc3m, cc12m = (
        table.filter(pc.equal(table["pretraining"], name)).sort_by(
            [("downstream", "ascending"), ("concept", "ascending")]
        )
        for name in ("cc3m", "cc12m")
    )
    assert cc3m["concept"].equals(cc12m["concept"])
    found = correlate(cc3m["count"], cc12m["count"])
    assert found.pearson > 0.8
    assert gini(cc3m["count"]) > 0.8
