from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.dedup.clusters import DuplicateRules, cluster, find_duplicates
from dqe_assets.dedup.exact import exact_pairs
from dqe_assets.dedup.perceptual import perceptual_pairs
from dqe_assets.dedup.semantic import semantic_pairs
from dqe_assets.schemas import DUPLICATE_CLUSTERS


def components(pairs: np.ndarray | list[tuple[int, int]], rows: int) -> set[frozenset[int]]:
    """Connected components of two or more, by a plain union-find."""
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for left, right in pairs:
        parent[root(int(left))] = root(int(right))
    groups: dict[int, set[int]] = {}
    for row in range(rows):
        groups.setdefault(root(row), set()).add(row)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcd")), max_size=30))
def test_exact_pairs_connect_equal_digests_and_no_others(digests: list[str | None]) -> None:
    pairs = exact_pairs(pa.array(digests, pa.string()))
    equal = [
        (i, j) for i, j in combinations(range(len(digests)), 2) if digests[i] is not None and digests[i] == digests[j]
    ]
    assert components(pairs, len(digests)) == components(equal, len(digests))
    assert len(pairs) == sum(len(group) - 1 for group in components(equal, len(digests)))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=25), st.integers(0, 12), st.data())
@settings(max_examples=60)
def test_perceptual_pairs_find_every_pair_within_the_distance(
    seeds: list[int], distance: int, data: st.DataObject
) -> None:
    near = [seed ^ (1 << data.draw(st.integers(0, 63))) for seed in seeds]
    hashes = np.array(seeds + near, np.uint64)
    pairs, distances = perceptual_pairs(hashes, distance)
    wanted = [
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    ]
    assert components(pairs, len(hashes)) == components(wanted, len(hashes))
    assert [(int(hashes[i]) ^ int(hashes[j])).bit_count() for i, j in pairs] == distances.tolist()


def test_a_pair_across_blocks_is_found_and_flat_images_take_no_part() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 1500).astype(np.uint64)
    hashes[1400] = hashes[3] ^ np.uint64(0b10110)
    assert perceptual_pairs(hashes, 4)[0].tolist() == [[3, 1400]]
    contrast = np.full(1500, 0.2)
    contrast[3] = 0.001
    assert perceptual_pairs(hashes, 4, contrast=contrast, min_contrast=0.02)[0].tolist() == []


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.99))
@settings(max_examples=30)
def test_semantic_pairs_find_every_pair_above_the_cosine(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(8, 6))
    vectors = np.concatenate([base, base[:4] + rng.normal(size=(4, 6)) * 0.3, base[:2], np.zeros((1, 6))])
    unit = vectors[:-1] / np.linalg.norm(vectors[:-1], axis=1, keepdims=True)
    cosines = unit @ unit.T
    wanted = [(i, j) for i, j in combinations(range(len(unit)), 2) if cosines[i, j] >= threshold]
    if np.abs(cosines[np.triu_indices(len(unit), 1)] - threshold).min() < 1e-6:
        return  # which side of the threshold rounding puts it is no matter
    pairs, similar = semantic_pairs(vectors, threshold)
    assert components(pairs, len(vectors)) == components(wanted, len(vectors))
    assert (similar >= threshold).all()


@pytest.mark.parametrize("threshold", [-1.0, 1.01, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be a cosine"):
        semantic_pairs(np.ones((2, 3)), threshold)


def samples(order: list[int] | None = None) -> pa.Table:
    """Two equal files, a smaller copy that looks alike, a stranger, and two broken rows with equal files."""
    features = [[1.0, 0.0], [1.0, 0.0], [0.96, 0.28], [0.0, 1.0], None, None]
    table = pa.table(
        {
            "uid": [f"{n:032x}" for n in (5, 4, 3, 2, 1, 0)],
            "sha256": ["x", "x", "y", "z", "w", "w"],
            "width": pa.array([100, 100, 400, 50, None, None], pa.int32()),
            "height": pa.array([100, 100, 100, 50, None, None], pa.int32()),
            "perceptual_hash": pa.array([7, 7, 6, 2**40 - 1, None, None], pa.uint64()),
            "contrast": pa.array([0.2, 0.2, 0.2, 0.2, None, None], pa.float32()),
            "embedding": pa.array(features, pa.list_(pa.float16())),
        }
    )
    return table.take(order) if order else table


def test_clusters_say_what_is_kept_and_why() -> None:
    found = find_duplicates(samples(), DuplicateRules(max_distance=2, min_cosine=0.99))
    assert found.schema.equals(DUPLICATE_CLUSTERS)
    rows = {(row["kind"], int(row["uid"], 16)): row for row in found.to_pylist()}
    assert {key for key in rows if key[0] == "exact"} == {("exact", 5), ("exact", 4)}
    assert {key for key in rows if key[0] == "semantic"} == {("semantic", 5), ("semantic", 4)}
    assert {key for key in rows if key[0] == "any"} == {("any", 5), ("any", 4), ("any", 3)}
    assert int(rows["exact", 5]["representative"], 16) == 4, "of equal sizes that with the smallest uid"
    assert int(rows["any", 5]["representative"], 16) == 3, "the largest image"
    assert rows["any", 5]["similarity"] == pytest.approx(0.96, abs=1e-3)
    assert [rows["any", uid]["is_representative"] for uid in (5, 4, 3)] == [False, False, True]
    assert {row["size"] for row in rows.values() if row["kind"] == "any"} == {3}


def test_the_order_of_the_rows_changes_nothing() -> None:
    rules = DuplicateRules(max_distance=2, min_cosine=0.9)
    first = find_duplicates(samples(), rules)
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 3, 5]):
        assert find_duplicates(samples(order), rules).equals(first)


def test_no_samples_give_no_clusters() -> None:
    assert find_duplicates(samples().slice(0, 0), DuplicateRules()).num_rows == 0
    assert find_duplicates(samples().slice(4), DuplicateRules()).num_rows == 0


def test_many_copies_of_one_image_need_no_pair_for_each_two() -> None:
    copies = 20_000
    pairs = exact_pairs(pa.array(["same"] * copies))
    assert len(pairs) == copies - 1
    uids = pa.array([f"{n:032x}" for n in range(copies)])
    table = cluster(uids, {"exact": pairs}, np.ones(copies, np.int64), np.ones((copies, 2), np.float32))
    assert table.num_rows == 2 * copies
    assert set(table["size"].to_pylist()) == {copies}
