"""A partition is made of one version of each of its inputs, whatever other processes write meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dqe_assets.core.schema import UID, Column, table_schema
from dqe_assets.core.stage import connected, stage
from dqe_resources.store import ReplacedError, Stamp, Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dqe_assets.core.stage import Stage
    from dqe_assets.core.work import Work

SOURCES = table_schema([UID, Column("text", pa.string(), "a text")])
COPIES = table_schema([UID, Column("text", pa.string(), "the same text")])
SHARD = "s-00000"


def write(store: Store, version: int) -> None:
    """Rows in another order for each version: what is read of two of them does not fit together."""
    numbers = [(number + version) % 5 for number in range(5)]
    table = pa.table({"uid": [f"{one:032x}" for one in numbers], "text": [f"text {one}" for one in numbers]}, SOURCES)
    store.write_table("sources", SHARD, table, SOURCES, Stamp(f"{version:032x}", "1", 5))


def copying(between: Callable[[], None], *, partitioned: bool) -> Stage:
    """A stage that reads one column and then the other; in between, something happens."""

    @stage(kinds={"parquet"}, code_version="1", schema=SOURCES)
    def sources(work: Work) -> pa.Table:
        """Some texts."""
        raise NotImplementedError

    @stage(kinds={"parquet"}, code_version="1", schema=COPIES, inputs=["sources"], partitioned=partitioned)
    def copies(work: Work) -> pa.Table:
        """The same texts."""
        work = work.of_shard(SHARD)
        uids = work.read("sources", ["uid"])["uid"]
        between()
        return pa.table([uids, work.read("sources", ["text"])["text"]], schema=COPIES)

    return connected([sources, copies])[1]


@pytest.mark.parametrize("partitioned", [True, False])
def test_an_input_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, partitioned: bool) -> None:
    store = Store(str(tmp_path))
    write(store, 0)
    versions = [1, 2]
    made = copying(lambda: write(store, versions.pop(0)) if versions else None, partitioned=partitioned)
    work = made.work(store, SHARD if partitioned else None, [SHARD])
    stored, _, _ = made.make(work, {})
    assert versions == []
    table = store.read("copies", work.partition, COPIES)
    assert table["text"].to_pylist() == [f"text {int(uid, 16)}" for uid in table["uid"].to_pylist()]
    assert made.current(made.work(store, work.partition, [SHARD]), {}) == stored, "it counts as made of the last"


def test_an_input_that_is_written_again_as_it_was_is_no_other(tmp_path: Path) -> None:
    store, calls = Store(str(tmp_path)), []
    write(store, 0)

    def again() -> None:
        calls.append(0)
        write(store, 0)

    copies = copying(again, partitioned=True)
    copies.make(copies.work(store, SHARD, [SHARD]), {})
    assert len(calls) == 1


def test_an_input_that_is_replaced_again_and_again_is_an_error(tmp_path: Path) -> None:
    store, versions = Store(str(tmp_path)), iter(range(1, 100))
    write(store, 0)
    copies = copying(lambda: write(store, next(versions)), partitioned=True)
    with pytest.raises(ReplacedError, match=r"s-00000\.parquet: was replaced while it was used; run the same command"):
        copies.make(copies.work(store, SHARD, [SHARD]), {})
    assert store.get("copies", SHARD) is None
    assert next(versions) == 6, "it was tried a few times"


def test_what_duckdb_reads_is_known_to_be_replaced(tmp_path: Path) -> None:
    """It opens files by itself: so all that was looked at is compared with what is there."""
    store = Store(str(tmp_path))
    write(store, 0)
    now = store.as_it_is_now()
    assert now.get("sources", SHARD) is not None
    now.require_as_seen()
    write(replace(store), 1)
    with pytest.raises(ReplacedError, match=r"s-00000\.parquet: was replaced while it was used"):
        now.require_as_seen()
