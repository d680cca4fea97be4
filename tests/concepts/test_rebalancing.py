"""Acting on the tail: what the weights, the order and the candidates must keep to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.counting import tally
from dqe_assets.concepts.rebalancing import concept_distribution, curriculum, rare_concept_retrieval, rebalanced_weights
from dqe_assets.concepts.tail import gini

CONCEPTS = 6
samples_of = st.lists(st.sets(st.integers(0, CONCEPTS - 1), max_size=3).map(sorted), min_size=1, max_size=40)
caps = st.floats(1, 20) | st.just(float("inf"))


def lists(values: list[list[int]]) -> pa.ListArray:
    return pa.array(values, pa.list_(pa.int32()))


@settings(deadline=None)
@given(samples_of, st.floats(0, 1), caps)
@example([[0], [0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1, 2]], 1.0, 1.0)
def test_draws_are_moved_and_never_added_and_none_exceeds_the_cap(
    samples: list[list[int]], temperature: float, cap: float
) -> None:
    hits = lists(samples)
    counts = tally(hits, CONCEPTS)
    weights = rebalanced_weights(hits, counts, temperature, cap)
    assert weights.sum() == pytest.approx(len(samples))
    assert (weights > 0).all()
    assert (weights <= cap * (1 + 1e-12)).all()
    rarest = np.array([min((counts[c] for c in sample), default=0) for sample in samples])
    known = rarest > 0
    assert weights[~known].tolist() == [1.0] * int((~known).sum())
    order = np.argsort(rarest[known], kind="stable")
    assert (np.diff(weights[known][order]) <= 1e-9).all()
    free = known & (weights < cap * (1 - 1e-9))
    shape = weights[free] * rarest[free] ** temperature
    assert shape == pytest.approx(np.full(free.sum(), shape.mean() if free.any() else 0))


@settings(deadline=None)
@given(samples_of, caps)
def test_at_temperature_0_every_sample_is_drawn_once(samples: list[list[int]], cap: float) -> None:
    hits = lists(samples)
    weights = rebalanced_weights(hits, tally(hits, CONCEPTS), 0, cap)
    assert weights == pytest.approx(np.ones(len(samples)))
    assert concept_distribution(hits, weights, CONCEPTS) == pytest.approx(tally(hits, CONCEPTS))


@settings(deadline=None)
@given(st.lists(st.integers(0, CONCEPTS - 1), min_size=1, max_size=40))
def test_at_temperature_1_concepts_that_share_no_samples_are_drawn_equally(concepts: list[int]) -> None:
    hits = lists([[concept] for concept in concepts])
    weights = rebalanced_weights(hits, tally(hits, CONCEPTS), 1, float("inf"))
    drawn = concept_distribution(hits, weights, CONCEPTS)
    assert drawn[drawn > 0] == pytest.approx(np.full(len(set(concepts)), len(concepts) / len(set(concepts))))


def test_the_tail_flattens_with_the_temperature_and_less_under_a_cap() -> None:
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, 51)
    values = [sorted(set(random.choice(50, 2, p=shares / shares.sum()))) for _ in range(5000)]
    hits = lists(values)
    counts = tally(hits, 50)

    def unevenness(temperature: float, cap: float) -> float:
        return gini(concept_distribution(hits, rebalanced_weights(hits, counts, temperature, cap), 50))

    free = [unevenness(temperature, float("inf")) for temperature in (0, 0.25, 0.5, 0.75, 1)]
    assert free == sorted(free, reverse=True)
    assert free[0] == pytest.approx(gini(counts))
    assert free[-1] < 0.75 * free[0]
    assert free[-1] < unevenness(1, 2) < free[0]


@pytest.mark.parametrize(
    ("temperature", "cap", "message"), [(1.1, 5, "temperature"), (0.5, 0.9, "cap"), (0.5, np.nan, "cap")]
)
def test_what_is_out_of_range_is_refused(temperature: float, cap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebalanced_weights(lists([[0]]), [1], temperature, cap)


def test_the_curriculum_goes_from_frequent_aligned_and_short_to_rare_misaligned_and_long() -> None:
    hits = lists([[0, 2], [0], [1], []])
    counts = [1000, 100, 1]
    nan = np.nan
    assert curriculum(hits, counts, [nan] * 4, [nan] * 4).rank.tolist() == [4, 1, 2, 3]
    assert curriculum(hits, counts, [0.1, 0.4, 0.3, 0.2], [9, 9, 9, 9], (0, 1, 0)).rank.tolist() == [4, 1, 2, 3]
    assert curriculum(hits, counts, [0.1, 0.4, 0.3, 0.2], [3, 4, 1, nan], (0, 0, 1)).rank.tolist() == [2, 4, 1, 3]
    assert curriculum(hits, counts, [0.1] * 4, [5] * 4, (0, 1, 1)).rank.tolist() == [1, 2, 3, 4]
    hardest = curriculum(hits, counts, [0.1, 0.4, 0.3, 0.2], [30, 4, 10, 12])
    assert hardest.rank.tolist() == [4, 1, 2, 3]
    assert hardest.difficulty[0] > 0.8


@settings(deadline=None)
@given(samples_of)
def test_every_sample_has_a_place_of_its_own(samples: list[list[int]]) -> None:
    hits = lists(samples)
    order = curriculum(hits, tally(hits, CONCEPTS), np.full(len(samples), 0.2), np.arange(len(samples)))
    assert sorted(order.rank.tolist()) == list(range(1, len(samples) + 1))
    assert (np.diff(order.difficulty[np.argsort(order.rank)]) >= 0).all()
    assert ((order.difficulty >= 0) & (order.difficulty <= 1)).all()


@pytest.mark.parametrize("weights", [(1, 1), (0, 0, 0), (1, -1, 1), (np.inf, 1, 1)])
def test_weights_that_say_nothing_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="the weights are"):
        curriculum(lists([[0]]), [1], [0.1], [5], weights)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1, 2, 1 hits, alignments and lengths"):
        curriculum(lists([[0]]), [1], [0.1, 0.2], [5])


def test_candidates_for_rare_concepts_keep_their_order() -> None:
    pool = {("newt", "image"): [("a", 0.9), ("b", 0.8)], ("newt", "original"): [("c", 0.7)], ("owl", "image"): []}

    def search(concept: str, item: str, k: int) -> list[tuple[str, float]]:
        return pool.get((concept, item), [])[:k]

    table = rare_concept_retrieval(["newt", "owl"], ["image", "original"], search, 2)
    assert table.select(["concept", "item", "place", "uid"]).to_pylist() == [
        {"concept": "newt", "item": "image", "place": 1, "uid": "a"},
        {"concept": "newt", "item": "image", "place": 2, "uid": "b"},
        {"concept": "newt", "item": "original", "place": 1, "uid": "c"},
    ]
    assert table["score"].to_pylist() == pytest.approx([0.9, 0.8, 0.7])
    without = rare_concept_retrieval(["newt"], ["image"], search, 1, {"a"})
    assert without.select(["place", "uid"]).to_pylist() == [{"place": 1, "uid": "b"}]
    assert not len(rare_concept_retrieval(["newt"], ["image"], search, 2, {"a", "b"}))
    assert rare_concept_retrieval([], ["image"], search, 2).schema == table.schema
