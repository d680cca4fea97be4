"""Clusters of codes, and what is kept of each."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dqe_assets.compression.selection import (
    CodeClusters,
    canonical_codes,
    cluster_codes,
    kept_of_some,
    select_from_clusters,
)

N_CODES = 1_024


def scenes(rows: int = 6_000, kinds: int = 30, tokens: int = 196, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of made images, of which a tenth of the tokens is of the scene's own 40 codes; and the scenes."""
    random = np.random.default_rng(seed)
    scene = random.integers(kinds, size=rows)
    own = random.integers(N_CODES, size=(kinds, 40))
    codes = random.integers(N_CODES, size=(rows, tokens))
    of_scene = random.random((rows, tokens)) < 0.1
    codes[of_scene] = own[np.repeat(scene[:, None], tokens, 1)[of_scene], random.integers(40, size=of_scene.sum())]
    return codes, scene


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, other))


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Codes and scenes."""
    return scenes()


def test_histograms_find_planted_scenes_whatever_the_codes_are_called(planted: tuple[np.ndarray, np.ndarray]) -> None:
    codes, scene = planted
    renamed = np.random.default_rng(1).permutation(N_CODES)
    found = cluster_codes(codes, N_CODES, 30)
    assert found.dtype == np.int32
    assert agreement(found, scene) >= 0.8
    np.testing.assert_array_equal(cluster_codes(renamed[codes], N_CODES, 30), found)


@given(
    arrays(np.int32, st.tuples(st.integers(1, 30), st.integers(1, 6)), elements=st.integers(0, 9)), st.integers(0, 5)
)
@settings(max_examples=60, deadline=None)
def test_canonical_codes_are_told_apart_by_how_they_occur_alone(codes: np.ndarray, seed: int) -> None:
    random = np.random.default_rng(seed)
    found = canonical_codes(codes, 10)
    assert sorted(found.tolist()) == list(range(10))
    assert (np.diff(np.bincount(codes.ravel(), minlength=10)[np.argsort(found)]) >= 0).all()
    # What the codes are called, and where the rows and tokens stand, changes nothing but among codes that occur alike.
    renamed = random.permutation(10)
    shuffled = random.permuted(renamed[codes][random.permutation(len(codes))], axis=1)
    one, other = np.sort(found[codes], axis=1), np.sort(canonical_codes(shuffled, 10)[shuffled], axis=1)
    assert np.bincount(one.ravel()).tolist() == np.bincount(other.ravel()).tolist()


def test_numbers_are_names(planted: tuple[np.ndarray, np.ndarray]) -> None:
    codes, scene = planted
    renamed = np.random.default_rng(1).permutation(N_CODES)
    found = cluster_codes(codes, N_CODES, 30, "numbers")
    assert agreement(found, scene) < 0.2
    assert agreement(found, cluster_codes(renamed[codes], N_CODES, 30, "numbers")) < 0.1


def test_numbers_are_whitened_where_there_are_enough_tokens() -> None:
    codes, _ = scenes(600, 5, 300)
    assert CodeClusters.fitted_to(codes, N_CODES, 5, "numbers").centroids.shape == (5, 256)
    assert CodeClusters.fitted_to(codes[:, :49], N_CODES, 5, "numbers").centroids.shape == (5, 49)


def test_embeddings_of_codes_that_mean_the_same_are_one_cluster() -> None:
    codebook = np.repeat(np.eye(4, dtype=np.float32), 8, axis=0)
    random = np.random.default_rng(0)
    meaning = random.integers(4, size=400)
    codes = meaning[:, None] * 8 + random.integers(8, size=(400, 49))
    found = cluster_codes(codes, 32, 4, "embedding", codebook=codebook)
    assert agreement(found, meaning) == 1


@pytest.mark.parametrize("features", ["histogram", "numbers"])
def test_the_order_of_the_rows_changes_nothing(features: str) -> None:
    codes, _ = scenes(900, 6, 49)
    order = np.random.default_rng(2).permutation(len(codes))
    found = cluster_codes(codes, N_CODES, 6, features, seed=3)
    again = cluster_codes(codes[order], N_CODES, 6, features, seed=3)
    assert agreement(found[order], again) == 1
    np.testing.assert_array_equal(found, cluster_codes(codes, N_CODES, 6, features, seed=3))
    np.testing.assert_array_equal(found, cluster_codes(codes.astype(np.uint16), N_CODES, 6, features, seed=3))


def test_labels_have_no_gaps_and_the_largest_cluster_is_first() -> None:
    codes, _ = scenes(500, 4, 49)
    sizes = np.bincount(cluster_codes(codes, N_CODES, 40))
    assert sizes.min() > 0
    assert (np.diff(sizes) <= 0).all()
    assert len(cluster_codes(codes[:3], N_CODES, 40)) == 3
    assert cluster_codes(codes[:0], N_CODES, 40).shape == (0,)
    assert not cluster_codes(np.zeros((7, 9), np.int64), N_CODES, 3).any()


@pytest.mark.parametrize("features", ["histogram", "numbers", "embedding"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_few_samples_have_clusters_too(rows: int, dtype: type, features: str) -> None:
    codes = np.random.default_rng(rows).integers(16, size=(rows, 5)).astype(dtype)
    book = np.random.default_rng(9).normal(size=(16, 3)).astype(np.float32)
    for clusters in (1, 5, 100):
        found = cluster_codes(codes, 16, clusters, features, codebook=book)
        assert (found.dtype, found.shape) == (np.int32, (rows,))
        assert np.unique(found).tolist() == list(range(len(np.unique(found))))
        assert len(np.unique(found)) <= clusters


@pytest.mark.parametrize(
    ("codes", "features", "said"),
    [
        (np.array([[0, 4]]), "histogram", "row 0, token 1: code 4; expected 0 to 3"),
        (np.array([[1, 0], [-1, 0]]), "histogram", "row 1, token 0: code -1"),
        (np.array([[0.5, 1]]), "histogram", r"float64 \[1, 2\]; expected integers"),
        (np.array([1, 2]), "histogram", r"int64 \[2\]"),
        (np.array([[0, 1]]), "words", "expected histogram, numbers or embedding"),
        (np.array([[0, 1]]), "embedding", "needs the codebook"),
    ],
)
def test_wrong_codes_are_named(codes: np.ndarray, features: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cluster_codes(codes, 4, 2, features)


LABELS = arrays(np.int32, st.integers(1, 200), elements=st.integers(0, 12))


@given(LABELS, st.sampled_from([0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1.0]), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_shares_are_exact_and_no_cluster_is_lost(labels: np.ndarray, share: float, seed: int) -> None:
    scores = np.random.default_rng(seed).random(len(labels))
    sizes = np.bincount(labels)
    for rule in ("uniform", "nearest", "farthest", "best_score"):
        kept = np.bincount(labels[select_from_clusters(labels, share, rule, scores, seed)], minlength=len(sizes))
        assert (kept[sizes > 0] >= 1).all()
        wanted = np.array([round(size * share, 9) for size in sizes])
        assert (kept <= np.maximum(np.ceil(wanted), sizes > 0)).all()
        assert (kept >= np.floor(wanted)).all()
        least = np.maximum(np.floor(wanted), sizes > 0).sum()
        assert kept.sum() == max(least, round(round(len(labels) * share, 9)))
    nth = np.bincount(labels[select_from_clusters(labels, share, "every_nth")], minlength=len(sizes))
    assert nth.tolist() == [math.ceil(round(size * share, 9)) for size in sizes]


@given(LABELS, st.sampled_from(["uniform", "nearest", "farthest", "best_score"]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_with_keys_the_order_of_the_rows_changes_nothing(labels: np.ndarray, rule: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    keys = random.permutation(len(labels)).astype(np.uint64)
    scores = random.integers(3, size=len(labels)).astype(np.float32)
    order = random.permutation(len(labels))
    kept = select_from_clusters(labels, 0.25, rule, scores, seed, keys=keys)
    again = select_from_clusters(labels[order], 0.25, rule, scores[order], seed, keys=keys[order])
    np.testing.assert_array_equal(kept[order], again)


@given(LABELS, st.sampled_from([0.05, 0.25, 0.5]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_some_clusters_are_kept_of_as_of_all(labels: np.ndarray, share: float, seed: int) -> None:
    labels = np.unique(labels, return_inverse=True)[1]
    keys = np.random.default_rng(seed).integers(2**64, size=len(labels), dtype=np.uint64)
    kept = select_from_clusters(labels, share, "uniform", seed=seed, keys=keys)
    some = labels % 2 == 0
    found = kept_of_some(labels[some], keys[some], np.bincount(labels), share, seed)
    np.testing.assert_array_equal(found, kept[some])


def test_every_nth_is_as_published() -> None:
    labels = np.tile([0, 1], 11)
    kept = select_from_clusters(labels, 0.2, "every_nth")
    assert np.flatnonzero(kept).tolist() == [0, 1, 10, 11, 20, 21]


def test_rules_by_score_keep_the_right_end() -> None:
    labels, scores = np.zeros(8, np.int32), np.array([3, 1, np.nan, 7, 5, 2, 9, np.inf])
    assert np.flatnonzero(select_from_clusters(labels, 0.25, "nearest", scores)).tolist() == [1, 5]
    assert np.flatnonzero(select_from_clusters(labels, 0.25, "best_score", scores)).tolist() == [3, 6]
    assert np.flatnonzero(select_from_clusters(labels, 0.25, "farthest", scores)).tolist() == [3, 6]


def test_uniform_draws_by_the_seed_and_evenly() -> None:
    labels = np.repeat(np.arange(1_000), 10)
    drawn = np.mean([select_from_clusters(labels, 0.3, "uniform", seed=seed) for seed in range(40)], axis=0)
    assert abs(drawn.reshape(1_000, 10).mean(axis=0) - 0.3).max() < 0.02
    assert drawn.std() < 0.1
    assert not np.array_equal(
        select_from_clusters(labels, 0.3, "uniform", seed=1), select_from_clusters(labels, 0.3, "uniform", seed=2)
    )


def test_what_is_in_no_cluster_is_not_kept() -> None:
    kept = select_from_clusters(np.array([-1, 0, 0, -1]), 1.0, "uniform")
    assert kept.tolist() == [False, True, True, False]


@pytest.mark.parametrize("rule", ["uniform", "every_nth", "nearest", "farthest", "best_score"])
def test_the_least_share_keeps_one_of_each_cluster(rule: str) -> None:
    labels = np.array([2, 0, 0, 2, 2, 7], np.int64)
    for share in (1e-12, np.float32(0.01)):
        kept = select_from_clusters(labels, share, rule, np.full(6, np.nan))
        assert sorted(labels[kept].tolist()) == [0, 2, 7]
    assert select_from_clusters(labels, 1, rule, np.arange(6)).all()
    assert select_from_clusters(labels[:0], 0.5, rule, np.empty(0)).shape == (0,)


@pytest.mark.parametrize(
    ("share", "rule", "said"),
    [
        (0, "uniform", "share=0"),
        (-0.1, "uniform", "share=-0.1"),
        (math.nan, "uniform", "share=nan"),
        (1.5, "uniform", "share=1.5"),
        (0.5, "first", "rule='first'"),
    ]
    + [(0.5, rule, "needs a score for each of the 2 samples") for rule in ("nearest", "farthest", "best_score")],
)
def test_wrong_rules_are_named(share: float, rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        select_from_clusters(np.array([0, 1]), share, rule)
