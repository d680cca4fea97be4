"""The filter ``balanced`` against a plain reading of MetaCLIP, whatever the order of rows and parts."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters import FilterError
from dqe_assets.filtering.filters.balanced import Balanced
from dqe_assets.filtering.pool import PoolError, TablePool
from dqe_assets.filtering.scores import tail_threshold
from dqe_assets.filtering.subset import format_uids, parse_uids, uniform_draws
from tests.filtering.make_pool import uids

CONCEPTS = pa.list_(pa.string())
shown = st.none() | st.lists(st.sampled_from(["dog", "cat", "a tabby cat", "été"]), max_size=4)


def pool_of(lists: list[list[str] | None], languages: list[str | None] | None = None, **columns: object) -> pa.Table:
    return pa.table(
        {
            "uid": uids(range(len(lists))),
            "caption_concepts": pa.array(lists, CONCEPTS),
            "language": pa.array(languages or ["en"] * len(lists), pa.string()),
            **columns,
        }
    )


def plainly(table: pa.Table, t: int | str, seed: int = 0) -> set[str]:
    rows = table.to_pylist()
    by_language = t == "auto"
    keys = [{(row["language"] if by_language else None, one) for one in row["caption_concepts"] or []} for row in rows]
    counts = Counter(key for some in keys for key in some)
    wanted = {
        language: tail_threshold(np.array([count for key, count in counts.items() if key[0] == language]))
        if by_language
        else t
        for language, _ in counts
    }
    draws = uniform_draws(parse_uids(table["uid"]), seed, 0xBA1A7CED)
    return {
        row["uid"]
        for row, some, drawn in zip(rows, keys, draws, strict=True)
        if drawn < 1 - math.prod(1 - min(1, wanted[key[0]] / counts[key]) for key in some)
    }


@given(st.lists(st.tuples(shown, st.sampled_from(["en", "de"])), max_size=30), st.sampled_from([1, 2, 5, "auto"]))
@settings(max_examples=60, deadline=None)
def test_samples_are_kept_as_metaclip_says_whatever_their_order(
    samples: list[tuple[list[str] | None, str]], t: int | str
) -> None:
    table = pool_of([one for one, _ in samples], [language for _, language in samples])
    expected = plainly(table, t, seed=3)
    filtered = Balanced(t=t, seed=3)
    assert set(table["uid"].filter(pa.array(filtered.mask(table))).to_pylist()) == expected
    order = np.random.default_rng(1).permutation(len(samples))
    cut = len(samples) // 3
    pools = [TablePool(table.take(order[:cut]), "a"), TablePool(table.take(order[cut:]), "b")]
    made = make_subset(parse(f"balanced({t}, seed=3)"), pools)
    assert set(format_uids(made.uids).to_pylist()) == expected
    (leaf,) = made.manifest["leaves"]
    assert leaf["kept"] == len(expected)
    assert max(leaf["tail"]["before"], default=0) >= max(leaf["tail"]["after"], default=0)


def test_frequent_concepts_are_cut_and_rare_ones_kept() -> None:
    table = pool_of([["dog"]] * 4_000 + [["newt"]] * 10 + [["dog", "newt"]] * 10 + [None, []])
    fitted = Balanced(t=20).fit([TablePool(table)])
    kept = fitted.mask(table)
    assert kept[4_000:4_020].all(), "what is rare stays"
    assert not kept[4_020:].any(), "nothing is known of them"
    assert 5 <= kept[:4_000].sum() <= 40
    assert fitted.facts["matches"] == 4_030
    assert fitted.facts["tail"]["after"][0] == max(kept[:4_000].sum() + 10, 20)


def test_each_language_has_its_own_t() -> None:
    languages = ["en"] * 60 + ["de"] * 12
    lists = [["dog"]] * 50 + [["newt"]] * 10 + [["dog"]] * 10 + [["newt"]] * 2
    fitted = Balanced().fit([TablePool(pool_of(lists, languages))])
    assert fitted.facts["t"] == {"en": 10, "de": 2}
    assert Balanced(language=None).fit([TablePool(pool_of(lists, languages))]).facts["t"] == 12


def test_by_image_no_language_is_asked_for() -> None:
    table = pool_of([["dog"]] * 3).rename_columns(["uid", "image_concepts", "tongue"])
    assert Balanced(by="image").mask(table).any()


def test_a_pool_without_concepts_is_refused_with_what_is_missing() -> None:
    with pytest.raises(PoolError, match="column caption_concepts is missing; there are: uid, text"):
        make_subset(parse("balanced"), [TablePool(pa.table({"uid": uids([1]), "text": ["a"]}))])
    with pytest.raises(FilterError, match="column caption_concepts is string; expected lists of names"):
        Balanced(t=2).mask(pa.table({"uid": uids([1]), "caption_concepts": ["dog"]}))


def test_it_draws_other_samples_than_a_random_subset_of_the_same_seed() -> None:
    table = pool_of([["dog"]] * 2_000)
    both = parse("balanced(1000, of=no_filter) & random_subset(0.5)")
    kept = make_subset(both, [TablePool(table)]).uids
    assert 400 < len(kept) < 600
