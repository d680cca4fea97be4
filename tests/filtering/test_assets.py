from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS
from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.subset import format_uids, read_subset
from dqe_assets.filtering.tables import filter_masks_schema
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.settings import Settings, SettingsError, load_settings
from dqe_assets.score.tables import CAPTION_SCORES
from tests.filtering.make_pool import table, write_part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHARDS = tuple(f"sample-{index:05d}" for index in range(4))
MADE = [
    *("raw_samples", "image_features", "joint_embeddings", "caption_scores", "text_quality", "image_text"),
    *(
        "masked_similarity",
        "reviews",
        "reviewed_caption_scores",
        "best_captions",
        "duplicate_pairs",
        "duplicate_clusters",
        "filter_masks",
    ),
]
NOT_REPORTED = {"sample_gallery"}


def reported() -> list[str]:
    return [stage.name for stage in graph.stages(load_settings()) if stage.name not in NOT_REPORTED]


def masks_of(settings: Settings, shards: Sequence[str]) -> pa.Table:
    stored = settings.opened_store.get("filter_masks", None)
    assert stored is not None
    schema = filter_masks_schema({one["filter"]: one["expression"] for one in stored.stamp.facts["filters"]})
    return pa.concat_tables(settings.opened_store.read("filter_masks", shard, schema) for shard in shards)


def kept(masks: pa.Table, name: str) -> set[str]:
    return set(masks.filter(masks[name])["uid"].to_pylist())


def test_each_default_filter_keeps_what_its_definition_says(opened: Settings) -> None:
    store = opened.opened_store
    raw = pa.concat_tables(store.read("raw_samples", shard, RAW_SAMPLES) for shard in SHARDS)
    masks = masks_of(opened, SHARDS)
    assert masks["uid"].equals(raw["uid"])
    assert masks.column_names == ["uid", "basic", "best_30", "best", "unique"]
    with_image = set(raw.filter(pc.equal(raw["status"], "ok"))["uid"].to_pylist())

    scores = pa.concat_tables(store.read("caption_scores", shard, CAPTION_SCORES) for shard in SHARDS)
    original = scores.filter(pc.equal(scores["caption_source"], "original"))
    similarity = dict(zip(original["uid"].to_pylist(), original["similarity"].to_pylist(), strict=True))
    ranked = sorted((similarity[uid] for uid in with_image if similarity[uid] is not None), reverse=True)
    threshold = ranked[int(len(with_image) * 0.3)]
    assert kept(masks, "best_30") == {uid for uid in with_image if (similarity[uid] or -1) >= threshold}

    clusters = store.read("duplicate_clusters", None, DUPLICATE_CLUSTERS)
    copies = clusters.filter(pc.and_(pc.equal(clusters["kind"], "any"), pc.invert(clusters["is_representative"])))
    assert kept(masks, "unique") == with_image - set(copies["uid"].to_pylist())

    for row in raw.drop_columns("image").to_pylist():
        if row["uid"] in kept(masks, "basic"):
            assert len(row["caption"].split()) > 2
            assert len(row["caption"]) > 5
            smaller, larger = sorted((row["width"], row["height"]))
            assert smaller >= 200
            assert larger / smaller <= 3
    assert kept(masks, "best") == kept(masks, "basic") & kept(masks, "best_30")


def test_the_subset_is_what_its_expression_keeps_with_a_manifest_of_how_it_came_to_be(opened: Settings) -> None:
    uids = read_subset(subset_path("best"))
    assert set(format_uids(uids).to_pylist()) == kept(masks_of(opened, SHARDS), "best")
    manifest = json.loads(subset_path("best").with_suffix(".json").read_text())
    assert manifest["expression"] == "basic_filter() & caption_quality(fraction=0.3)"
    assert manifest["uids"] == len(uids)
    assert [step["kept"] for step in manifest["filters"][0]["steps"]] == [142, 55]
    assert {file["path"] for file in manifest["pools"][0]["files"]} == {
        f"{asset}/{shard}" for asset in ("raw_samples", "caption_scores", "reviews") for shard in SHARDS
    }
    assert [leaf.get("threshold") is None for leaf in manifest["leaves"]] == [True, False]


