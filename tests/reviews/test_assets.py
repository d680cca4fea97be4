"""Decisions on the finished sample: taken from files, and after one ``dqe materialize`` honoured everywhere."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filter_steps import is_in_subset
from dqe_assets.filtering.settings import parsed
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.subset import format_uids, read_subset
from dqe_assets.improve.tables import BEST_CAPTIONS
from dqe_assets.orchestration.graph import signals
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.sensors import review_sensor
from dqe_assets.orchestration.settings import Settings, load_settings
from dqe_assets.publish.captions import CaptionReader
from dqe_assets.publish.selection import PublishError, select
from dqe_assets.publish.store_reading import wanted_of
from dqe_assets.report.review_agreement import filter_masks_of
from dqe_assets.reviews.tables import REVIEWS
from dqe_assets.search.query import DECIDED
from dqe_assets.search.signal_conditions import take_signals
from dqe_resources.cache import data_directory
from dqe_resources.store import Store
from tests.conftest import environment
from tests.stages import checked, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

SHARD = "sample-00001"
CAPTION = "A coin of the emperor with a beard."


def dqe(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def decided(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A copy of the finished sample about which people have decided, before and after one ``dqe materialize``."""
    folder = tmp_path_factory.mktemp("reviews") / "data"
    shutil.copytree(finished, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        settings = load_settings()
        store = settings.opened_store
        before = store.read("best_captions", SHARD, BEST_CAPTIONS)
        chosen = set(format_uids(read_subset(data_directory() / "subsets" / "best.npy")).to_pylist())
        of_shard = before.filter(pc.is_valid(before["caption"]))["uid"].to_pylist()
        inside, outside = ([uid for uid in of_shard if (uid in chosen) is is_in] for is_in in (True, False))
        uids = {"drop": inside[0], "keep": outside[0], "caption": outside[1], "undone": inside[1]}
        files = folder / "decisions"
        files.mkdir()
        # As the view exports a selection.
        (files / "dark.json").write_text(json.dumps([{"uid": uids["drop"], "caption": "x", "similarity": 0.1}]))
        (files / "good.txt").write_text(uids["keep"])
        (files / "written.csv").write_text(f"uid,caption\n{uids['caption']},{CAPTION}\n")
        (files / "wrong.txt").write_text(uids["undone"])
        dqe("review", "import", str(files / "dark.json"), "--as", "drop", "--by", "ada", "--why", "too dark")
        dqe("review", "import", str(files / "good.txt"), "--as", "keep", "--by", "ada")
        dqe("review", "import", str(files / "good.txt"), "--as", "tag:cat or dog", "--by", "ada")
        dqe("review", "import", str(files / "written.csv"), "--as", "caption", "--by", "bob")
        dqe("review", "import", str(files / "wrong.txt"), "--as", "drop", "--by", "bob")
        dqe("review", "undo", "5", "--by", "bob")
        stamps = {one: store.get("best_captions", one).stamp.identity for one in store.partitions("best_captions")}  # type: ignore[union-attr]
        dqe("materialize")
    return {"folder": folder, "uids": uids, "before": before, "stamps": stamps}


@pytest.fixture
def settings(decided: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment(decided["folder"]).items():
        monkeypatch.setenv(name, value)
    return load_settings()


def best_of(settings: Settings, uid: str) -> dict[str, Any]:
    table = settings.opened_store.read("best_captions", SHARD, BEST_CAPTIONS)
    (row,) = table.filter(pc.equal(table["uid"], uid)).to_pylist()
    return row


def test_a_reviewed_caption_is_the_best_and_the_rule_has_the_next(settings: Settings, decided: dict[str, Any]) -> None:
    uid = decided["uids"]["caption"]
    after = best_of(settings, uid)
    (before,) = decided["before"].filter(pc.equal(decided["before"]["uid"], uid)).to_pylist()
    assert (after["caption"], after["caption_source"], after["reason"]) == (CAPTION, "reviewed", "a person chose it")
    assert -1 <= after["similarity"] <= 1
    assert after["independent"]
    assert [after[f"runner_up_{name}"] for name in ("caption", "source", "similarity")] == [
        before["caption"],
        before["caption_source"],
        before["similarity"],
    ]
    captions = CaptionReader(settings.opened_store, {"reviewed": 1.0}).of_shard(SHARD)
    assert [one["text"] for of_sample in captions for one in of_sample] == [CAPTION]


def test_only_the_shard_that_was_decided_about_is_made_again(settings: Settings, decided: dict[str, Any]) -> None:
    store = settings.opened_store
    changed = [
        shard
        for shard, identity in decided["stamps"].items()
        if (stored := store.get("best_captions", shard)) is None or stored.stamp.identity != identity
    ]
    assert changed == [SHARD]


def test_what_is_dropped_is_in_no_subset_and_no_filter_keeps_it(settings: Settings, decided: dict[str, Any]) -> None:
    dropped, undone = decided["uids"]["drop"], decided["uids"]["undone"]
    path = data_directory() / "subsets" / "best.npy"
    assert not is_in_subset(path, dropped)
    assert is_in_subset(path, undone)
    assert json.loads(path.with_suffix(".json").read_text())["pools"][0]["dropped_by_people"] == 1
    (row,) = settings.warehouse.query(f"FROM filter_masks WHERE uid = '{dropped}'").to_pylist()
    assert not any(value for name, value in row.items() if name != "uid")
    pool = StorePool(settings.opened_store, (SHARD,), signals=signals(settings))
    everything = format_uids(make_subset(parse("~(width > 1000000)"), [pool]).uids).to_pylist()
    assert dropped not in everything
    assert undone in everything


def test_what_is_dropped_is_not_drawn_has_no_place_and_is_no_candidate(
    settings: Settings, decided: dict[str, Any], finished: Path
) -> None:
    dropped, before = decided["uids"]["drop"], Store(str(finished / "store"))
    for name in ("rebalanced_subset", "curriculum"):
        schema = stage_named(settings, name).schema
        assert schema is not None
        was = before.read(name, None, schema, ["uid"])["uid"].to_pylist()
        assert set(was) - {*table_of(settings, name)["uid"].to_pylist()} == {dropped}
    assert dropped not in table_of(settings, "rare_concept_retrieval")["uid"].to_pylist()


def test_expressions_conditions_and_the_warehouse_know_decisions(settings: Settings, decided: dict[str, Any]) -> None:
    uids = decided["uids"]
    pool = StorePool(settings.opened_store, (SHARD,), signals=signals(settings))
    for text in ('tagged("cat or dog")', 'review == "keep"', "sql(\"list_contains(review_tags, 'cat or dog')\")"):
        assert format_uids(make_subset(parsed(text, {}), [pool]).uids).to_pylist() == [uids["keep"]]
    assert not len(make_subset(parsed("tagged(cat)", {}), [pool]).uids)
    for where, met in (("review_tags=cat or dog", "keep"), ("review=drop", "drop")):
        others, conditions, _ = take_signals([where], DECIDED)
        assert (others, conditions.few(settings.warehouse)) == ([], frozenset({uids[met]}))
    query = settings.warehouse.query
    assert query(
        "SELECT uid, review, review_tags FROM samples WHERE review IS NOT NULL ORDER BY review"
    ).to_pylist() == [
        {"uid": uids["drop"], "review": "drop", "review_tags": None},
        {"uid": uids["keep"], "review": "keep", "review_tags": ["cat or dog"]},
    ]
    assert query(
        "SELECT decided_by, why FROM review_decisions WHERE decision = 'drop' ORDER BY number"
    ).to_pylist() == [
        {"decided_by": "ada", "why": "too dark"},
        {"decided_by": "bob", "why": None},
    ]
    (caption,) = query("FROM captions WHERE caption_source = 'reviewed'").to_pylist()
    assert caption["caption"] == CAPTION
    assert caption["similarity"] is not None
    assert "reviewed" not in query("FROM captioners")["name"].to_pylist()


def test_explain_shows_who_decided_what_and_why(settings: Settings, decided: dict[str, Any]) -> None:
    name = settings.warehouse.query(f"SELECT image_name FROM samples WHERE uid = '{decided['uids']['drop']}'")
    text = " ".join(dqe("explain", name["image_name"][0].as_py()).output.split())
    assert "Decisions of people" in text
    assert "too dark" in text
    assert "no: ada decided to drop it" in text


def test_publications_and_training_leave_out_what_is_dropped(settings: Settings, decided: dict[str, Any]) -> None:
    with settings.warehouse.session() as query:
        selection = select(query, "true", "original")
        assert selection.steps[0].condition == "review IS DISTINCT FROM 'drop'"
        assert selection.steps[0].left == selection.samples - 1
        with pytest.raises(PublishError, match="nothing to publish"):
            select(query, f"uid = '{decided['uids']['drop']}'", "original")
    root = str(data_directory() / "store")
    read = wanted_of(root, None, {"best": 1.0}).total
    stored = settings.opened_store.read("reviews", SHARD, REVIEWS, ["review"])["review"]
    assert pc.sum(pc.equal(stored, "drop")).as_py() == 1
    with_image = settings.warehouse.query("SELECT count(*) AS n FROM best_captions WHERE caption IS NOT NULL")
    assert read == with_image["n"][0].as_py() - 1


def test_agreement_asks_filters_as_if_nobody_had_decided(settings: Settings, decided: dict[str, Any]) -> None:
    uids = [decided["uids"]["drop"], decided["uids"]["keep"]]
    masks = settings.opened_store.get("filter_masks", None)
    assert masks is not None
    table = pa.table({"uid": uids, "shard": [SHARD, SHARD]})
    passes = filter_masks_of(settings.opened_store, masks.stamp.facts, signals(settings), table)
    assert passes["best"].tolist() == [True, False]
    found = json.loads(dqe("review", "agreement", "--json").output)
    (row,) = (one for one in found["filters"] if one["filter"] == "best")
    assert (row["dropped_passed"], row["kept_stopped"], row["precision"], row["recall"]) == (1, 1, 0.0, 0.0)
    assert any("none of them was drawn at random" in note for note in found["notes"])
    assert {one["score"] for one in found["scores"]} >= {"similarity", "masked_similarity"}


@pytest.mark.parametrize("how", ["disagreement", "random", "filter-edge"])
def test_a_sample_to_review_goes_round(settings: Settings, decided: dict[str, Any], tmp_path: Path, how: str) -> None:
    out = tmp_path / "sample.csv"
    dqe("review", "sample", "--n", "30", "--by", how, "--out", str(out))
    from pyarrow import csv

    table = csv.read_csv(out)
    # Redundant duplicates are left out, which most of these samples are.
    least = 30 if how == "random" else 10
    assert least <= len({*table["uid"].to_pylist()}) == len(table) <= 30
    assert all(table["why"].to_pylist())
    is_decided = pc.is_in(table["uid"], pa.array([decided["uids"]["drop"], decided["uids"]["keep"]]))
    if how == "random":
        total = settings.warehouse.query("SELECT count(*) AS n FROM samples WHERE status = 'ok'")["n"][0].as_py()
        assert pc.sum(table["weight"]).as_py() == pytest.approx(total)
    else:
        assert not pc.any(is_decided).as_py()
    again, other = tmp_path / "again.parquet", tmp_path / "other.parquet"
    dqe("review", "sample", "--n", "30", "--by", how, "--out", str(again))
    import pyarrow.parquet as pq

    assert pq.read_table(again)["uid"].to_pylist() == table["uid"].to_pylist()
    if how == "random":
        dqe("review", "sample", "--n", "30", "--by", how, "--seed", "1", "--out", str(other))
        assert pq.read_table(other)["uid"].to_pylist() != table["uid"].to_pylist()
    assert "is there already" in dqe("review", "sample", "--by", how, "--out", str(out), code=2).output


def test_a_forced_run_keeps_decisions(settings: Settings, decided: dict[str, Any]) -> None:
    before = settings.opened_store.read("reviews", SHARD, REVIEWS)
    dqe("materialize", "reviews", "--force")
    assert settings.opened_store.read("reviews", SHARD, REVIEWS).equals(before)
    assert "cat or dog" in dqe("review", "list").output
    listed = json.loads(dqe("review", "list", "--json").output)["imports"]
    assert [one["is_undone"] for one in listed] == [False] * 4 + [True, False]
    assert listed[0]["source"] == "dark.json"


def test_uids_that_no_sample_has_are_named_and_nothing_is_decided(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("nobody\n")
    done = dqe("review", "import", str(path), "--as", "drop", code=2)
    assert "nobody (row 1); nothing was decided" in " ".join(done.output.split())
    assert len(json.loads(dqe("review", "list", "--json").output)["imports"]) == 6


BREAKAGES: list[tuple[str, Callable[[pa.Table], pa.Table]]] = [
    ("keys_unique", lambda table: pa.concat_tables([table, table])),
    ("coverage", lambda table: table.slice(0, 0)),
    (
        "similarity_finite",
        lambda table: table.set_column(1, table.schema.field(1), pa.array([1.5] * len(table), pa.float32())),
    ),
]


@pytest.mark.parametrize(("check", "damage"), BREAKAGES, ids=[check for check, _ in BREAKAGES])
def test_the_checks_of_scores_hold_and_can_fail(
    settings: Settings, check: str, damage: Callable[[pa.Table], pa.Table]
) -> None:
    stage = stage_named(settings, "reviewed_caption_scores")
    work = stage.work(settings.opened_store, SHARD, [SHARD])
    table = work.read("reviewed_caption_scores")
    assert len(table) == 1
    assert checked(settings, stage, check, work, table).passed
    assert not checked(settings, stage, check, work, damage(table)).passed


def test_dagster_asks_for_the_shards_that_were_decided_about_once(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(finished, tmp_path / "data", symlinks=True)
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    uids = settings.opened_store.read("reviews", SHARD, REVIEWS, ["uid"])["uid"].to_pylist()
    (tmp_path / "some.txt").write_text("\n".join(uids[:2]))
    sensor = review_sensor(settings)
    with instance() as current:
        assert isinstance(sensor(dg.build_sensor_context(current)), dg.SkipReason)
        dqe("review", "import", str(tmp_path / "some.txt"), "--as", "drop")
        tick = sensor(dg.build_sensor_context(current))
        assert isinstance(tick, dg.SensorResult)
        (request,) = tick.run_requests or ()
        assert (request.partition_key, request.asset_selection) == (SHARD, [dg.AssetKey("reviews")])
        assert isinstance(sensor(dg.build_sensor_context(current, cursor=tick.cursor)), dg.SkipReason)
        dqe("materialize", "reviews")
        assert sensor(dg.build_sensor_context(current)).run_requests == []  # type: ignore[union-attr]
