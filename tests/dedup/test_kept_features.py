"""What is kept of each shard: the same pairs whatever came when, nearly all that there are, and any kill is mended."""

from __future__ import annotations

import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.dedup import assets, kept_features
from dqe_assets.dedup.codebook import codes, plan_for
from dqe_assets.dedup.semantic import semantic_pairs
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.orchestration.takedowns import left_of
from dqe_resources.store import Stamp
from tests.stages import handed, stage_named

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 150
SHARDS = [f"photos-0000{number}" for number in range(6)]


def vectors(seed: int) -> np.ndarray:
    """Of a shard: around topics that all shards share, every third a copy, more or less like it, of another shard's."""
    topics = np.random.default_rng(0).normal(size=(12, 300))
    rng = np.random.default_rng([seed, 1])
    found = topics[rng.integers(12, size=ROWS)] + rng.normal(size=(ROWS, 300))
    if seed:
        copied = vectors(seed - 1)[: ROWS // 3].astype(np.float64)
        noise = rng.normal(size=copied.shape) * rng.uniform(0, 0.9, (len(copied), 1))
        found[: ROWS // 3] = copied + noise
    return found.astype(np.float16)


def put(shard: str, seed: int) -> None:
    """Store a shard; its first image is no image, its second has no features."""
    uids = [f"{(row * 7919 + seed * 104729) % 1_000_003:032x}" for row in range(ROWS)]
    raw = {
        **dict.fromkeys(["uid", "image_name", "sha256"], uids),
        **dict.fromkeys(["status", "reason"], ["ok"] * ROWS),
        "source": ["photos"] * ROWS,
        "shard": [shard] * ROWS,
        "row": np.arange(ROWS),
    }
    hashes = np.random.default_rng(seed).integers(0, 2**64, ROWS, np.uint64).tolist()
    features = {
        "uid": uids,
        "embedding": [None, None, *vectors(seed)[2:]],
        "pixel_digest": [None, *uids[1:]],
        "perceptual_hash": pa.array([None, *hashes[1:]], pa.uint64()),
        "contrast": [0.2] * ROWS,
    }
    store = load_settings().opened_store
    for asset, columns, schema in (("raw_samples", raw, RAW_SAMPLES), ("image_features", features, IMAGE_FEATURES)):
        arrays = [
            pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(ROWS, field.type)
            for field in schema
        ]
        store.write_table(asset, shard, pa.table(arrays, schema=schema), schema, Stamp(f"{seed}", "1", ROWS))


def make(shards: list[str], asset: str = "duplicate_pairs") -> pa.Table:
    settings = load_settings()
    stage = stage_named(settings, asset)
    work = stage.work(settings.opened_store, None, shards)
    _, _, results = stage.make(work, handed(settings, stage))
    assert all(result.passed for result in results.values()), results
    return work.read_unpartitioned(asset)


def forget(data: Path) -> None:
    shutil.rmtree(data / "duplicates", ignore_errors=True)
    for asset in ("duplicate_pairs", "duplicate_clusters"):
        shutil.rmtree(data / "store" / asset, ignore_errors=True)


@pytest.fixture
def shards(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Six stored shards, of which three are few enough that all pairs are tried."""
    (data / "dqe.yaml").write_text("sources: [{kind: folder, name: photos, path: photos}]\n")
    (data / "photos").mkdir()
    for seed, shard in enumerate(SHARDS):
        put(shard, seed)
    monkeypatch.setattr(assets, "EXACT_BELOW", 450)
    return SHARDS


def test_the_pairs_are_the_same_whatever_the_order_in_which_shards_come_change_and_go(
    shards: list[str], data: Path
) -> None:
    whole = make(shards)
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 4, 0, 2]):
        forget(data)
        for count in range(1, 7):
            found = make(sorted(shards[number] for number in order[:count]))
        assert found.equals(whole)
    # Four shards are still searched in buckets; and the first, which they depend on, changes.
    put(shards[0], 11)
    fewer = make(shards[:3] + shards[4:])
    assert not fewer.equals(whole)
    forget(data)
    assert make(shards[:3] + shards[4:]).equals(fewer)


def test_clusters_know_the_cosines_of_shards_that_stay(
    shards: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    rows_of = kept_features.ShardedVectors.__getitem__

    def counted(self: kept_features.ShardedVectors, rows: Any) -> Any:
        read.append(rows.size)
        return rows_of(self, rows)

    monkeypatch.setattr(kept_features.ShardedVectors, "__getitem__", counted)

    def clusters(some: list[str]) -> tuple[pa.Table, int]:
        make(some)
        read.clear()
        return make(some, "duplicate_clusters"), sum(read)

    clusters(shards[:5])
    found, few = clusters(shards)
    put(shards[1], 11)
    changed, _ = clusters(shards)
    forget(data)
    assert clusters(shards)[0].equals(changed)
    put(shards[1], 1)
    forget(data)
    whole, all_of_them = clusters(shards)
    assert whole.equals(found)
    assert few < all_of_them


def test_nearly_every_pair_is_found_and_no_other(
    shards: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make(shards)
    forget(data)
    monkeypatch.setattr(assets, "EXACT_BELOW", 10_000)
    true = make(shards)
    rows, wanted = ({tuple(row.values()) for row in table.to_pylist()} for table in (found, true))
    assert rows <= wanted
    assert len([row for row in wanted if row[0] == "semantic"]) > 150
    assert len(rows) >= 0.99 * len(wanted)


def test_a_kill_at_any_moment_is_mended_by_the_next_run(
    shards: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, whole = make(shards[:5]), make(shards)
    write = kept_features.replace_file
    written = 0
    while True:
        forget(data)
        assert make(shards[:5]).equals(before)
        left = written

        def killed(*arguments: Any) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            write(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(kept_features, "replace_file", killed)
            try:
                assert make(shards).equals(whole)
                break
            except KeyboardInterrupt:
                written += 1
        assert make(shards).equals(whole)
    # A shard's vectors, codes, table and buckets.
    assert written == 4


def test_only_the_files_of_the_present_shards_stay(shards: list[str], data: Path) -> None:
    make(shards)
    put(shards[2], 12)
    make(shards[:4])
    names = [path.name for path in (data / "duplicates").iterdir()]
    assert {name.partition(".")[0] for name in names if "codebook" not in name} == set(shards[:4])
    # Vectors, codes, a table and the buckets of each, and one codebook.
    assert len(names) == 4 * 4 + 1


def test_what_left_a_shard_is_in_no_file_any_more(shards: list[str]) -> None:
    make(shards)
    settings = load_settings()
    uids = settings.opened_store.read("raw_samples", shards[1], RAW_SAMPLES, ["uid"])["uid"].to_pylist()
    # The first is no image.
    assert [count for _, count in kept_features.places_of(uids[:3])] == [2]
    left = left_of(settings, "uid", uids[1]).places
    assert [place for place in left if "duplicates" in place and ".arrow" in place]
    put(shards[1], 13)
    make(shards)
    assert kept_features.places_of(uids[:3]) == []


def test_a_codebook_changes_only_where_the_rows_have_become_four_times_as_many() -> None:
    sizes = {f"photos-{number:05d}": 10_000 for number in range(400)}
    plans = [plan_for(dict(list(sizes.items())[:count]), 20_000) for count in range(1, 401)]
    changed = [count for count, (one, other) in enumerate(pairwise(plans), 2) if one != other]
    assert plans[1] is None
    assert changed == [3, 8, 32, 128]
    # Of two sources, rows of both.
    both = plan_for(sizes | {"web-00000": 10_000}, 20_000)
    assert both is not None
    assert both.shards[:3] == ("photos-00000", "web-00000", "photos-00001")


def test_codes_keep_what_is_alike_and_of_short_vectors_all() -> None:
    rng = np.random.default_rng(0)
    some = rng.normal(size=(500, 600))
    alike = some + rng.normal(size=some.shape) * 0.3
    cosine = np.einsum("ij,ij->i", some, alike) / np.linalg.norm(some, axis=1) / np.linalg.norm(alike, axis=1)
    of_codes = np.einsum("ij,ij->i", codes(some).astype(np.float64), codes(alike).astype(np.float64))
    assert np.abs(of_codes - cosine).max() < 5 * (1 - cosine.min() ** 2) / 128**0.5
    short = rng.normal(size=(20, 16))
    assert np.allclose(codes(short), short / np.linalg.norm(short, axis=1, keepdims=True), atol=1e-3)


def test_vectors_in_many_files_are_those_of_one_array(shards: list[str]) -> None:
    make(shards)
    settings = load_settings()
    work = stage_named(settings, "duplicate_pairs").work(settings.opened_store, None, shards)
    tables = [work.of_shard(shard).read("image_features", ["uid", "embedding"]) for shard in shards]
    table = pa.concat_tables(tables)
    uids = pa.chunked_array([table["uid"].combine_chunks(), pa.array(["nobody"])])
    features = kept_features.features_of(work, assets._versions(work), uids)
    found = features.vectors[np.arange(len(uids))]
    assert np.array_equal(features.directed, found.any(axis=1))
    assert features.shard.tolist()[2:ROWS] == [0] * (ROWS - 2)
    assert features.shard[-1] == -1
    expected = [np.zeros(300) if one is None else np.array(one) for one in table["embedding"].to_pylist()]
    assert np.array_equal(found[:-1], np.array(expected, np.float16))
    assert not found[-1].any()
    pairs, _ = semantic_pairs(found[:-1], 0.85)
    assert len(pairs.all)
