"""The nearest pictures of a reference set, beside plain loops over all pairs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.contamination.compare import HASH_BITS, Comparison, Looked
from dqe_assets.contamination.tables import REFERENCE_FEATURES
from dqe_assets.core.arrow import from_matrix
from dqe_assets.dedup.codebook import codes
from dqe_assets.dedup.settings import PairRules

DIMENSION = 200
VALUES = REFERENCE_FEATURES.field("embedding").type.value_type


def features(rng: np.random.Generator, near: np.ndarray, hashes: np.ndarray, count: int) -> pa.Table:
    """Pictures of which some are like others: a tenth are broken, and have nothing."""
    vectors = near[rng.integers(len(near), size=count)] + rng.normal(size=(count, DIMENSION)) * rng.choice(
        [0.0, 0.1, 0.3, 1.0], (count, 1)
    )
    is_there = rng.random(count) > 0.1
    bits = hashes[rng.integers(len(hashes), size=count)] ^ (
        np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
    )
    rows = np.flatnonzero(is_there)
    return pa.table(
        {
            "sha256": pa.array([f"file {number}" for number in rng.integers(0, 60, count)], mask=~is_there),
            "pixel_digest": pa.array([f"pixels {number}" for number in rng.integers(0, 90, count)], mask=~is_there),
            "perceptual_hash": pa.array(bits, pa.uint64(), mask=~is_there),
            "contrast": pa.array(rng.choice([0.0, 0.2], count), pa.float32(), mask=~is_there),
            "embedding": from_matrix(vectors[rows].astype(np.float16), rows, count, VALUES),
        }
    )


def reference(rng: np.random.Generator, near: np.ndarray, hashes: np.ndarray, count: int) -> pa.Table:
    table = features(rng, near, hashes, count)
    rows = np.flatnonzero(table["embedding"].is_valid().to_numpy())
    vectors = np.array(table["embedding"].drop_null().to_pylist(), np.float32)
    return (
        table.append_column("code", from_matrix(codes(vectors), rows, count, VALUES))
        .append_column("mirrored_hash", pa.array(rng.integers(0, 2**63, count), pa.uint64()))
        .append_column("reference_row", pa.array(np.arange(count) // 2, pa.int32()))
        .append_column("variant", pa.array(["whole", "middle"] * (count // 2)))
    )


def gather(table: pa.Table):
    vectors = dict(enumerate(table["embedding"].to_pylist()))
    return lambda rows: np.array([vectors[row] for row in rows.tolist()], np.float32)


RULES = PairRules(max_distance=3, min_contrast=0.1, min_cosine=0.9)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 4))
def test_the_nearest_is_found_whatever_the_parts(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    near, hashes = rng.normal(size=(5, DIMENSION)), rng.integers(0, 2**63, 5).astype(np.uint64)
    samples, others = features(rng, near, hashes, 24), reference(rng, near, hashes, 40)
    looked = Looked.of([samples.slice(0, 10), samples.slice(10)], 0.1)
    compared = Comparison(looked, gather(samples), gather(others), RULES, DIMENSION).with_all(
        others.slice(int(part[0]), len(part)) for part in np.array_split(np.arange(40), parts)
    )
    left, right = samples.to_pylist(), others.to_pylist()
    for row, sample in enumerate(left):
        same = [
            one
            for one in right
            if one["variant"] == "whole"
            and any(sample[name] is not None and sample[name] == one[name] for name in ("sha256", "pixel_digest"))
        ]
        assert (compared.exact.position[row] >= 0) == bool(same)
        if same:
            assert right[compared.exact.position[row]] in same
        hashed = [one for one in right if (one["contrast"] or 0) > 0.1]
        is_hashed = (sample["contrast"] or 0) > 0.1
        distances = [
            (sample["perceptual_hash"] ^ one[name]).bit_count()
            for one in hashed
            for name in ("perceptual_hash", "mirrored_hash")
            if is_hashed
        ]
        least = min(distances, default=HASH_BITS)
        assert (compared.perceptual.position[row] >= 0) == (least <= RULES.max_distance)
        assert compared.perceptual.measure[row] == (1 - least / HASH_BITS if least <= RULES.max_distance else 0)
        there = [one for one in right if one["embedding"] and sample["embedding"]]
        highest = max((cosine(sample["embedding"], one["embedding"]) for one in there), default=-1.0)
        found, place = compared.semantic.measure[row], compared.semantic.position[row]
        # Of several that are alike enough, the nearest by its code is taken, not by the whole.
        assert (found >= 0.9) == (highest >= 0.9)
        if found >= 0.9:
            assert found == pytest.approx(cosine(sample["embedding"], right[place]["embedding"]))


def cosine(left: list[float], right: list[float]) -> float:
    a, b = np.array(left, np.float64), np.array(right, np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_without_pictures_nothing_is_found() -> None:
    rng = np.random.default_rng(1)
    others = reference(rng, rng.normal(size=(5, DIMENSION)), rng.integers(0, 2**63, 5).astype(np.uint64), 10)
    none = Comparison(Looked.of([], 0.1), gather(others), gather(others), RULES, DIMENSION).with_all([others])
    assert len(none.samples) == 0
    some = Looked.of([features(rng, rng.normal(size=(5, DIMENSION)), np.ones(1, np.uint64), 4)], 0.1)
    beside_none = Comparison(some, gather(others), gather(others), RULES, DIMENSION).with_all([others.slice(0, 0)])
    assert (beside_none.semantic.position == -1).all()
