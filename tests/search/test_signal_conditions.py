"""Conditions of a search on signals, which the warehouse is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest

from dqe_assets.search import signal_conditions
from dqe_assets.search.signal_conditions import take_signals
from dqe_resources.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

TYPES = {"nsfw": pa.float32(), "votes": pa.int64(), "lang": pa.string(), "licensed": pa.bool_(), "gone": pa.float64()}


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE samples (uid VARCHAR, nsfw FLOAT, votes BIGINT, lang VARCHAR, licensed BOOLEAN)"
        )
        connection.execute(
            "INSERT INTO samples VALUES ('a', 0.1, 3, 'en', true), ('b', 0.5, NULL, 'de, at', false), "
            "('c', NULL, 4, NULL, NULL)"
        )
    return Warehouse(path=tmp_path / "w.duckdb")


@pytest.mark.parametrize(
    ("where", "met"),
    [
        (["nsfw<=0.1"], {"a"}),
        (["nsfw=0.1"], {"a"}),
        (["nsfw!=0.1"], {"b"}),
        (["votes > 2, votes<4"], {"a"}),
        (["lang=de, at"], {"b"}),
        (["lang!=en"], {"b"}),
        (["licensed=True", "nsfw<1"], {"a"}),
        (["licensed==false"], {"b"}),
        (["nsfw>7"], set()),
    ],
)
def test_what_meets_them(
    warehouse: Warehouse, where: list[str], met: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    others, conditions, _ = take_signals(where, TYPES)
    assert not others
    assert conditions.few(warehouse) == met
    assert conditions.unmet(warehouse, ["a", "b", "c", "of a later shard"]) == {"a", "b", "c", "of a later shard"} - met
    monkeypatch.setattr(signal_conditions, "_FEW", 0)
    assert conditions.few(warehouse) == (None if met else set())


def test_the_others_are_for_the_collection() -> None:
    others, conditions, kinds = take_signals(["source=web,nsfw<0.5", "width>=200"], TYPES)
    assert others == ["source=web", "width>=200"]
    assert conditions.names == ("nsfw",)
    assert kinds == {"nsfw": "float", "votes": "float", "lang": "keyword", "licensed": "bool", "gone": "float"}


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("nsfw<high", "'nsfw' is a number, not 'high'"),
        ("lang<en", "'lang' is not a number, so the only operators for it are = and !="),
        ("licensed=maybe", "'licensed' is true or false, not 'maybe'"),
        ("nsfw", "is not a condition"),
    ],
)
def test_what_is_wrong_is_told(condition: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        take_signals([condition], TYPES)


def test_a_signal_that_the_warehouse_has_not_yet(warehouse: Warehouse) -> None:
    _, conditions, _ = take_signals(["gone<1"], TYPES)
    with pytest.raises(ValueError, match="does not have the signal gone yet; run: dqe materialize"):
        conditions.few(warehouse)
