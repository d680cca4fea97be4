"""The rule ``unique``: one of each duplicate cluster among what an expression keeps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters import FilterError
from dqe_assets.filtering.pool import PoolError, TablePool
from dqe_assets.filtering.subset import format_uids
from tests.filtering.make_pool import uids


def clustered(rows: list[tuple[str | None, bool, int, float | None]]) -> pa.Table:
    cluster, chosen, width, similarity = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "uid": uids(range(len(rows))),
            "cluster": pa.array(cluster, pa.string()),
            "is_representative_any": pa.array(chosen, pa.bool_()),
            "original_width": pa.array(width, pa.int32()),
            "original_height": pa.array([3] * len(rows), pa.int32()),
            "similarity": pa.array(similarity, pa.float32()),
        }
    )


def kept(expression: str, *tables: pa.Table) -> list[int]:
    made = make_subset(parse(expression), [TablePool(one, str(place)) for place, one in enumerate(tables)])
    return [int(uid, 16) for uid in format_uids(made.uids).to_pylist()]


row = st.tuples(
    st.sampled_from([None, "a", "b", "c"]),
    st.booleans(),
    st.integers(1, 3),
    st.none() | st.sampled_from([float("nan"), -1.0, 0.1, 0.2]),
)


@given(st.lists(row, max_size=20), st.sampled_from(["representative", "similarity"]), st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_one_of_each_cluster_is_kept_among_what_is_wide_enough(
    rows: list[tuple[str | None, bool, int, float | None]], keep: str, width: int
) -> None:
    table = clustered(rows)

    def rank(place: int) -> tuple[float, ...]:
        _, chosen, wide, score = rows[place]
        known = score if score is not None and not np.isnan(score) else -np.inf
        return (known, -place) if keep == "similarity" else (chosen, wide, -place)

    wide = [place for place, one in enumerate(rows) if one[2] >= width]
    clusters = {rows[place][0] for place in wide} - {None}
    best = [max((place for place in wide if rows[place][0] == one), key=rank) for one in clusters]
    expected = sorted([*best, *(place for place in wide if rows[place][0] is None)])
    rule = f"sql('original_width >= {width}') & unique(keep={keep})"
    assert kept(rule, table) == expected
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    cut = len(rows) // 2
    assert kept(rule, table.take(order[:cut]), table.take(order[cut:])) == expected
    assert kept(f"unique(of=sql('original_width >= {width}'), keep={keep})", table) == expected


def test_the_cluster_is_not_gone_with_its_representative() -> None:
    table = clustered([("a", True, 1, 0.1), ("a", False, 5, 0.2), ("a", False, 4, 0.9), (None, False, 1, 0.1)])
    assert kept("sql('similarity > 0.15') & deduplicated", table.append_column("x", table["uid"])) == []
    assert kept("sql('similarity > 0.15') & unique", table) == [1], "the largest picture that is left"
    assert kept("sql('similarity > 0.15') & unique(keep=similarity)", table) == [2]
    assert kept("sql('similarity > 0.15') & ~unique", table) == [2]
    assert kept("unique", table) == [0, 3]


def test_a_uid_that_stands_twice_stays_so() -> None:
    table = clustered([("a", True, 1, 0.1), ("a", False, 5, 0.2)])
    assert kept("unique", pa.concat_tables([table, table])) == [0, 0]


def test_a_pool_without_clusters_is_refused_with_what_is_missing() -> None:
    table = clustered([("a", True, 1, 0.1)])
    with pytest.raises(PoolError, match="column cluster is missing"):
        kept("unique", table.drop_columns("cluster"))
    with pytest.raises(PoolError, match="column beauty is missing"):
        kept("unique(keep=beauty)", table)
    with pytest.raises(FilterError, match="column cluster is string; expected numbers"):
        kept("unique(keep=cluster)", table)
