"""A warehouse that is brought up to date holds what a new one would."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from operator import methodcaller
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.concepts.tables import CONCEPT_FREQUENCY, CONCEPT_HITS
from dqe_assets.core.relations import OverAll, Relations, Table
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report import build_warehouse as module
from dqe_assets.report.build_warehouse import build_warehouse, can_update, signature
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import make_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dqe_assets.report.build_warehouse import WarehouseInputs
    from tests.report.make_store import Store

SHARDS, ROWS = 5, 9
NAMES = [f"photos-{number:05d}" for number in range(SHARDS)]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Two stores of the same samples, of which some have other captions and all have other numbers of their own."""
    found = {}
    for name, captions in (("a", {}), ("b", {row: f"another caption {row}" for row in range(0, SHARDS * ROWS, 2)})):
        root = tmp_path_factory.mktemp(name)
        store = make_store(root, shards=SHARDS, rows=ROWS, captions=captions)
        assets = {asset: list(files) for asset, files in store.inputs.assets.items()}
        for shard, raw in zip(NAMES, assets["raw_samples"], strict=True):
            hits = [
                {"uid": uid, "item": item, "concepts": ["dog", name], "words": [], "counted_by": ""}
                for uid in pq.read_table(raw, columns=["uid"])["uid"].to_pylist()
                for item in ("image", "original")
            ]
            path = root / "concept_hits" / f"{shard}.parquet"
            path.parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(hits, CONCEPT_HITS), path, write_page_checksum=True)
            assets.setdefault("concept_hits", []).append(path)
        found[name] = replace(store, inputs=replace(store.inputs, assets=assets))
    return found


def inputs_of(variants: Mapping[str, Store], shards: Mapping[str, str], seed: int, folder: Path) -> WarehouseInputs:
    """Inputs of shards, each of one of the variants, with assets over all of them by a seed."""
    folder.mkdir()
    chosen = random.Random(seed)
    any_store = variants["a"].inputs
    by_shard = [asset for asset in any_store.assets if asset != "duplicate_clusters"]
    assets = {
        asset: [
            path for name in sorted(shards) for path in variants[shards[name]].inputs.assets[asset] if path.stem == name
        ]
        for asset in by_shard
    }
    uids = [uid for path in assets["raw_samples"] for uid in pq.read_table(path, columns=["uid"])["uid"].to_pylist()]
    pairs = [chosen.sample(uids, 2) for _ in range(3)] if uids else []
    clusters = {
        uid: {
            "uid": uid,
            "kind": "any",
            "cluster": pair[0],
            "representative": pair[0],
            "is_representative": uid == pair[0],
            "similarity": 0.9,
            "size": 2,
        }
        for pair in pairs
        for uid in pair
    }
    frequency = [
        {
            "concept": concept,
            "tasks": [],
            "position": position,
            "item": "original",
            "samples": 3,
            "searched": 9,
            "rank": 1,
            "provisional_shards": chosen.sample(sorted(shards), chosen.randint(0, len(shards))),
        }
        for position, concept in enumerate(("dog", "a"))
    ]
    for asset, schema, rows in (
        ("duplicate_clusters", DUPLICATE_CLUSTERS, [*clusters.values()]),
        ("concept_frequency", CONCEPT_FREQUENCY, frequency),
    ):
        assets[asset] = [folder / asset / "all.parquet"]
        assets[asset][0].parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema), assets[asset][0], write_page_checksum=True)
    stored = variants["a"].inputs.materialisations.to_pylist()[0]
    materialisations = [
        {**stored, "asset": asset, "partition": name, "rows": ROWS, "fingerprint": f"{asset} {name} {variant}"}
        for asset in by_shard
        for name, variant in shards.items()
    ]
    return replace(any_store, assets=assets, materialisations=pa.Table.from_pylist(materialisations, MATERIALISATIONS))


def with_first_row(inputs: WarehouseInputs, reason: str | None, folder: Path) -> WarehouseInputs:
    """The inputs with another reason of the first row of the first shard; or without that row."""
    first, *others = inputs.assets["raw_samples"]
    rows = pq.read_table(first).to_pylist()
    folder.mkdir()
    path = folder / f"{NAMES[0]}.parquet"
    changed = [rows[0] | {"reason": reason}] if reason else []
    pq.write_table(pa.Table.from_pylist([*changed, *rows[1:]], RAW_SAMPLES), path, write_page_checksum=True)
    stored = [
        row | {"fingerprint": path.parent.name}
        if (row["asset"], row["partition"]) == ("raw_samples", NAMES[0])
        else row
        for row in inputs.materialisations.to_pylist()
    ]
    return replace(
        inputs,
        assets={**inputs.assets, "raw_samples": [path, *others]},
        materialisations=pa.Table.from_pylist(stored, MATERIALISATIONS),
    )


def content(warehouse: Warehouse) -> dict[str, Counter[str]]:
    """How often each row is in each table and view; numbers to nine digits, for sums differ by their order."""
    with warehouse.connect() as connection:
        names = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'warehouse' UNION ALL "
            "SELECT view_name FROM duckdb_views() WHERE database_name = 'warehouse' AND NOT internal"
        ).fetchall()
        return {name: Counter(map(_rounded, connection.execute(f"FROM {name}").fetchall())) for (name,) in names}


def _rounded(row: Sequence[object]) -> str:
    return str([f"{value:.9g}" if isinstance(value, float) else value for value in row])


