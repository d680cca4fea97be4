"""The map of a store that changes: what is new is read and placed, and the rest stays about where it is."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.core.arrow import from_matrix
from dqe_assets.core.work import facts_of, with_facts
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.orchestration.takedowns import left_of
from dqe_assets.score.tables import CAPTION_SCORES, JOINT_EMBEDDINGS
from dqe_assets.search import kept_map, map_assets
from dqe_assets.search.topics import neighbours_kept
from dqe_resources.store import Stamp
from tests.stages import handed, stage_named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = 100
MOST = 300
SHARDS = [f"photos-0000{number}" for number in range(5)]


def put(shard: str, seed: int) -> None:
    """Store a shard around topics that all shards share; its first row has no image."""
    rng = np.random.default_rng([seed, 1])
    topics = np.random.default_rng(0).normal(size=(8, 24))
    vectors = topics[rng.integers(8, size=ROWS)] + 0.7 * rng.normal(size=(ROWS, 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    uids = [f"{(row * 7919 + seed * 104729) % 1_000_003:032x}" for row in range(ROWS)]
    captions = [f"photo {row} of shard {seed}" for row in range(ROWS)]
    both = [uid for uid in uids for _ in range(2)]
    tables = {
        "raw_samples": {"uid": uids, "caption": captions, "source": ["photos"] * ROWS, "shard": [shard] * ROWS}
        | {"row": np.arange(ROWS), "image_name": uids, "status": ["ok"] * ROWS, "reason": ["ok"] * ROWS},
        "joint_embeddings": {
            "uid": both,
            "item": ["image", "original"] * ROWS,
            "embedding": from_matrix(np.repeat(vectors, 2, axis=0)[1:], np.arange(1, 2 * ROWS), 2 * ROWS, pa.float16()),
        },
        "caption_scores": {"uid": uids, "caption_source": ["original"] * ROWS, "similarity": rng.random(ROWS)},
    }
    store = load_settings().opened_store
    for asset, schema in (
        ("raw_samples", RAW_SAMPLES),
        ("joint_embeddings", JOINT_EMBEDDINGS),
        ("caption_scores", CAPTION_SCORES),
    ):
        rows = len(tables[asset]["uid"])
        columns = [
            pa.array(tables[asset][field.name], field.type)
            if field.name in tables[asset]
            else pa.nulls(rows, field.type)
            for field in schema
        ]
        store.write_table(asset, shard, pa.table(columns, schema=schema), schema, Stamp(f"{seed}", "1", rows))


def make(shards: Sequence[str], *, force: bool = False) -> pa.Table:
    settings = load_settings()
    stage = stage_named(settings, "collection_map")
    work = stage.work(settings.opened_store, None, sorted(shards))
    stored, _, results = stage.make(work, handed(settings, stage), force=force)
    assert all(result.passed for result in results.values()), results
    return with_facts(work.read_unpartitioned("collection_map"), stored.stamp.facts)


def places(table: pa.Table) -> dict[str, tuple[float, float]]:
    return {row["uid"]: (row["x"], row["y"]) for row in table.to_pylist()}


@pytest.fixture
def shards(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five stored shards, and maps of 300 samples of which as few as 50 stay where they are."""
    (data / "dqe.yaml").write_text("sources: [{kind: folder, name: photos, path: photos}]\nmap: {samples: 300}\n")
    (data / "photos").mkdir()
    for seed, shard in enumerate(SHARDS):
        put(shard, seed)
    monkeypatch.setattr(map_assets, "_ANEW_BELOW", 50)
    return SHARDS


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards whose vectors are read, as they are."""
    found: list[str] = []
    samples_of = kept_map._samples_of

    def reading(work, limit):
        found.append(work.partition)
        return samples_of(work, limit)

    monkeypatch.setattr(kept_map, "_samples_of", reading)
    return found


def test_one_more_shard_is_read_alone_and_put_among_the_rest(shards, read, data):
    before = make(shards[:4])
    assert read == shards[:4]
    assert facts_of(before) == {**facts_of(before), "embedded": 396, "laid_out_of": 396, "stayed": 0}
    read.clear()
    after = make(shards)
    assert read == shards[4:]
    facts = facts_of(after)
    assert facts["embedded"] == 495
    assert facts["laid_out_of"] == 396
    old, new = places(before), places(after)
    there = [uid for uid in new if uid in old]
    assert 200 < len(there) == facts["stayed"] < len(after) == MOST
    moved = np.array([new[uid] for uid in there]) - np.array([old[uid] for uid in there])
    spread = np.array(list(old.values())).std()
    assert np.median(np.linalg.norm(moved, axis=1)) < 0.3 * spread
    # Another run has nothing to place; and one from nothing has the same samples and topics.
    shutil.rmtree(data / "store" / "collection_map")
    assert make(shards).equals(after)
    anew = make(shards, force=True)
    assert anew.drop_columns(["x", "y"]).equals(after.drop_columns(["x", "y"]))
    assert facts_of(anew)["stayed"] == 0
    assert facts["neighbours_kept"] > 0.9 * facts_of(anew)["neighbours_kept"] > 0.2
    shutil.rmtree(data / "store" / "collection_map")
    (data / "map" / "samples.arrow").write_bytes(b"damaged")
    assert make(shards).equals(anew)


def test_few_new_samples_move_no_other_until_they_are_many(shards, monkeypatch):
    monkeypatch.setattr(map_assets, "_SETTLED_FROM", 0.4)
    before, after = places(make(shards[:4])), make(shards)
    old, new = ({uid: one[uid] for uid in one if uid in before} for one in (before, places(after)))
    assert all(old[uid] == place for uid, place in new.items())
    assert facts_of(after)["neighbours_kept"] > 0.2
    # What was put among the others before counts too.
    put(shards[0], 100)
    settled = places(make(shards))
    assert all(settled[uid] != place for uid, place in new.items() if uid in settled)


def test_a_store_that_shrinks_or_grows_by_half_or_changes_is_laid_out_anew(shards, read):
    make(shards)
    read.clear()
    # What is kept is not enough for it.
    fewer = make(shards[:4])
    assert read == shards[:4]
    assert 0 < facts_of(fewer)["stayed"] < MOST
    assert facts_of(make(shards[:3]))["stayed"] == 0
    assert facts_of(make(shards))["stayed"] == 0
    for seed, shard in enumerate(shards):
        put(shard, seed + 100)
    changed = make(shards)
    assert facts_of(changed)["stayed"] == 0
    assert make(shards, force=True).equals(changed)


def test_a_sample_whose_image_changed_gets_another_place(shards):
    make(shards[:3])
    put(shards[1], 101)
    found = make(shards[:3])
    assert facts_of(found)["stayed"] == 198


def test_what_left_a_shard_is_in_the_file_no_more(shards):
    make(shards)
    settings = load_settings()
    uids = settings.opened_store.read("raw_samples", shards[1], RAW_SAMPLES, ["uid"])["uid"].to_pylist()
    ((path, count),) = kept_map.places_of(uids)
    assert 0 < count < ROWS
    (one,) = [uid for uid in uids if kept_map.places_of([uid])][:1]
    assert [place for place in left_of(settings, "uid", one).places if str(path) in place]
    put(shards[1], 101)
    make(shards)
    assert kept_map.places_of([one]) == []


def test_a_map_that_keeps_all_neighbours_says_so_and_one_that_keeps_none():
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, np.pi, 1_200)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert neighbours_kept(circle, circle) > 0.99
    assert neighbours_kept(circle, rng.permutation(circle)) < 0.05
    assert neighbours_kept(circle[:10], circle[:10]) is None
