"""What is found a shard at a time is what is found at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.dedup.pairs import find_pairs
from dqe_assets.dedup.settings import DuplicateRules

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = DuplicateRules(max_distance=3, min_cosine=0.95)
Shard = list[tuple[int, int, int, int]]
"""Of each sample a uid, and which file, hash and vector of a few it has."""

few = st.integers(0, 5)
rows = st.tuples(st.integers(0, 40), few, st.integers(0, 12), st.integers(0, 12))
shards = st.lists(rows, max_size=6)
histories = st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), shards)), min_size=1, max_size=6)


def corpus(shards: Mapping[int, Shard]) -> tuple[pa.Table, np.ndarray]:
    """Samples in order of uid, with their shard; a uid is of one shard, and each is there once."""
    found = {uid + 100 * shard: (shard, *values) for shard, rows in shards.items() for uid, *values in rows}
    # Their order has nothing to do with that of their shards.
    order = sorted(found, key=lambda uid: uid * 37 % 401)
    samples = [found[uid] for uid in order]
    rng = np.random.default_rng(0)
    hashes = np.array([sum(1 << bit for bit in range(n)) for n in range(13)], np.uint64)
    vectors = np.cumsum(rng.normal(size=(13, 5)) * 0.25, axis=0).astype(np.float16)
    vectors[12] = 2 * vectors[11]
    table = pa.table(
        {
            "uid": pa.array([f"{uid * 37 % 401:03d}" for uid in order], pa.string()),
            "shard": pa.array([row[0] for row in samples], pa.int64()),
            "sha256": pa.array([str(row[1]) for row in samples], pa.string()),
            "pixel_digest": pa.array([str(row[1] // 2) for row in samples], pa.string()),
            "perceptual_hash": hashes[[row[2] for row in samples]] if samples else pa.array([], pa.uint64()),
            "contrast": pa.array([0.0 if row[2] == 12 else 0.2 for row in samples], pa.float32()),
        }
    )
    return table, vectors[[row[3] for row in samples]] if samples else vectors[:0]


@given(histories)
@settings(max_examples=150)
def test_shards_may_come_change_and_go_in_any_order(history: list[tuple[int, Shard | None]]) -> None:
    shards: dict[int, Shard] = {}
    before: dict[int, Shard] = {}
    earlier: pa.Table | None = None
    for number, content in history:
        shards.pop(number, None)
        if content is not None:
            shards[number] = content
        samples, vectors = corpus(shards)
        unchanged = pa.array([shard for shard in shards if before.get(shard) == shards[shard]], pa.int64())
        earlier = find_pairs(
            samples,
            vectors,
            RULES,
            earlier=earlier,
            unchanged=pc.is_in(samples["shard"], value_set=unchanged).to_numpy(),
        )
        assert earlier.equals(find_pairs(samples, vectors, RULES))
        before = dict(shards)


def test_equal_images_stay_together_when_the_first_of_them_goes() -> None:
    # The first is in shard 0; the others, and what is near to it, are in other shards.
    shards = {0: [(1, 0, 3, 3)], 1: [(2, 0, 3, 3)], 2: [(3, 1, 3, 3), (4, 2, 5, 4)]}
    earlier = find_pairs(*corpus(shards), RULES)
    del shards[0]
    samples, vectors = corpus(shards)
    found = find_pairs(samples, vectors, RULES, earlier=earlier, unchanged=np.ones(len(samples), np.bool_))
    assert found.equals(find_pairs(samples, vectors, RULES))
    assert [tuple(row.values()) for row in found.to_pylist() if row["kind"] == "perceptual"] == [
        ("perceptual", "165", "293", 1),
        ("perceptual", "165", "330", 1 - 2 / 64),
    ]


def test_what_is_known_is_not_looked_for_again() -> None:
    samples, vectors = corpus({0: [(1, 0, 3, 3), (2, 1, 4, 4)], 1: [(3, 2, 5, 5)]})
    known = pc.equal(samples["shard"], 0).to_numpy()
    nothing = find_pairs(samples, vectors, RULES).slice(0, 0)
    found = find_pairs(samples, vectors, RULES, earlier=nothing, unchanged=known)
    shard = dict(zip(samples["uid"].to_pylist(), samples["shard"].to_pylist(), strict=True))
    near = [row for row in found.to_pylist() if row["kind"] != "exact"]
    assert near
    assert all(1 in {shard[row["uid_a"]], shard[row["uid_b"]]} for row in near)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1)])
def test_in_buckets_too_nearly_every_pair_is_found_and_no_other(order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    count = 6_000
    vectors = rng.normal(size=(40, 64))[rng.integers(0, 40, count)] + rng.normal(size=(count, 64))
    noise = rng.normal(size=(900, 64)) * rng.uniform(0.05, 0.6, (900, 1))
    vectors[rng.integers(0, count, 900)] = vectors[rng.integers(0, count, 900)] + noise
    vectors = vectors.astype(np.float16)
    samples = pa.table(
        {
            "uid": [f"{number:05d}" for number in range(count)],
            "sha256": [str(number) for number in range(count)],
            "pixel_digest": [str(number) for number in range(count)],
            "perceptual_hash": rng.integers(0, 2**64, count, np.uint64),
            "contrast": np.full(count, 0.2, np.float32),
        }
    )
    shard = rng.integers(0, 4, count)
    earlier, there = None, np.zeros(count, np.bool_)
    for number in order:
        now = there | (shard == number)
        earlier = find_pairs(
            samples.filter(pa.array(now)),
            vectors[now],
            RULES.model_copy(update={"min_cosine": 0.85}),
            earlier=earlier,
            unchanged=there[now],
            exact_below=500,
        )
        there = now
    assert earlier is not None
    every = find_pairs(samples, vectors, RULES.model_copy(update={"min_cosine": 0.85}))
    wanted, found = (set(map(tuple, pairs.to_pandas().to_numpy().tolist())) for pairs in (every, earlier))
    assert len(wanted) > 500
    assert found <= wanted
    assert len(found) >= 0.999 * len(wanted)
