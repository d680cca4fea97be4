"""Scores from embeddings and concepts, each against a plain reference."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from dqe_assets.filtering.scores import (
    balanced_probabilities,
    mix,
    normsim,
    normsim_d,
    s_clip_loss,
    soft_cap,
    tail_share,
    tail_threshold,
)


def units(random: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Random unit vectors."""
    found = random.normal(size=(rows, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def plain_s_clip_loss(images: np.ndarray, texts: np.ndarray, temperature: float) -> np.ndarray:
    """The definition, for one batch."""
    similar = images.astype(np.float64) @ texts.T.astype(np.float64)
    both = logsumexp(similar / temperature, axis=1) + logsumexp(similar / temperature, axis=0)
    return np.diag(similar) - temperature / 2 * both


@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1e-4, 1e-3, 0.01, 0.07, 1.0]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_s_clip_loss_of_one_batch_is_its_definition(rows: int, width: int, temperature: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    images, texts = units(random, rows, width), units(random, rows, width)
    found = s_clip_loss(images, texts, batch=64, temperature=temperature, repeats=2, seed=seed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain_s_clip_loss(images, texts, temperature), atol=2e-6)


def test_s_clip_loss_of_rows_far_below_the_others() -> None:
    images, texts = np.eye(2, dtype=np.float32)[[0] * 700 + [1]], np.eye(2, dtype=np.float32)[[0] * 700 + [1]]
    texts[-1] = [0, -1]
    found = s_clip_loss(images, texts, temperature=0.005, repeats=1)
    np.testing.assert_allclose(found, plain_s_clip_loss(images, texts, 0.005), atol=2e-6)


def test_s_clip_loss_takes_the_mean_over_random_batches() -> None:
    random = np.random.default_rng(0)
    images, texts = units(random, 10, 4), units(random, 10, 4)
    again, order = np.random.default_rng(5), np.zeros((10, 3))
    for repeat in range(3):
        rows = again.permutation(10)
        for batch in np.array_split(rows, 3):
            order[batch, repeat] = plain_s_clip_loss(images[batch], texts[batch], 0.02)
    found = s_clip_loss(images, texts, batch=4, temperature=0.02, repeats=3, seed=5)
    np.testing.assert_allclose(found, order.mean(axis=1), atol=2e-6)


def test_s_clip_loss_finds_captions_that_fit_everything() -> None:
    random = np.random.default_rng(1)
    images = units(random, 300, 32)
    generic = images.mean(axis=0) / np.linalg.norm(images.mean(axis=0))
    texts = images + 1.2 * units(random, 300, 32)
    texts[::2] = generic + 0.05 * units(random, 150, 32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    found = s_clip_loss(images, texts.astype(np.float32))
    assert (found[1::2, None] > found[::2]).mean() > 0.99


@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_normsim_is_its_definition(rows: int, targets: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    images, wanted = units(random, rows, width), units(random, targets, width)
    similar = images.astype(np.float64) @ wanted.T.astype(np.float64)
    np.testing.assert_allclose(normsim(images, wanted, 2), (similar**2).sum(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normsim(images, wanted, math.inf), similar.max(axis=1), atol=1e-6)


@given(st.integers(2, 30), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_mix_is_the_weighted_sum_of_z_scores(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    columns = {"a": random.normal(7, 3, rows), "b": random.normal(size=rows).astype(np.float32), "c": np.ones(rows)}
    wide = {name: values.astype(np.float64) for name, values in columns.items()}
    z = {name: (values - values.mean()) / (values.std() or 1) for name, values in wide.items()}
    found = mix(columns, {"a": 0.5, "b": -2, "c": 3})
    np.testing.assert_allclose(found, 0.5 * z["a"] - 2 * z["b"], atol=1e-5)


def test_mix_of_what_is_missing() -> None:
    found = mix({"a": np.array([1.0, np.nan, 3.0]), "b": np.array([0.1, 0.1, 0.1])}, {"a": 1, "b": 1})
    np.testing.assert_allclose(found, [-1, np.nan, 1])
    assert np.isnan(mix({"a": np.array([np.nan])}, {"a": 1})).all()


@given(st.integers(1, 30), st.integers(0, 100), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_soft_cap_is_its_definition(rows: int, n: int, draw: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=rows)
    found = soft_cap(scores, n, 0.15, draw, seed)
    assert found.dtype == np.int64
    random, left, plain = np.random.default_rng(seed), scores.copy(), []
    while len(plain) < n:
        count = min(draw, rows, n - len(plain))
        chosen = np.argsort(-(left + random.gumbel(size=rows)))[:count]
        plain += sorted(chosen)
        left[chosen] -= 0.15
    assert found.tolist() == plain


def test_soft_cap_draws_in_proportion_and_evens_out() -> None:
    scores = np.log(np.array([8.0, 4.0, 2.0, 1.0, 0.0]), where=np.arange(5) < 4, out=np.full(5, -np.inf))
    once = np.bincount([soft_cap(scores, 1, 0, 1, seed)[0] for seed in range(3_000)], minlength=5) / 3_000
    np.testing.assert_allclose(once, np.array([8, 4, 2, 1, 0]) / 15, atol=0.03)
    many = np.bincount(soft_cap(scores, 40_000, 0.15, 2, 0), minlength=5)
    assert many[:4].min() > 9_900
    assert many[4] == 0


@given(st.lists(st.lists(st.integers(0, 7), max_size=5), max_size=20), st.floats(0, 30), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_balanced_probabilities_are_their_definition(hits: list[list[int]], t: float, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 40, 8)
    plain = [1 - math.prod(1 - min(1, t / counts[concept]) for concept in set(one)) for one in hits]
    np.testing.assert_allclose(balanced_probabilities(hits, counts, t), plain, atol=1e-12)
    lists = pa.array(hits, pa.list_(pa.int32()))
    np.testing.assert_allclose(balanced_probabilities(lists, counts, t), plain, atol=1e-12)


def test_a_concept_that_nobody_counted_is_kept_whole() -> None:
    assert balanced_probabilities([[0], [1], []], np.array([0, 4]), 2).tolist() == [1.0, 0.5, 0.0]
    assert balanced_probabilities([[0], [1]], np.array([0, 4]), 0).tolist() == [0.0, 0.0]


EYE = np.eye(2, dtype=np.float32)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: s_clip_loss(EYE, EYE[:1]), "one text an image"),
        (lambda: s_clip_loss(EYE * np.nan, EYE), "images: row 0 is not finite"),
        (lambda: s_clip_loss(EYE, EYE, batch=0), "batch=0"),
        (lambda: normsim(EYE, EYE[:0]), r"targets \[0, 2\]"),
        (lambda: normsim(EYE, EYE, 3), "p=3"),
        (lambda: mix({"a": EYE[0]}, {"b": 1}), "no column for the weights b"),
        (lambda: mix({"a": EYE[0], "b": np.ones(3)}, {"a": 1, "b": 1}), r"a: \[2\], b: \[3\]"),
        (lambda: soft_cap(np.array([np.nan]), 1), "no row has a score"),
        (lambda: soft_cap(np.array([0, np.inf]), 1), "row 1: the score is infinite"),
        (lambda: balanced_probabilities([[0], [2]], np.ones(2, int), 1), "row 1: concept 2"),
    ],
)
def test_wrong_arguments_are_named(call: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_the_threshold_of_a_tail_is_the_count_with_the_nearest_share(
    counts: list[int], share: float, seed: int
) -> None:
    found = tail_threshold(np.random.default_rng(seed).permutation(counts), share)
    shares = {t: tail_share(np.array(counts), t) for t in sorted({*counts} - {0})}
    assert found == (min(shares, key=lambda t: abs(shares[t] - share)) if shares else 1)


def test_the_tail_of_counts_as_of_words_has_metaclips_share() -> None:
    counts = (1e9 / np.arange(1, 500_001)).astype(np.int64)
    assert tail_share(counts, tail_threshold(counts)) == pytest.approx(0.056, abs=1e-4)
    assert tail_share(np.array([4, 1]), np.array([3, 1])) == 0.2


def test_s_clip_loss_of_some_rows_is_that_of_these_alone() -> None:
    random = np.random.default_rng(3)
    images, texts = units(random, 30, 5), units(random, 30, 5)
    rows = random.permutation(30)[:11]
    images[[row for row in range(30) if row not in rows]] = np.nan
    found = s_clip_loss(images, texts, batch=4, repeats=3, seed=1, rows=rows)
    expected = s_clip_loss(images[rows], texts[rows], batch=4, repeats=3, seed=1)
    np.testing.assert_allclose(found[rows], expected, atol=1e-6)
    assert np.isnan(found).sum() == 19


def plain_normsim_d(images: np.ndarray, scores: np.ndarray, start: float, share: float, steps: int) -> np.ndarray:
    """The definition, a row at a time."""
    left = sorted(range(len(images)), key=lambda row: -scores[row])[: max(1, round(start * len(images)))]
    first, last = len(left), max(1, round(share * len(images)))
    for step in range(1, steps + 1):
        moment = sum(np.outer(images[row], images[row]) for row in left)
        left = sorted(left, key=lambda row: -(images[row] @ moment @ images[row]))
        left = left[: round(first + (last - first) * step / steps)]
    moment = sum(np.outer(images[row], images[row]) for row in left) / len(left)
    return np.array([image @ moment @ image for image in images])


# Of two rows alone, both have the same.
@given(st.integers(8, 30), st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_normsim_d_is_its_definition(rows: int, width: int, steps: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    images, scores = units(random, rows, width), random.normal(size=rows)
    found = normsim_d(images, scores, start=0.9, share=0.5, steps=steps)
    np.testing.assert_allclose(found, plain_normsim_d(images.astype(np.float64), scores, 0.9, 0.5, steps), atol=1e-5)


def test_normsim_d_leaves_out_rows_without_a_score() -> None:
    random = np.random.default_rng(0)
    images, scores = units(random, 20, 4), random.normal(size=20)
    with_hole = np.vstack([images, np.full((1, 4), np.nan, np.float32)])
    found = normsim_d(with_hole, np.append(scores, np.nan))
    np.testing.assert_allclose(found[:20], normsim_d(images, scores), atol=1e-6)
    assert np.isnan(found[20])