def test_filters_find_what_was_planted(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        found = {
            (name, planted): share
            for name, planted, share in connection.sql("SELECT filter, planted, share FROM filter_planted").fetchall()
        }
        precision, recall = connection.sql("SELECT precision, recall FROM filters WHERE filter = 'basic'").fetchall()[0]
    for planted in ("caption: other language", "caption: one_word", "caption: empty", "image: tiny"):
        assert found["basic", planted] == 0
    assert found["basic", "image: extreme_aspect"] == 0
    assert found["basic", "caption: file_name"] < 0.1
    assert found["basic", "caption: other_photo"] > 0.9, "it looks at no image"
    assert found["best_30", "caption: other_photo"] < 0.05
    assert found["unique", "image: exact_copy"] == 0
    assert recall > 0.95
    assert precision > 0.65


@pytest.fixture
def photos(data: Path) -> Path:
    """Six photos in two shards, the last two without a caption."""
    folder = data / "photos"
    folder.mkdir()
    write_photos(folder, range(6))
    for number in (4, 5):
        (folder / f"{number}.txt").unlink()
    configure(data)
    return folder


def write_photos(folder: Path, numbers: range) -> None:
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"a picture of coloured noise on a wall, number {number}")


def configure(data: Path, **settings: object) -> None:
    sources = [{"kind": "folder", "name": "noise", "path": "photos", "shard_size": 3}]
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": sources, "captioners": [], **settings}, sort_keys=False))


def make(*assets: str) -> list[str]:
    """Make assets as a run does, without Dagster and pictures; says which blocking checks failed."""
    settings, failed = load_settings(), []
    shards = shards_of(settings)
    for stage in graph.stages(settings):
        if stage.name in assets or not assets:
            arguments = stage.arguments(graph.resources(settings) | models())
            for shard in shards if stage.partitioned else [None]:
                work = stage.work(settings.opened_store, shard, shards)
                stored, _, results = replace(stage, metadata=None).make(work, arguments)
                failed += [f"{stage.name}: {name}: {results[name].description}" for name in stored.stamp.failed_checks]
    return failed


@cache
def models() -> dict[str, object]:
    """The models, loaded once for all tests."""
    settings = load_settings()
    return {"image_model": settings.image_model, "scorer": settings.scorer}


def shards_of(settings: Settings) -> list[str]:
    return [source.key(shard.index) for source in settings.sources for shard in source.shards()]


def state(asset: str) -> str:
    settings = load_settings()
    stage = next(one for one in graph.stages(settings) if one.name == asset)
    return runner.state(settings, stage, None, shards_of(settings))


def test_a_new_shard_makes_every_shards_masks_again(photos: Path) -> None:
    configure(photos.parent, filters={"half": "caption_quality(fraction=0.5)"}, subsets=[])
    assert make(*MADE) == []
    before = masks_of(load_settings(), ["noise-00000", "noise-00001"])
    assert len(kept(before, "half")) == 4, "n + 1 of 6, as DataComp counts"
    assert state("filter_masks") == "current"

    write_photos(photos, range(6, 12))
    make(*MADE[:-1])
    assert state("filter_masks") == "stale"
    assert make(*MADE) == []
    after = masks_of(load_settings(), [f"noise-0000{index}" for index in range(4)])
    assert (after.num_rows, len(kept(after, "half"))) == (12, 7)

    (photos.parent / "store" / "filter_masks" / "noise-00001.parquet").unlink()
    assert state("filter_masks") == "stale", "a file that is gone is missed"
    make(*MADE)
    assert masks_of(load_settings(), [f"noise-0000{index}" for index in range(4)]).equals(after)


def test_other_filters_make_other_columns_and_no_image_again(photos: Path) -> None:
    configure(photos.parent, filters={"all": "no_filter"}, subsets=[{"name": "mine", "expression": "all"}])
    assert make(*reported()) == []
    features = photos.parent / "store" / "image_features" / "noise-00000.parquet"
    before = features.stat().st_mtime_ns
    named = {"wide": "sql('width > height')", "none": "~wide"}
    configure(photos.parent, filters=named, subsets=[{"name": "mine", "expression": "~none"}])
    assert make(*reported()) == []
    assert features.stat().st_mtime_ns == before
    settings = load_settings()
    assert masks_of(settings, ["noise-00000"]).column_names == ["uid", "wide", "none"]
    with settings.warehouse.connect() as connection:
        assert connection.sql("SELECT filter, kept FROM filters").fetchall() == [("none", 0), ("wide", 6)]
        assert connection.sql("SELECT count(*) FROM filter_masks WHERE wide AND NOT none").fetchall() == [(6,)]
    assert len(read_subset(subset_path("mine"))) == 6


