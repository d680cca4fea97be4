from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.core.uids import packed_uids
from dqe_assets.dedup import buckets
from dqe_assets.dedup.buckets import Search
from dqe_assets.dedup.clusters import cluster_table, clusters_of_pairs
from dqe_assets.dedup.components import components as labels
from dqe_assets.dedup.exact import exact_pairs
from dqe_assets.dedup.pairs import find_pairs
from dqe_assets.dedup.perceptual import perceptual_pairs
from dqe_assets.dedup.semantic import cluster_duplicates, semantic_pairs
from dqe_assets.dedup.settings import DuplicateRules
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS, DUPLICATE_PAIRS

if TYPE_CHECKING:
    from pathlib import Path


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
    equal, near, distances = found = perceptual_pairs(hashes, distance)
    wanted = [
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    ]
    assert components(found.all, len(hashes)) == components(wanted, len(hashes))
    assert all(hashes[i] == hashes[j] for i, j in equal)
    assert [(int(hashes[i]) ^ int(hashes[j])).bit_count() for i, j in near] == distances.tolist()


def test_a_pair_across_blocks_is_found_and_flat_images_take_no_part() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 1500).astype(np.uint64)
    hashes[1400] = hashes[3] ^ np.uint64(0b10110)
    assert perceptual_pairs(hashes, 4).all.tolist() == [[3, 1400]]
    contrast = np.full(1500, 0.2)
    contrast[3] = 0.001
    assert perceptual_pairs(hashes, 4, contrast=contrast, min_contrast=0.02).all.tolist() == []


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
    pairs, search = semantic_pairs(vectors, threshold)
    assert components(pairs.all, len(vectors)) == components(wanted, len(vectors))
    assert (pairs.measure >= threshold).all()
    assert search == Search(), "all pairs were tried"


def planted(rows: int, copies: int, seed: int = 0, topics: int = 40, dimension: int = 64) -> np.ndarray:
    """Vectors around topics, the last of them near copies of others with cosines of 0.86 to 0.99, float16."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(topics, dimension))
    vectors = centres[rng.integers(0, topics, rows)] + rng.normal(size=(rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = rng.normal(size=(copies, dimension))
    noise *= np.tan(np.arccos(rng.uniform(0.86, 0.99, copies)))[:, None] / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors[-copies:] = vectors[rng.integers(0, rows - copies, copies)] + noise
    return vectors.astype(np.float16)


@pytest.mark.parametrize("topics", [1, 40])
def test_in_buckets_nearly_every_pair_is_found_and_no_other(topics: int) -> None:
    vectors = planted(6_000, 600, topics=topics)
    every, _ = semantic_pairs(vectors, 0.85)
    found, search = semantic_pairs(vectors, 0.85, exact_below=1_000)
    assert search.buckets > 100
    assert 0.999 <= search.sampled_recall <= 1
    assert search.probes < search.buckets
    wanted = set(map(tuple, every.all.tolist()))
    got = set(map(tuple, found.all.tolist()))
    assert got <= wanted
    assert len(got) >= 0.999 * len(wanted)


@pytest.mark.parametrize("new", [0, 1, 300, 1_999, 2_000])
def test_few_new_rows_find_the_pairs_that_many_find(new: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).normal(size=(2_000, 24)).astype(np.float32)
    vectors[:400] = vectors[1_500:1_900] + 0.3 * vectors[400:800]
    unit = buckets.UnitRows(vectors, np.arange(2_000))
    margin = buckets.border_margin(0.8)
    near = buckets.near_buckets(unit, buckets.trained(unit, 20), 6, margin)
    found = []
    for few in (0, 10_000):
        monkeypatch.setattr(buckets, "_FEW_IN_BUCKET", few)
        found.append(buckets.pairs_in_buckets(unit, 0.8, near, 20, new))
    assert np.array_equal(*found)
    assert (len(found[0]) > 0) == (new > 0)


def test_duplicates_do_not_depend_on_the_order_of_the_rows_and_a_mapped_file_will_do(tmp_path: Path) -> None:
    vectors = planted(3_000, 300)
    vectors[7] = 0
    vectors[8] = np.nan
    vectors[2_000:2_003] = vectors[0]
    order = np.random.default_rng(3).permutation(len(vectors))
    np.save(tmp_path / "vectors.npy", vectors)
    for exact_below in (10_000, 500):
        first = cluster_duplicates(vectors, 0.85, exact_below=exact_below)
        mapped = cluster_duplicates(np.load(tmp_path / "vectors.npy", mmap_mode="r"), 0.85, exact_below=exact_below)
        other = cluster_duplicates(vectors[order], 0.85, exact_below=exact_below)
        assert np.array_equal(mapped.representative, first.representative)
        assert components(other.pairs, len(vectors)) == {
            frozenset(np.argsort(order)[list(group)].tolist()) for group in components(first.pairs, len(vectors))
        }
        assert set(first.kept) | set(first.dropped) == set(range(len(vectors)))
        assert {7, 8} <= set(first.kept)
        assert first.representative[[2_000, 2_001, 2_002]].tolist() == [0, 0, 0]
        groups = components(first.pairs, len(vectors))
        assert len(first.dropped) == sum(len(group) - 1 for group in groups)
        for group in groups:
            assert {int(first.representative[row]) for row in group} == {min(group)}
        assert np.isnan(first.similarity[[7, 8]]).all()
        assert (np.delete(first.similarity[first.kept], [7, 8]) >= 1 - 1e-12).all()


@pytest.mark.parametrize("threshold", [-1.0, 1.01, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be a cosine"):
        semantic_pairs(np.ones((2, 3)), threshold)


def samples() -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Two equal files, a smaller copy that looks alike, a stranger, and its picture in another file, by uid."""
    table = pa.table(
        {
            "uid": [f"{n:032x}" for n in (1, 2, 3, 4, 5)],
            "sha256": ["v", "z", "y", "x", "x"],
            "pixel_digest": ["r", "r", "q", "p", "p"],
            "perceptual_hash": pa.array([2**20 - 1, 2**40 - 1, 6, 7, 7], pa.uint64()),
            "contrast": pa.array([0.2, 0.2, 0.2, 0.2, 0.2], pa.float32()),
        }
    )
    features = np.array([[-0.6, 0.8], [0.0, 1.0], [0.96, 0.28], [1.0, 0.0], [1.0, 0.0]], np.float16)
    return table, features, np.array([50, np.nan, 400, 100.0, 100])


