"""A folder of photos of which some are copies of those of a reference set, gone through the assets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import ImageOps

from dqe_assets.contamination import plots
from dqe_assets.contamination.pictures import REFERENCE_PREFIX, pairs, reference_pictures
from dqe_assets.contamination.planted import COPIES, figures
from dqe_assets.contamination.tables import CONTAMINATION, PLANTED_COPIES, REFERENCE_FEATURES
from dqe_assets.core.figures import jpeg
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters.protocol import FilterError
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings, SettingsError, load_settings
from dqe_assets.publish import card
from dqe_assets.publish.selection import select
from dqe_assets.report.build_warehouse import WarehouseInputs, build_warehouse
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_resources import images
from dqe_resources.sources.sample_images.photos import PHOTOS
from dqe_resources.sources.sample_images.plants import make
from tests.conftest import environment, make_data_folder
from tests.evaluation.made_tasks import classification, picture, retrieval
from tests.stages import checked, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELD_OUT = ("astronaut", "rocket", "pagoda", "chelsea")
OTHERS = ("coffee", "guitar", "tent")
ANSWER = "a question that nobody may have read before, with its answer"
SHARD = "mine-00000"
SETTINGS = """
sources: [{kind: folder, name: mine, path: mine}]
captioners: []
image_text: null
reference_sets:
  - {kind: folder, name: held_out, path: held_out}
  - colours
  - {kind: task, name: pairs}
evaluation:
  tasks: [{path: tasks/colours}, {path: tasks/pairs}]