def test_without_any_caption_or_filter_everything_else_is_still_made(photos: Path) -> None:
    for caption in photos.glob("*.txt"):
        caption.unlink()
    configure(photos.parent, subsets=[])
    assert make(*reported()) == []
    assert kept(masks_of(load_settings(), ["noise-00000", "noise-00001"]), "best_30") == set()
    configure(photos.parent, filters={}, subsets=[])
    assert make(*reported()) == []
    with load_settings().warehouse.connect() as connection:
        assert connection.sql("SELECT count(*) FROM filter_masks").fetchall() == [(6,)]
        for name in ("filters", "filter_overlap", "filter_funnel", "filter_planted"):
            assert connection.sql(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]


def test_without_looking_for_text_everything_else_is_made(photos: Path) -> None:
    configure(photos.parent, image_text=None)
    assert {"image_text", "masked_similarity"}.isdisjoint(reported())
    assert make(*reported()) == []
    with load_settings().warehouse.connect() as connection:
        assert connection.sql("SELECT count(*) FROM image_text").fetchall() == [(0,)]
        assert connection.sql("SELECT count(*) FROM best_captions").fetchall() == [(6,)]
        assert connection.sql("SELECT count(*) FROM filter_masks WHERE basic").fetchall() == [(4,)]
    configure(photos.parent, image_text=None, filters={"read": "tmars(0.5)"}, subsets=[])
    with pytest.raises(SettingsError, match=r"filters\.read: reads masked_similarity, .* with image_text: null"):
        load_settings()


def test_a_subset_of_several_pools_says_the_share_of_each_and_keeps_what_both_have_once(photos: Path) -> None:
    configure(photos.parent, subsets=[])
    assert make(*MADE) == []
    own = masks_of(load_settings(), ["noise-00000", "noise-00001"])["uid"].to_pylist()
    metadata = table(20)
    uids = [*own[:2], *metadata["uid"].to_pylist()[2:]]
    write_part(photos.parent / "commonpool", "00000000", metadata.set_column(0, "uid", pa.array(uids)))
    configure(photos.parent, subsets=[{"name": "both", "expression": "no_filter", "pools": ["store", "commonpool"]}])
    assert make(*MADE, "subsets/both") == []
    assert set(format_uids(read_subset(subset_path("both"))).to_pylist()) == {*own, *uids}
    manifest = json.loads(subset_path("both").with_suffix(".json").read_text())
    assert manifest["collisions"] == 2
    assert [(pool["name"], pool["kept"], pool["share"]) for pool in manifest["pools"]] == [
        ("store", 6, 0.25), ("commonpool", 18, 0.75)
    ]  # fmt: skip

    assert state("subsets/both") == "current"
    write_part(photos.parent / "commonpool", "00000001", table(5, seed=1))
    assert state("subsets/both") == "stale", "a new file of another pool is seen"
    assert make("subsets/both") == []
    assert len(read_subset(subset_path("both"))) == 29
    subset_path("both").unlink()
    assert state("subsets/both") == "stale", "a subset that is gone is missed"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"filters": {"basic": "basci_filter"}},
            r"filters\.basic: there is no filter basci_filter .* Did you mean basic_filter\?",
        ),
        ({"filters": {"a": "b", "b": "a"}}, r"filters\.a: . is defined by itself"),
        ({"filters": {"deduplicated": "no_filter"}}, "filters: the name 'deduplicated' is that of a built-in filter"),
        ({"filters": {"datacomp_1b": "no_filter"}}, "give yours another name than: balanced, basic, "),
        ({"filters": {"uid": "no_filter"}}, "filters: the name 'uid' is reserved"),
        ({"filters": {"A b": "no_filter"}}, "filters.A b"),
        ({"subsets": [{"name": "x", "expression": "basic &"}]}, r"subsets\.x: not an expression"),
        ({"subsets": [{"name": "x", "expression": "basic"}] * 2}, "subsets: two subsets have the name 'x'; rename one"),
        ({"subsets": [{"name": "../x", "expression": "basic"}]}, r"subsets\.0\.name"),
        ({"subsets": [{"name": "x", "expression": "basic", "pools": []}]}, r"subsets\.0\.pools"),
    ],
)
def test_wrong_filters_and_subsets_are_refused_when_the_settings_are_loaded(
    data: Path, settings: dict[str, object], message: str
) -> None:
    configure(data, **settings)
    (data / "photos").mkdir()
    with pytest.raises(SettingsError, match=message):
        load_settings()
