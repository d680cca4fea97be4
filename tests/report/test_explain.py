"""A sample at a glance, and how every number of it came to be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filter_steps import filter_steps, is_in_subset
from dqe_assets.filtering.masks import FilterSet, Tally
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.subset import format_uids, read_subset
from dqe_assets.filtering.tables import filter_masks_schema
from dqe_assets.improve.tables import CAPTION_JUDGEMENTS, REFINED_CAPTIONS
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.explain import explanation, glance
from dqe_resources.warehouse import Warehouse
from tests.conftest import dqe
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.report.quality import Section

NAME = "chelsea_03.jpg"


def explained(settings: Settings, image_name: str) -> list[Section]:
    subsets = [f"subsets/{subset.name}" for subset in settings.subsets]
    return explanation(
        settings.warehouse, RELATIONS, image_name, store=settings.opened_store, subsets=subsets, signals={}
    )


def by_title(sections: list[Section]) -> dict[str, list[dict[str, Any]]]:
    return {section.title: section.table.to_pylist() for section in sections}


def fields(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = rows
    return {name: value for name, value in row.items() if value is not None}


def test_judgements_and_rounds_are_told_where_there_are_any(opened: Settings, tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1)
    sample = pq.read_table(store.inputs.assets["raw_samples"][0], columns=["uid", "image_name"]).to_pylist()[0]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    reasons = dict.fromkeys(("faithful", "complete", "fluent", "invents_nothing"), "as it is")
    marks = {"faithful": 4, "complete": 3, "fluent": 5, "invents_nothing": 4, "overall": 4.0, "reasons": reasons}
    request = {"place": 1, "finish_reason": "stop", "model": "judge", "prompt_hash": "0", "finished_at": moment}
    tokens = {"prompt_tokens": 9, "completion_tokens": 9, "attempts": 1}
    asked = {"round": 1, "candidate": 0, "reason": "below", "caption": "a better one", "finish_reason": "stop"}
    found = {"similarity": 0.5, "previous_similarity": 0.1, "accepted": True, "independent": True, "model": "vlm"}
    of_sample = {"uid": sample["uid"], "caption_source": "vlm"}
    made = (
        ("caption_judgements", CAPTION_JUDGEMENTS, marks | request | tokens),
        ("refined_captions", REFINED_CAPTIONS, asked | found),
    )
    assets = dict(store.inputs.assets)
    for asset, schema, row in made:
        path = tmp_path / asset / "photos-00000.parquet"
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist([of_sample | row], schema), path)
        assets[asset] = [path]
    warehouse = Warehouse(path=tmp_path / "made.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, replace(store.inputs, assets=assets)))
    settings = opened.model_copy(update={"warehouse": warehouse})
    tables = by_title(explained(settings, sample["image_name"]))
    assert [(row["caption_source"], row["overall"]) for row in tables["Judgements"]] == [("vlm", 4.0)]
    (answer,) = tables["Asked for again"]
    assert (answer["caption"], answer["accepted"], answer["reason"]) == ("a better one", True, "below")


def test_a_glance_is_the_record_the_captions_and_the_best_of_them(opened: Settings) -> None:
    sections = by_title(glance(opened.warehouse, RELATIONS, NAME))
    assert list(sections) == [f"{NAME} (sample)", "Captions", "Best caption"]
    assert {row["caption_source"] for row in sections["Captions"]} == {"original", "labels"}
    best = fields(sections["Best caption"])
    assert (best["caption_source"], best["reason"], best["independent"]) == ("labels", "highest similarity", False)
    assert best["runner_up_source"] == "original"


def test_every_number_of_an_explanation_says_where_it_is_from(opened: Settings) -> None:
    sections = explained(opened, NAME)
    tables = by_title(sections)
    assert list(tables) == [
        f"{NAME} (sample)", "Measured of the image", "Rights", "Captions", "Synthetic captions", "Text of the captions",
        "Text in the image", "Best caption", "Duplicates", "Repeated captions",
        "Concepts", "Order and weight", "Filters", "Subsets", "Where it is from",
    ]  # fmt: skip
    origin = {row["asset"]: row for row in tables["Where it is from"]}
    shard = fields(tables[f"{NAME} (sample)"])["shard"]
    for section in sections[:-1]:
        for name in section.description.removeprefix("From ").removesuffix(".").split(", "):
            assert name.replace("*", "labels") in origin, (section.title, name)
    for name, row in origin.items():
        partition = row["partition"] if row["partition"] == shard else None
        assert partition or row["partition"] == "all shards"
        stored = opened.opened_store.get(name, partition)
        assert stored is not None
        assert (row["fingerprint"], row["code_version"]) == (stored.stamp.identity, stored.stamp.code_version)
        assert row["in_the_store_now"] == "the same"


def test_the_steps_of_filters_are_what_the_filters_keep(opened: Settings) -> None:
    store = opened.opened_store
    masks = store.get("filter_masks", None)
    assert masks is not None
    facts = masks.stamp.facts
    schema = filter_masks_schema({one["filter"]: one["expression"] for one in facts["filters"]})
    table = store.read("filter_masks", "sample-00001", schema)
    with opened.warehouse.connect() as connection:
        query = "SELECT uid FROM samples WHERE shard = 'sample-00001' AND status = 'ok' ORDER BY uid LIMIT 12"
        uids = [uid for (uid,) in connection.execute(query).fetchall()]
    kept = set()
    for uid in uids:
        steps = filter_steps(store, "sample-00001", uid, facts, {}).to_pylist()
        (expected,) = table.filter(pc.equal(table["uid"], uid)).drop_columns("uid").to_pylist()
        found = {name: all(step["keeps"] for step in steps if step["filter"] == name) for name in expected}
        assert found == expected
        kept.add(found["best"])
        assert any("similarity" in step["measured"] for step in steps)
    assert kept == {True, False}


def test_a_step_that_chooses_over_the_whole_pool_is_asked_of_the_whole_pool(opened: Settings) -> None:
    shards = tuple(f"sample-{index:05d}" for index in range(4))
    pool = StorePool(opened.opened_store, shards)
    expressions = {"few": parse("caption_quality(fraction=0.3) & unique & cover(0.5) & balanced(2, image)")}
    filters = FilterSet.fitted_to(expressions, [pool])
    (part,) = StorePool(opened.opened_store, shards[1:2]).parts
    (table,) = part.batches(tuple(dict.fromkeys(("uid", *filters.columns))))
    tally = Tally(filters)
    leaves = filters.leaves(table)
    tally.add(table.num_rows, leaves, filters.masks(leaves))
    facts = {"shards": list(shards), **tally.facts()}
    expected = filters.masks(leaves)["few"]
    assert expected.any()
    some = [int(np.flatnonzero(expected)[0]), *np.flatnonzero(leaves["caption_quality(fraction=0.3)"] & ~expected)[:2]]
    for row in some:
        steps = filter_steps(opened.opened_store, shards[1], table["uid"][row].as_py(), facts, {}).to_pylist()
        assert all(step["keeps"] for step in steps) == expected[row]


def test_a_sample_is_in_the_subsets_that_hold_it(opened: Settings, finished: Path) -> None:
    path = finished / "subsets" / "best.npy"
    inside = format_uids(np.asarray(read_subset(path))).to_pylist()
    assert all(is_in_subset(path, uid) for uid in inside)
    assert not is_in_subset(path, inside[0][:-1] + ("0" if inside[0][-1] != "0" else "1"))
    with opened.warehouse.connect() as connection:
        (name,) = connection.execute("SELECT image_name FROM samples WHERE uid = ?", [inside[0]]).fetchone() or ("",)
    (row,) = by_title(explained(opened, name))["Subsets"]
    assert (row["subset"], row["in_it"]) == ("subsets/best", "yes")


def test_a_sample_without_an_image_has_only_what_there_is(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        (name, detail) = connection.execute("SELECT image_name, detail FROM failures ORDER BY uid").fetchone() or (
            "",
            "",
        )
    tables = by_title(explained(opened, name))
    assert "Measured of the image" not in tables
    assert "Filters" not in tables
    assert fields(next(iter(tables.values())))["detail"] == detail
    assert fields(tables["Best caption"]) == {"reason": "no image"}


def test_the_same_name_in_several_sources_is_several_samples_and_markup_is_text(
    opened: Settings, tmp_path: Path
) -> None:
    store = make_store(tmp_path, shards=2, captions={0: "[red]no markup[/red] \x1b[2J\x07 [/b]"})
    for number, file in enumerate(store.inputs.assets["raw_samples"]):
        table = pq.ParquetFile(file).read()
        rows = table.to_pylist()
        rows[0] |= {"image_name": "same [b].jpg", "source": f"source{number}"}
        pq.write_table(table.from_pylist(rows, table.schema), file)
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    settings = opened.model_copy(update={"warehouse": warehouse})
    titles = [section.title for section in explained(settings, "same [b].jpg")]
    assert [title for title in titles if title.startswith("same")] == [
        "same [b].jpg (source0)",
        "same [b].jpg (source1)",
    ]
    assert titles.count("Where it is from") == 2
    origin = by_title(explained(settings, "same [b].jpg"))["Where it is from"]
    assert {row["in_the_store_now"] for row in origin if row["partition"] == "photos-00001"} == {"gone"}
    with pytest.raises(ValueError, match=r"no sample is named same\.jpg; near it: 'same \[b\]\.jpg', "):
        explained(settings, "same.jpg")


def test_the_command_prints_what_captions_hold_as_text(data: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1, captions={0: "[red]no markup[/red] \x1b[2J\x07 [/b]"})
    warehouse = Warehouse(path=data / "warehouse.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    for command in ("get", "explain"):
        done = dqe(data, command, "photos/0000.jpg")
        assert done.returncode == 0, done.stderr
        assert "[red]no markup[/red]" in done.stdout
        assert not {"\x1b", "\x07"} & set(done.stdout)
    assert done.stdout.splitlines()[-1] == "Next: dqe search --like photos/0000.jpg"
