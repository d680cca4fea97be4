"""The assets of duplicates: what is known is kept, what changed is looked at again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.dedup import assets
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.store import Stamp
from tests.stages import handed, stage_named

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.core.stage import Stage
    from dqe_assets.core.work import Work

PHOTOS = np.random.default_rng(0).normal(size=(9, 64)).astype(np.float16)
HASHES = np.random.default_rng(0).integers(0, 2**64, 9, np.uint64).tolist()


def put(shard: str, *photos: int) -> None:
    """Store a shard of these photos, each a number; its samples' uids are of the shard and the place in it."""
    raw = [
        {
            "uid": f"{place}-{shard}",
            "source": "folder",
            "shard": shard,
            "row": place,
            "image_name": f"{photo}.jpg",
            "sha256": str(photo),
            "width": 100,
            "height": 100,
            "status": "ok",
            "reason": "ok",
        }
        for place, photo in enumerate(photos)
    ]
    features = [
        {
            "uid": row["uid"],
            "embedding": PHOTOS[photo],
            "pixel_digest": str(photo),
            "perceptual_hash": HASHES[photo],
            "contrast": 0.2,
        }
        for row, photo in zip(raw, photos, strict=True)
    ]
    store = load_settings().opened_store
    for asset, rows, schema in (("raw_samples", raw, RAW_SAMPLES), ("image_features", features, IMAGE_FEATURES)):
        table = pa.Table.from_pylist(rows, schema)
        store.write_table(asset, shard, table, schema, Stamp(str(photos), "1", len(rows)))


def prepared(name: str, shards: str) -> tuple[Stage, Work]:
    settings = load_settings()
    stage = stage_named(settings, name)
    return stage, stage.work(settings.opened_store, None, list(shards))


def make(shards: str, name: str = "duplicate_pairs", *, force: bool = False) -> pa.Table:
    stage, work = prepared(name, shards)
    _, _, results = stage.make(work, handed(load_settings(), stage), force=force)
    assert all(result.passed for result in results.values()), results
    return work.read_unpartitioned(name)


@pytest.fixture
def known(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Three stored shards, of which two hold the same photo; and how many samples were known at each search."""
    (data / "dqe.yaml").write_text("sources: [{kind: folder, name: folder, path: photos}]\n")
    (data / "photos").mkdir()
    put("a", 0, 1)
    put("b", 2, 0)
    put("c", 3, 4)
    counted: list[int] = []
    find = assets.find_pairs

    def counting(samples: pa.Table, *arguments: object, unchanged: np.ndarray, **options: object) -> pa.Table:
        counted.append(int(unchanged.sum()))
        return find(samples, *arguments, unchanged=unchanged, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(assets, "find_pairs", counting)
    return counted


def exact(pairs: pa.Table) -> list[tuple[str, str]]:
    return [(row["uid_a"], row["uid_b"]) for row in pairs.to_pylist() if row["kind"] == "exact"]


def test_only_what_changed_is_looked_at_and_the_file_is_that_of_a_full_run(known: list[int], data: Path) -> None:
    assert exact(make("abc")) == [("0-a", "1-b")]
    put("d", 0, 5)
    assert exact(make("abcd")) == [("0-a", "0-d"), ("0-a", "1-b")]
    put("a", 6, 7)
    assert exact(make("abcd")) == [("0-d", "1-b")], "the first of the three has gone, the others are still equal"
    assert exact(make("abd")) == [("0-d", "1-b")]
    assert known == [0, 6, 6, 6]
    path = data / "store" / "duplicate_pairs" / "all.parquet"
    content = path.read_bytes()
    make("abd", force=True)
    assert known[-1] == 0, "forced, nothing is taken from before"
    assert path.read_bytes() == content


def test_another_rule_or_other_code_drops_what_is_known(
    known: list[int], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("ab")
    with (data / "dqe.yaml").open("a") as file:
        file.write("duplicates: {max_distance: 4}\n")
    make("ab")
    monkeypatch.setattr(assets, "_PAIRS_VERSION", "another")
    make("abc")
    assert known == [0, 0, 0]


def test_killed_while_pairs_are_looked_for_the_old_ones_are_whole(
    known: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make("ab")

    def killed(*_: object, **__: object) -> pa.Table:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(assets, "find_pairs", killed)
        with pytest.raises(KeyboardInterrupt):
            make("abc")
    assert prepared("duplicate_pairs", "ab")[1].read("duplicate_pairs").equals(before)
    make("abc")
    assert known == [0, 4]


def test_what_is_kept_is_chosen_again_without_a_new_search(known: list[int], data: Path) -> None:
    make("abc")
    kept = make("abc", "duplicate_clusters")
    assert set(kept["representative"].to_pylist()) == {"0-a"}
    with (data / "dqe.yaml").open("a") as file:
        file.write("duplicates: {representative: earliest}\n")
    stage, work = prepared("duplicate_pairs", "abc")
    assert stage.current(work, handed(load_settings(), stage)) is not None
    stage, work = prepared("duplicate_clusters", "abc")
    assert stage.current(work, handed(load_settings(), stage)) is None
    assert make("abc", "duplicate_clusters").equals(kept)
    assert known == [0]
