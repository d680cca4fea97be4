"""The facts of the samples that are published, read of many at once."""

from __future__ import annotations

import pytest

from dqe_assets.publish import selection
from dqe_assets.publish.selection import FACTS, Facts, Selection, published_sql, select
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import make_store


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    folder = tmp_path_factory.mktemp("several")
    inputs = make_store(folder, shards=3).inputs
    found = Warehouse(path=folder / "w.duckdb")
    found.rebuild(lambda connection: build_warehouse(connection, inputs))
    return found


@pytest.mark.parametrize("caption", ["best", "original"])
@pytest.mark.parametrize(("at_once", "page"), [(50_000, 4_096), (50_000, 5), (7, 3), (8, 4_096)])
def test_facts_are_those_of_their_samples_however_many_are_read_at_once(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, caption: str, at_once: int, page: int
) -> None:
    monkeypatch.setattr(selection, "_AT_ONCE", at_once)
    monkeypatch.setattr(selection, "_PAGE", page)
    condition = 'width > height OR "row" % 3 = 0'
    with warehouse.session() as query:
        chosen = select(query, condition, caption)
        published = published_sql(condition, caption, '"row"')
        expected = query(f'FROM ({published}) ORDER BY shard, "row"').to_pylist()
        assert len({row["shard"] for row in expected}) == 3
        for start, stop in [(0, chosen.total), (5, 6), (6, 23), (chosen.total - 1, chosen.total), (4, 4)]:
            assert _found(Facts(query, chosen), start, stop) == expected[start:stop]
        # As for one file after another.
        facts = Facts(query, chosen)
        assert [row for start in range(0, 20, 4) for row in _found(facts, start, start + 4)] == expected[:20]


def _found(facts: Facts, start: int, stop: int) -> list[dict[str, object]]:
    rows = []
    for shard, places, page in facts.pages(start, stop):
        assert page.schema.equals(FACTS)
        assert set(page["shard"].to_pylist()) == {shard}
        rows += [{"row": place} | row for place, row in zip(places.tolist(), page.to_pylist(), strict=True)]
    return rows


def test_nothing_is_asked_for_nothing(warehouse: Warehouse) -> None:
    with warehouse.session() as query:
        assert not list(Facts(query, Selection("true", "best", 0, (), {}, ())).pages(0, 0))
