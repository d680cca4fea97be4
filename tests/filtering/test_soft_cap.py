"""The rule ``soft_cap``: subsets in which samples are repeated as often as they were drawn."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters import FilterError
from dqe_assets.filtering.pool import PoolError, TablePool
from dqe_assets.filtering.scores import soft_cap
from dqe_assets.filtering.subset import distinct, format_uids, parse_uids, read_subset
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.training.reshard import plan_shards
from dqe_assets.training.samples import StoreShard
from tests.conftest import environment
from tests.filtering.make_pool import uids
from tests.training.toy import make

if TYPE_CHECKING:
    from pathlib import Path


def scored(values: list[float | None], **columns: object) -> pa.Table:
    return pa.table({"uid": uids(range(len(values))), "score": pa.array(values, pa.float32()), **columns})


def drawn(expression: str, *tables: pa.Table) -> list[int]:
    made = make_subset(parse(expression), [TablePool(one, str(place)) for place, one in enumerate(tables)])
    return [int(uid, 16) for uid in format_uids(made.uids).to_pylist()]


@given(
    st.lists(st.none() | st.floats(-2, 2, width=32), min_size=1, max_size=20).filter(
        lambda some: any(v is not None for v in some)
    ),
    st.integers(1, 60),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_samples_are_drawn_as_the_function_draws_them_whatever_their_order(
    values: list[float | None], n: int, draw: int
) -> None:
    table = scored(values)
    numbers = np.array([np.nan if value is None else value for value in values])
    expected = sorted(soft_cap(numbers, n, 0.15, draw, 7).tolist())
    rule = f"soft_cap(score, {n}, draw={draw}, seed=7)"
    assert drawn(rule, table) == expected
    order = np.random.default_rng(n).permutation(len(values))
    cut = len(values) // 2
    assert drawn(rule, table.take(order[:cut]), table.take(order[cut:])) == expected
    assert drawn(f"soft_cap(mix({{score: 1}}), {n}, rho=0)", table.take(order)) == drawn(
        f"soft_cap(mix({{score: 1}}), {n}, rho=0)", table
    )


def test_it_draws_among_what_it_is_joined_to_and_the_others_keep_what_is_drawn() -> None:
    table = scored([1.0, 0.5, 0.0, 0.9], width=[9, 9, 1, 1])
    assert set(drawn("sql('width > 5') & soft_cap(score, 40)", table)) == {0, 1}
    assert len(drawn("sql('width > 5') & soft_cap(score, 40)", table)) == 40
    assert len(drawn("sql('width > 5') & soft_cap(score, 40, of=no_filter)", table)) < 40
    assert drawn("~soft_cap(score, 1) & sql('width > 5')", table) in ([0], [1])
    both = drawn("soft_cap(score, 40, of=sql('width > 5')) | sql('width < 5')", table)
    assert (len(both), both.count(2), both.count(3)) == (42, 1, 1)


def test_a_manifest_says_how_often_samples_were_drawn() -> None:
    made = make_subset(parse("soft_cap(score, 100)"), [TablePool(scored([0.0, 1.0, None, -1.0]))])
    (leaf,) = made.manifest["leaves"]
    assert (made.manifest["uids"], made.manifest["distinct_uids"]) == (100, 3)
    assert (leaf["drawn"], leaf["different"], leaf["kept"]) == (100, 3, 3)
    assert leaf["most_times"] == max(np.unique(made.uids, return_counts=True)[1])
    assert made.manifest["pools"][0]["kept"] == 100


@pytest.mark.parametrize(
    ("values", "rule", "error", "message"),
    [
        ([None], "soft_cap(score, 3)", FilterError, "soft_cap: no row has a score"),
        ([float("inf")], "soft_cap(score, 3)", FilterError, "soft_cap: row 0: the score is infinite"),
        ([0.0], "soft_cap(uid, 3)", FilterError, "soft_cap: column uid is string; expected numbers"),
        ([0.0], "soft_cap(beauty, 3)", PoolError, "column beauty is missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    values: list[float | None], rule: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        drawn(rule, scored(values))


def test_a_subset_of_the_store_with_repeats_is_written_and_trained_on_as_often(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(finished, data, symlinks=True)
    for name, value in environment(data).items():
        monkeypatch.setenv(name, value)
    rule = "soft_cap(similarity, 400, draw=50)"
    changed = {"filters": {"drawn": rule}, "subsets": [{"name": "repeated", "expression": rule}]}
    (data / "dqe.yaml").write_text(yaml.safe_dump({**yaml.safe_load((data / "dqe.yaml").read_text()), **changed}))
    settings = load_settings()
    assert not make(settings, "filter_masks", "subsets/repeated").failures
    found = read_subset(subset_path("repeated"))
    assert len(found) == 400
    assert 100 < distinct(found) < 235
    shards = [StoreShard(settings.opened_store, f"sample-{index:05d}") for index in range(4)]
    plan = plan_shards(found, shards)
    assert (plan.total, len(plan.missing)) == (400, 0)
    keys = [key for key, _ in plan.entries(0)]
    assert len(set(keys)) == 400
    assert sorted(key.partition("-")[0] for key in keys) == format_uids(found).to_pylist()
    assert np.array_equal(np.sort(parse_uids(pa.array([key[:32] for key in keys]))), found)