def test_clusters_say_what_is_kept_and_why() -> None:
    table, features, preference = samples()
    pairs = find_pairs(table, features, DuplicateRules(max_distance=2, min_cosine=0.99))
    assert pairs.schema.equals(DUPLICATE_PAIRS)
    assert [
        (row["kind"], int(row["uid_a"], 16), int(row["uid_b"], 16), row["similarity"]) for row in pairs.to_pylist()
    ] == [
        ("exact", 1, 2, 1),
        ("exact", 4, 5, 1),
        ("perceptual", 3, 4, 1 - 1 / 64),
        ("perceptual", 4, 5, 1),
        ("semantic", 4, 5, 1),
    ]
    found = clusters_of_pairs(pairs, table["uid"], features, preference)
    assert found.schema.equals(DUPLICATE_CLUSTERS)
    rows = {(row["kind"], int(row["uid"], 16)): row for row in found.to_pylist()}
    exact = {key[1]: int(row["cluster"], 16) for key, row in rows.items() if key[0] == "exact"}
    assert exact == {5: 4, 4: 4, 2: 1, 1: 1}, "the same bytes, or the same pixels"
    assert int(rows["exact", 2]["representative"], 16) == 1, "what has no preference comes last"
    assert {key for key in rows if key[0] == "semantic"} == {("semantic", 5), ("semantic", 4)}
    assert {key for key in rows if key[0] == "any"} == {("any", uid) for uid in (5, 4, 3, 2, 1)}
    assert int(rows["exact", 5]["representative"], 16) == 4, "of equal ones that with the smallest uid"
    assert int(rows["any", 5]["representative"], 16) == 3, "the most preferred"
    assert rows["any", 5]["similarity"] == pytest.approx(0.96, abs=1e-3)
    assert [rows["any", uid]["is_representative"] for uid in (5, 4, 3)] == [False, False, True]
    assert [rows["any", uid]["size"] for uid in (5, 4, 3, 2, 1)] == [3, 3, 3, 2, 2]


def test_the_order_of_the_rows_changes_nothing() -> None:
    table, features, preference = samples()
    pairs = find_pairs(table, features, DuplicateRules(max_distance=2, min_cosine=0.9))
    first = clusters_of_pairs(pairs, table["uid"], features, preference)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        turned = clusters_of_pairs(pairs, table["uid"].take(pa.array(order)), features[order], preference[order])
        assert turned.equals(first)
    with pytest.raises(ValueError, match="ascending order of uid"):
        find_pairs(table.take([1, 0]), features[[1, 0]], DuplicateRules())
    with pytest.raises(ValueError, match="not there"):
        clusters_of_pairs(pairs, table["uid"][1:], features[1:], preference[1:])


@pytest.mark.parametrize("count", [0, 1])
def test_no_samples_give_no_pairs_and_no_clusters(count: int) -> None:
    table, features, preference = (one[:count] for one in samples())
    pairs = find_pairs(table, features, DuplicateRules())
    assert pairs.num_rows == 0
    assert clusters_of_pairs(pairs, table["uid"], features, preference).num_rows == 0


def test_many_copies_of_one_image_need_no_pair_for_each_two() -> None:
    copies = 20_000
    pairs = exact_pairs(pa.array(["same"] * copies))
    assert len(pairs) == copies - 1
    uids = pa.array([f"{n:032x}" for n in range(copies)])
    table = cluster_table(
        "exact", packed_uids(uids), labels(pairs, copies), np.ones(copies), lambda linked: np.ones(len(linked))
    )
    assert table.num_rows == copies
    assert set(table["size"].to_pylist()) == {copies}