filters: {clean: ~contaminated}
subsets: []
"""
MADE = ("raw_samples", "image_features")
KINDS = ("recompressed", "cropped", "recoloured")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Settings]:
    """The settings of a data folder in which it was all made; not to be written to."""
    data = make_data_folder(tmp_path_factory.mktemp("contamination") / "data", model_cache)
    (data / "dqe.yaml").write_text(SETTINGS)
    for folder in ("mine", "held_out"):
        (data / folder).mkdir()
    photos = {key: PHOTOS[key].base_image() for key in (*HELD_OUT, *OTHERS)}
    for key in HELD_OUT:
        (data / "held_out" / f"{key}.jpg").write_bytes(photos[key])
    (data / "held_out" / "astronaut.txt").write_text(ANSWER)
    (data / "held_out" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    for key in OTHERS:
        (data / "mine" / f"{key}.jpg").write_bytes(photos[key])
    (data / "mine" / f"{OTHERS[0]}.txt").write_text(f"Q. {ANSWER.upper()}!")
    (data / "mine" / "astronaut same.jpg").write_bytes(photos["astronaut"])
    for key in HELD_OUT:
        for kind in KINDS:
            (data / "mine" / f"{key} {kind}.jpg").write_bytes(make(kind, photos[key], f"test/{key}", None) or b"")
        (data / "mine" / f"{key} mirrored.jpg").write_bytes(jpeg(ImageOps.mirror(images.decode(photos[key]))))
        lettered = make("caption_drawn", photos[key], f"test/{key}", "these words are not those of the reference")
        (data / "mine" / f"{key} lettered.jpg").write_bytes(lettered or b"")
    (data / "mine" / "green.png").write_bytes(picture((30, 200, 40), 1))
    classification(data / "tasks" / "colours", images=6)
    retrieval(data / "tasks" / "pairs")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment(data).items():
            patched.setenv(name, value)
        settings = load_settings()
        for stage in graph.stages(settings):
            if stage.group == "contamination" or stage.name in MADE:
                work = stage.work(settings.opened_store, SHARD if stage.partitioned else None, [SHARD])
                _, _, results = stage.make(work, stage.arguments(graph.resources(settings)))
                assert all(results[check.name].passed for check in stage.checks if check.blocking), stage.name
        settings.warehouse.rebuild(lambda connection: build_warehouse(connection, warehouse_inputs(settings)))
        yield settings


def warehouse_inputs(settings: Settings) -> WarehouseInputs:
    """What a warehouse is built from, as far as it was made."""
    sets = [f"{REFERENCE_PREFIX}{one.name}" for one in settings.reference_sets]
    keys = dict.fromkeys((*MADE, "contamination"), SHARD) | dict.fromkeys((*sets, "planted_copies"))
    files = {name: settings.opened_store.files(name, [key]) for name, key in keys.items()}
    return WarehouseInputs(graph.relations(settings), files, MATERIALISATIONS.empty_table(), (), "no scorer")


def found(settings: Settings) -> list[dict[str, object]]:
    """The rows of ``contamination``, with the names of the samples."""
    raw = table_of(settings, "raw_samples", SHARD)
    names = dict(zip(raw["uid"].to_pylist(), raw["image_name"].to_pylist(), strict=True))
    rows = settings.opened_store.read("contamination", SHARD, CONTAMINATION).to_pylist()
    return [row | {"name": names[row["uid"]]} for row in rows]


def test_every_copy_is_found_as_what_it_is_of_and_nothing_else_is(made: Settings) -> None:
    rows = found(made)
    by_picture = {row["name"]: row for row in rows if row["kind"] in ("exact", "perceptual", "semantic")}
    copies = {f"{key} {kind}.jpg" for key in HELD_OUT for kind in (*KINDS, "mirrored", "lettered")}
    assert {*by_picture} == {*copies, "astronaut same.jpg", "green.png"}
    for name in copies:
        own = {row["reference"] for row in rows if row["name"] == name and row["reference_set"] == "held_out"}
        assert own == {f"{str(name).split()[0]}.jpg"}
    assert {row["name"] for row in rows if row["kind"] == "exact"} == {"astronaut same.jpg", "green.png"}
    green = {
        (row["reference_set"], row["reference"])
        for row in rows
        if row["name"] == "green.png" and row["kind"] == "exact"
    }
    assert green == {("colours", "s0001"), ("pairs", "001")}
    assert all(0 < float(str(row["similarity"])) <= 1 for row in rows)


def test_a_text_of_the_set_is_found_in_a_caption_around_it(made: Settings) -> None:
    (row,) = (row for row in found(made) if row["kind"] == "caption")
    assert (row["name"], row["reference"], row["reference_text"]) == (f"{OTHERS[0]}.jpg", "astronaut.jpg", ANSWER)


def test_a_set_is_made_once_with_a_row_for_each_of_its_rows(made: Settings) -> None:
    table = table_of(made, "reference_features/held_out")
    whole = table.filter(pc.equal(table["variant"], "whole")).to_pylist()
    assert [row["reference"] for row in whole] == sorted(["broken.jpg", *(f"{key}.jpg" for key in HELD_OUT)])
    assert [row["reference_row"] for row in whole] == list(range(5))
    assert len(table) == 5 + 3 * len(HELD_OUT)
    broken = next(row for row in whole if row["reference"] == "broken.jpg")
    assert broken["fault"]
    assert broken["image"] is None
    retrieved = table_of(made, "reference_features/pairs")
    assert any(len(texts) > 1 for texts in retrieved["texts"].to_pylist() if texts)


def test_the_filter_keeps_what_is_in_no_set(made: Settings) -> None:
    pool = StorePool(made.opened_store, (SHARD,))
    raw = table_of(made, "raw_samples", SHARD)
    for text, names in (
        ("~contaminated", {"guitar.jpg", "tent.jpg"}),
        ("contaminated(kind=exact)", {"astronaut same.jpg", "green.png"}),
        ("contaminated(kind=caption)", {f"{OTHERS[0]}.jpg"}),
    ):
        uids = {f"{high:016x}{low:016x}" for high, low in make_subset(parse(text), [pool]).uids.tolist()}
        kept = raw.filter(pc.is_in(raw["uid"], pa.array(sorted(uids))))["image_name"].to_pylist()
        assert set(kept) == names


def test_people_see_it_in_the_warehouse_the_gallery_and_on_the_card(made: Settings) -> None:
    with made.warehouse.connect() as connection:
        sets = connection.sql("SELECT reference_set, pictures, samples FROM reference_sets").fetchall()
        assert [(name, pictures) for name, pictures, _ in sets][:2] == [("colours", 6), ("held_out", 4)]
        flagged = connection.sql("SELECT count(*) FROM samples WHERE contaminated").fetchall()
        assert flagged == connection.sql("SELECT count(DISTINCT uid) FROM contamination").fetchall()
        groups = list(pairs(connection, 8))
        assert len(groups) == 8
        names = [group.members[1].picture for group in groups]
        assert {*reference_pictures(made.opened_store, names)} == {*names}
        assert any(group.heading.startswith("the same picture 1.00") for group in groups)
    with made.warehouse.session() as query:
        published = card.contamination(query, select(query, "true", "original"))
    # The only one with a caption.
    assert [(one["reference_set"], one["samples"], one["by_text"]) for one in published] == [
        ("colours", 0, 0),
        ("held_out", 1, 1),
        ("pairs", 0, 0),
    ]


def test_planted_copies_say_what_the_thresholds_find(made: Settings) -> None:
    table = table_of(made, "planted_copies")
    of_photos = table.filter(pc.equal(table["reference_set"], "held_out"))
    assert of_photos.num_rows == len(HELD_OUT) * len(COPIES)
    assert pc.min(of_photos["other_distance"]).as_py() > made.contamination.max_distance
    rows = {(row["copy"], row["found_by"]): row for row in figures(of_photos, made.contamination)}
    assert rows["recompressed", "perceptual"]["recall"] == 1
    assert rows["mirrored", "any"]["recall"] == 1
    assert rows["all", "any"]["precision"] == 1
    strict = made.contamination.model_copy(update={"max_distance": 0, "min_cosine": 1.0})
    assert figures(of_photos, strict)[-1]["recall"] < rows["all", "any"]["recall"]
    drawn = plots.planted_copies(of_photos, made.contamination)
    assert drawn.startswith(b"\x89PNG")
    assert drawn != plots.planted_copies(of_photos, strict) != plots.planted_copies(table.slice(0, 0), strict)


@pytest.mark.parametrize(
    ("asset", "check", "damage"),
    [
        ("reference_features/held_out", "keys_unique", lambda table: pa.concat_tables([table, table.slice(0, 1)])),
        ("reference_features/held_out", "something_there", lambda table: table.slice(0, 0)),
        ("contamination", "keys_unique", lambda table: pa.concat_tables([table, table.slice(0, 1)])),
        ("contamination", "of_samples", lambda table: table.set_column(0, "uid", pa.array(["no one"] * len(table)))),
        (
            "contamination",
            "similarity_finite",
            lambda table: table.set_column(5, "similarity", pa.array([2.0] * len(table))),
        ),
        ("planted_copies", "keys_unique", lambda table: pa.concat_tables([table, table.slice(0, 1)])),
        ("planted_copies", "cosine_finite", lambda table: table.set_column(5, "cosine", pa.array([2.0] * len(table)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_check_holds_and_can_fail(made: Settings, asset: str, check: str, damage) -> None:
    stage = stage_named(made, asset)
    work = stage.work(made.opened_store, SHARD if stage.partitioned else None, [SHARD])
    table = table_of(made, asset, work.partition)
    assert checked(made, stage, check, work, table).passed
    assert not checked(made, stage, check, work, damage(table)).passed


def test_broken_pictures_of_a_set_are_named(made: Settings) -> None:
    stage = stage_named(made, "reference_features/held_out")
    work = stage.work(made.opened_store, None, [])
    result = checked(made, stage, "all_read", work, table_of(made, stage.name))
    assert not result.passed
    assert "1 of 5 rows" in result.description


def test_without_reference_sets_there_is_nothing_to_make_or_to_ask(data: Path) -> None:
    settings = load_settings()
    assert not [stage.name for stage in graph.stages(settings) if stage.group == "contamination"]
    (data / "dqe.yaml").write_text("sources: [{kind: sample}]\nfilters: {clean: ~contaminated}\n")
    with pytest.raises(SettingsError, match="list the sets under reference_sets"):
        load_settings()
    table = pa.table({"contaminated": pa.nulls(3, pa.bool_())})
    with pytest.raises(FilterError, match="3 samples were compared with no reference set"):
        parse("contaminated").leaves[0].mask(table)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("[imagenet]", "evaluation has no task 'imagenet'; it has: none: list yours under evaluation.tasks"),
        ("[{kind: sample}, {kind: sample}]", "two sets have the name 'sample'; rename one"),
        ("[{kind: holdout}]", "kind 'holdout' is not known; allowed: .*sample.*task"),
        ("[{kind: folder, name: a, path: nowhere}]", "there is nothing at .*nowhere"),
    ],
)
def test_a_wrong_set_is_refused_when_the_settings_are_loaded(data: Path, sets: str, said: str) -> None:
    (data / "dqe.yaml").write_text(f"sources: [{{kind: sample}}]\nreference_sets: {sets}\n")
    with pytest.raises(SettingsError, match=said):
        load_settings()


def test_a_set_is_made_again_when_it_changes_and_the_shards_after_it(made: Settings) -> None:
    stage = stage_named(made, "reference_features/held_out")
    arguments = stage.arguments(graph.resources(made))
    work = stage.work(made.opened_store, None, [])
    assert stage.current(work, arguments)
    changed = made.reference_sets[0].model_copy(update={"path": made.reference_sets[0].path.parent / "mine"})
    other = made.model_copy(update={"reference_sets": [changed, *made.reference_sets[1:]]})
    assert not stage.current(work, stage.arguments(graph.resources(other)))
    assert len(table_of(made, stage.name)["embedding"].drop_null()) == 4 * len(HELD_OUT)
    assert table_of(made, "planted_copies").schema.names == PLANTED_COPIES.names
    assert REFERENCE_FEATURES.names[0] == "reference_row"
