"""Hashes joined by bands, against all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.dedup.perceptual import near_hashes


def every_pair(hashes: np.ndarray, distance: int, new: int) -> list[tuple[int, int, int]]:
    """A plain double loop."""
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    i, j = np.nonzero(np.triu(bits <= distance, 1))
    return [(a, b, bits[a, b]) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a < new]


def found(hashes: np.ndarray, distance: int, new: int, banded_from: int) -> list[tuple[int, int, int]]:
    pairs, distances = near_hashes(hashes, distance, new, banded_from=banded_from)
    return sorted((*pair, bits) for pair, bits in zip(pairs.tolist(), distances.tolist(), strict=True))


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8),
    st.integers(0, 8),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 10_000]),
)
@settings(max_examples=15)
def test_every_pair_is_found_once_wherever_the_bits_differ(
    seeds: list[int], distance: int, seed: int, banded_from: int
) -> None:
    rng = np.random.default_rng(seed)
    flips = [sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 12), replace=False)) for _ in range(60)]
    copies = [int(rng.choice(np.array(seeds, np.uint64))) ^ flip for flip in flips]
    # Enough others that the bands are worth while.
    others = rng.integers(0, 2**64, 900, np.uint64)
    hashes = rng.permutation(np.unique(np.concatenate([np.array(copies, np.uint64), others])))
    for new in (7, len(hashes)):
        assert found(hashes, distance, new, banded_from) == every_pair(hashes, distance, new)


@pytest.mark.parametrize("distance", [2, 8, 12])
def test_hashes_that_agree_in_most_bits_are_found_too(distance: int) -> None:
    rng = np.random.default_rng(1)
    hashes = rng.permutation(np.unique(rng.integers(0, 2**14, 250).astype(np.uint64) << np.uint64(20)))
    assert found(hashes, distance, len(hashes), 0) == every_pair(hashes, distance, len(hashes))