def built(path: Path, inputs: WarehouseInputs, *, keep: bool = False) -> Warehouse:
    """The warehouse, new or brought up to date."""
    warehouse = Warehouse(path=path)
    warehouse.rebuild(lambda connection: build_warehouse(connection, inputs), lambda _: keep)
    return warehouse


def assert_same(updated: Warehouse, anew: Warehouse, samples: int) -> None:
    found, expected = content(updated), content(anew)
    assert sum(expected["samples"].values()) == samples
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert found[name] == rows, name


def test_it_holds_the_same_where_a_shard_came_another_changed_and_another_went(
    variants: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", ROWS)
    built(tmp_path / "w.duckdb", inputs_of(variants, dict.fromkeys(NAMES[:3], "a"), 0, tmp_path / "before"))
    inputs = inputs_of(variants, {NAMES[0]: "a", NAMES[1]: "b", NAMES[3]: "a"}, 1, tmp_path / "after")
    updated = built(tmp_path / "w.duckdb", inputs, keep=True)
    assert_same(updated, built(tmp_path / "anew.duckdb", inputs), 3 * ROWS)


def test_it_holds_the_same_after_any_changes(
    variants: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2 * ROWS)
    chosen = random.Random(1)
    shards = dict.fromkeys(NAMES[:3], "a")
    built(tmp_path / "w.duckdb", inputs_of(variants, shards, 0, tmp_path / "0"))
    for step in range(1, 4):
        for name in chosen.sample(NAMES, 2):
            if name in shards and chosen.random() < 0.4:
                del shards[name]
            else:
                shards[name] = chosen.choice("ab")
        inputs = inputs_of(variants, shards, step, tmp_path / str(step))
        updated = built(tmp_path / "w.duckdb", inputs, keep=True)
        assert_same(updated, built(tmp_path / f"{step}.duckdb", inputs), ROWS * len(shards))


def test_a_copy_is_updated_where_few_shards_changed(variants: dict[str, Store], tmp_path: Path) -> None:
    few, more = dict.fromkeys(NAMES[:3], "a"), dict.fromkeys(NAMES[:4], "a")
    before = inputs_of(variants, few, 0, tmp_path / "few")
    after = inputs_of(variants, more, 1, tmp_path / "more")
    changed = inputs_of(variants, {**dict.fromkeys(NAMES[:2], "b"), NAMES[2]: "a"}, 2, tmp_path / "changed")
    warehouse = built(tmp_path / "w.duckdb", before)
    with warehouse.connect() as connection:
        assert can_update(connection, before)
        assert can_update(connection, after)
        assert not can_update(connection, changed)
        fewer = inputs_of(variants, dict.fromkeys(NAMES[:2], "a"), 3, tmp_path / "fewer")
        assert not can_update(connection, fewer), "its file would keep what has gone"
        assert can_update(connection, with_first_row(before, "http_404", tmp_path / "failed"))
        assert not can_update(connection, with_first_row(before, TAKEN_DOWN, tmp_path / "taken_down"))
        assert not can_update(connection, with_first_row(before, None, tmp_path / "gone"))
    assert signature(before) == signature(after)
    assert signature(before) != signature(replace(before, scorer="another"))
    assert signature(before) != signature(replace(before, relations=before.relations[:-1]))


def test_a_copy_on_which_duckdb_fails_is_thrown_away(tmp_path: Path) -> None:
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    for number in (1, 2):
        # Of a copy, the table is there already.
        create = f"CREATE TABLE t AS SELECT {number} AS n"
        warehouse.rebuild(methodcaller("execute", create), lambda _: True)
        with warehouse.connect() as connection:
            assert connection.execute("FROM t").fetchall() == [(number,)]
    assert [path.name for path in tmp_path.iterdir() if ".new-" in path.name] == []


def test_its_file_does_not_grow(variants: dict[str, Store], tmp_path: Path) -> None:
    sizes = []
    for step in range(4):
        shards = dict.fromkeys(NAMES, "ab"[step % 2])
        warehouse = built(tmp_path / "w.duckdb", inputs_of(variants, shards, step, tmp_path / str(step)), keep=step > 0)
        sizes.append(warehouse.path.stat().st_size)
    assert max(sizes) < 1.5 * sizes[0]


def test_a_table_by_shard_reads_what_is_of_shards(variants: dict[str, Store], tmp_path: Path) -> None:
    inputs = inputs_of(variants, {NAMES[0]: "a"}, 0, tmp_path / "inputs")
    columns = {"uid": ("VARCHAR", "the sample")}
    wrong = Table("wrong", "Duplicates", columns, "SELECT uid FROM stored_duplicate_clusters", by_shard=True)
    late = Table(
        "late",
        "Joins",
        columns | {"n": ("BIGINT", "how many")},
        "SELECT uid, NULL FROM stored_raw_samples",
        by_shard=True,
        over_all=OverAll({"n": "o.samples"}, "JOIN filters o ON true"),
    )
    lost = Table("lost", "No key", {"n": ("BIGINT", "how many")}, "SELECT 1 FROM stored_raw_samples", by_shard=True)
    for table, message in (
        (wrong, "reads stored_duplicate_clusters"),
        (late, "joins filters, which is made after it"),
        (lost, "needs a column uid or shard"),
    ):
        relations = (*inputs.relations, Relations(tables=(table,)))
        with pytest.raises(ValueError, match=message):
            built(tmp_path / "w.duckdb", replace(inputs, relations=relations))
