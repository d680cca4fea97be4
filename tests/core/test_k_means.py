"""k-means: the same for vectors of 16 and 32 bits, and what few vectors give."""

import numpy as np

from dqe_assets.core.k_means import default_clusters, k_means, nearest_centroids, training_rows


def test_it_finds_planted_clusters_in_16_bits_too() -> None:
    random = np.random.default_rng(0)
    kinds = np.eye(5, 12) * 9
    vectors = (kinds[random.integers(5, size=400)] + random.normal(size=(400, 12)) * 0.1).astype(np.float16)
    found = k_means(vectors.astype(np.float32), 5, tries=5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[np.argsort(found.argmax(axis=1))], kinds, atol=0.1)
    np.testing.assert_allclose(k_means(vectors, 5, tries=5), found, atol=1e-3)


def test_few_vectors_are_their_own_centroids() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = k_means(vectors, 100)
    assert found.shape == (3, 4)
    labels, distances = nearest_centroids(vectors, found)
    assert sorted(labels.tolist()) == [0, 1, 2]
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_a_centroid_is_the_nearest() -> None:
    random = np.random.default_rng(1)
    vectors, centroids = random.normal(size=(50, 6)).astype(np.float32), random.normal(size=(9, 6)).astype(np.float32)
    plain = ((vectors[:, None] - centroids) ** 2).sum(axis=2)
    labels, distances = nearest_centroids(vectors, centroids)
    np.testing.assert_array_equal(labels, plain.argmin(axis=1))
    np.testing.assert_allclose(distances, plain.min(axis=1), rtol=1e-4)


def test_defaults_are_bounded() -> None:
    assert [default_clusters(samples) for samples in (0, 99, 250, 10**9)] == [1, 1, 2, 3_000]
    assert training_rows(10, 512) == 2_560
    assert training_rows(3_000, 8_192) * 8_192 * 4 <= 1 << 30
    assert training_rows(100_000, 8_192) == 100_000
