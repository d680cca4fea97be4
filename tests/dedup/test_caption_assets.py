"""The assets of repeated captions: signatures of each shard, and clusters over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.store import Stamp
from tests.caption_clusters import clusters_of_captions
from tests.stages import handed, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LABELS = "synthetic_captions/labels"
TEMPLATE = "holiday photo {} of the harbour at night"
SHARDS: dict[str, list[tuple[str | None, str | None]]] = {
    "a": [("A dog &amp; a cat", "a dog"), ("no caption", "a dog"), (None, None), (TEMPLATE.format(1), "a cat")],
    "b": [("No caption!", "a cow"), ("a  dog & a cat", None), ("", "a tree"), (TEMPLATE.format(2), "A cat.")],
    "c": [("!!!", "a house"), ("something else", "a car")],
}


def uids(shard: str) -> list[str]:
    # In the order of their shards turned round.
    return [f"{100 * (200 - ord(shard)) + row:032x}" for row in range(len(SHARDS[shard]))]


def put(shard: str, captions: Sequence[tuple[str | None, str | None]]) -> None:
    """Store a shard's captions, each the original and the captioner's."""
    same = {"source": "folder", "shard": shard, "image_name": "a.jpg", "status": "ok", "reason": "ok"}
    raw = [
        {"uid": uid, "row": row, "caption": original, **same}
        for row, (uid, (original, _)) in enumerate(zip(uids(shard), captions, strict=True))
    ]
    labels = [
        {"uid": uid, "caption": caption, "finish_reason": "stop", "model": "labels", "flags": None}
        for uid, (_, caption) in zip(uids(shard), captions, strict=True)
    ]
    store = load_settings().opened_store
    for asset, rows, schema in (("raw_samples", raw, RAW_SAMPLES), (LABELS, labels, SYNTHETIC_CAPTIONS)):
        table = pa.Table.from_pylist(rows, schema)
        store.write_table(asset, shard, table, schema, Stamp(str(captions), "1", len(rows)))


def make(shards: str) -> tuple[pa.Table, list[str]]:
    """Make the signatures of these shards and the clusters; returns these, and the shards that were not current."""
    settings, made = load_settings(), []
    for name, partitions in (("caption_signatures", [*shards]), ("caption_duplicates", [None])):
        stage = stage_named(settings, name)
        for partition in partitions:
            work = stage.work(settings.opened_store, partition, [*shards])
            _, metadata, results = stage.make(work, handed(settings, stage))
            assert all(result.passed for result in results.values()), results
            made += [partition] if partition and not metadata["reused"] else []
    return table_of(settings, "caption_duplicates"), made


@pytest.fixture(autouse=True)
def three_shards(data: Path) -> None:
    (data / "dqe.yaml").write_text(
        "sources: [{kind: folder, name: folder, path: photos}]\ncaptioners: [{kind: labels, name: labels}]\n"
    )
    (data / "photos").mkdir()
    for shard, captions in SHARDS.items():
        put(shard, captions)


def expected(shards: str, of: dict[str, list[tuple[str | None, str | None]]]) -> pa.Table:
    rows = [(uid, row) for shard in shards for uid, row in zip(uids(shard), of[shard], strict=True)]
    unescaped = [original and original.replace("&amp;", "&") for _, (original, _) in rows]
    captions = {"original": pa.array(unescaped), "labels": pa.array([caption for _, (_, caption) in rows])}
    return clusters_of_captions(pa.chunked_array([[uid for uid, _ in rows]]), captions, 0.8)


def test_the_clusters_over_all_shards_are_those_of_all_captions_at_once() -> None:
    found, made = make("abc")
    assert made == ["a", "b", "c"]
    assert found.equals(expected("abc", SHARDS))
    sizes = {(row["caption_source"], row["kind"]): row["size"] for row in found.to_pylist()}
    assert sizes == {("original", "exact"): 2, ("original", "near"): 2, ("labels", "exact"): 2, ("labels", "near"): 2}
    assert found.num_rows == 2 * (2 + 3) + 2 * (2 + 2)


def test_a_shard_that_changes_is_read_again_alone_and_one_that_goes_is_gone() -> None:
    make("abc")
    changed = {**SHARDS, "c": [("a dog, a cat", "a house"), ("no caption", "a cow")]}
    put("c", changed["c"])
    found, made = make("abc")
    assert made == ["c"]
    assert found.equals(expected("abc", changed))
    found, made = make("bc")
    assert made == []
    assert found.equals(expected("bc", changed))
    assert found.num_rows


def test_without_captions_there_are_no_clusters() -> None:
    put("a", [(None, None)] * 4)
    assert make("a")[0].num_rows == 0
