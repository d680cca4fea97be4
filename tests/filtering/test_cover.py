"""The rule ``cover``: greedy k-center over embeddings, and groups of alike samples merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters import FilterError, cover
from dqe_assets.filtering.pool import DataCompPool, PoolError, TablePool
from dqe_assets.filtering.scores import farthest_first
from dqe_assets.filtering.subset import format_uids
from tests.filtering.make_pool import table, uids, write_part
from tests.filtering.test_scores import units

if TYPE_CHECKING:
    from pathlib import Path


def embedded(vectors: np.ndarray, **columns: object) -> pa.Table:
    lists = pa.array([None if np.isnan(one).any() else one.tolist() for one in vectors], pa.list_(pa.float16()))
    return pa.table({"uid": uids(range(len(vectors))), "image_features": lists, **columns})


def kept(expression: str, *tables: pa.Table) -> set[int]:
    made = make_subset(parse(expression), [TablePool(one, str(place)) for place, one in enumerate(tables)])
    return {int(uid, 16) for uid in format_uids(made.uids).to_pylist()}


@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_farthest_comes_next(rows: int, width: int, count: int, seed: int) -> None:
    vectors = units(np.random.default_rng(seed), rows, width)
    found = farthest_first(vectors, count)
    order = np.argsort(-found, kind="stable")[: min(count, rows)]
    assert np.isneginf(np.delete(found, order)).all()
    wide = vectors.astype(np.float64)
    for place in range(1, len(order)):
        distances = (1 - wide @ wide[order[:place]].T).min(axis=1)
        assert found[order[place]] == pytest.approx(distances[order[place]], abs=1e-5)
        assert distances[order[place]] >= np.delete(distances, order[:place]).max() - 1e-5


def test_more_rows_than_fit_are_ordered_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = units(np.random.default_rng(0), 300, 16)
    whole = farthest_first(vectors, 300)
    monkeypatch.setattr("dqe_assets.filtering.scores._COMPARED_AT_ONCE", 10)
    np.testing.assert_allclose(farthest_first(vectors, 300), whole, atol=1e-5)


@pytest.mark.parametrize("in_a_group", [2_048, 50])
def test_it_keeps_as_many_as_random_and_covers_better_whatever_the_order(
    in_a_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cover, "_IN_A_GROUP", in_a_group)
    random = np.random.default_rng(0)
    # Most samples are alike: at random, hardly any of the others would be kept.
    middles = units(random, 20, 8)
    vectors = middles[np.minimum(random.geometric(0.4, 400) - 1, 19)] + 0.1 * random.normal(size=(400, 8))
    vectors[7] = np.nan
    table = embedded(vectors)
    made = make_subset(parse("cover(0.1, seed=3)"), [TablePool(table)])
    (leaf,) = made.manifest["leaves"]
    assert len(made.uids) == leaf["kept"] == 40
    assert len(kept("random(0.1)", table)) == 40
    assert leaf["largest_distance"]["cover"] < 0.5 * leaf["largest_distance"]["random"]
    assert leaf["groups"] == (1 if in_a_group > 400 else 8)
    order = random.permutation(400)
    shuffled = kept("cover(0.1, seed=3)", table.take(order[:150]), table.take(order[150:]))
    assert shuffled == kept("cover(0.1, seed=3)", table)
    assert shuffled != kept("cover(0.1, seed=4)", table)


def test_copies_come_last_and_all_are_kept_of_all() -> None:
    vectors = np.eye(4)[[0, 0, 0, 1, 1, 2, 3, 3]]
    for seed in range(5):
        found = kept(f"cover(0.5, seed={seed})", embedded(vectors))
        assert len({int(np.argmax(vectors[one])) for one in found}) == 4
    assert len(kept("cover(1.0)", embedded(vectors))) == 8


def test_it_chooses_among_what_it_is_joined_to() -> None:
    table = embedded(units(np.random.default_rng(0), 40, 6), width=[9] * 20 + [1] * 20)
    found = kept("sql('width > 5') & cover(0.5)", table)
    assert len(found) == 10
    assert found < set(range(20))


def test_a_pool_without_embeddings_is_refused() -> None:
    table = embedded(np.full((2, 3), np.nan))
    with pytest.raises(FilterError, match="none of the 2 rows has image_features"):
        kept("cover(0.5)", table)
    with pytest.raises(PoolError, match="column l14_img is missing"):
        kept("cover(0.5, l14_img)", table)
    with pytest.raises(FilterError, match="cover: no sample has image_features"):
        kept("sql('width > 1') & cover(0.5)", embedded(np.eye(2), width=[0, 1]))


def test_pools_of_datacomp_are_chosen_from_by_their_own_columns(tmp_path: Path) -> None:
    metadata = table(60)
    more = {
        "cluster": pa.array(["a", "a", "b", "b", "b", *[None] * 55], pa.string()),
        "is_representative_any": pa.array([True, False, False, True, False, *[None] * 55], pa.bool_()),
        "caption_concepts": pa.array([["dog"]] * 50 + [["newt"]] * 10, pa.list_(pa.string())),
        "language": ["en"] * 60,
    }
    for name, column in more.items():
        metadata = metadata.append_column(name, pa.array(column) if isinstance(column, list) else column)
    vectors = units(np.random.default_rng(0), 60, 8).astype(np.float16)
    for part, rows in (("0", slice(0, 25)), ("1", slice(25, 60))):
        found = metadata.slice(rows.start, rows.stop - rows.start)
        write_part(tmp_path / "pool", part, found, {"l14_img": vectors[rows]})
    pool = DataCompPool(str(tmp_path / "pool"))
    counts = {
        rule: make_subset(parse(rule), [pool]).manifest["uids"]
        for rule in (
            "unique",
            "unique & cover(0.5, l14_img)",
            "balanced(10) & unique(keep=clip_l14_similarity_score)",
            "soft_cap(clip_l14_similarity_score, 90)",
        )
    }
    assert counts["unique"] == 57
    assert counts["unique & cover(0.5, l14_img)"] in {28, 29}
    assert 10 < counts["balanced(10) & unique(keep=clip_l14_similarity_score)"] < 40
    assert counts["soft_cap(clip_l14_similarity_score, 90)"] == 90
    with pytest.raises(PoolError, match="b32_img is missing; there are: l14_img"):
        make_subset(parse("cover(0.5, b32_img)"), [pool])
