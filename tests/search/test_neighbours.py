from __future__ import annotations

import numpy as np
import pytest

from dqe_assets.search.neighbours import nearest


@pytest.mark.parametrize(("rows", "count"), [(0, 3), (1, 3), (3, 8), (50, 4)])
def test_neighbours_are_the_nearest_and_never_the_sample_itself(rows: int, count: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(rows, 6)).astype(np.float32)
    vectors[1:3] = vectors[:1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, distances = nearest(vectors, count)
    wanted = min(count, max(rows - 1, 0))
    assert found.shape == distances.shape == (rows, wanted)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    for row in range(rows):
        assert row not in found[row]
        expected = np.sort(1 - cosines[row])[:wanted]
        np.testing.assert_allclose(distances[row], np.maximum(expected, 0), atol=1e-5)
