"""What holds for every stage, shown on the real ones."""

from __future__ import annotations

import gc
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dqe_assets.core.stage import connected
from dqe_assets.core.work import Manifest, Work
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import Settings, load_settings
from dqe_assets.report.assets import warehouse_of
from dqe_assets.score.tables import CAPTION_SCORES
from dqe_resources.errors import UsageError
from dqe_resources.store import StorageError, Store
from tests.resources.store.test_damage import damage
from tests.stages import checked, handed, stage_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_assets.ingest.settings import IngestSettings

SHARD = "sample-00001"


def stored(settings: Settings, name: str) -> tuple[Work, pa.Table | Manifest]:
    stage = stage_named(settings, name)
    shards = [f"sample-{index:05d}" for index in range(4)]
    work = stage.work(settings.opened_store, SHARD if stage.partitioned else None, shards)
    partition = settings.opened_store.get(name, work.partition)
    assert partition is not None
    return work, stage._stored_output(work, partition.stamp)


def replaced(table: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(column), table.schema.field(column), values)


def twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def fewer(table: pa.Table) -> pa.Table:
    return table.slice(1)


def without(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: replaced(table, column, pa.nulls(len(table), table.schema.field(column).type))


def filled(column: str, value: object) -> Callable[[pa.Table], pa.Table]:
    return lambda table: replaced(table, column, pa.array([value] * len(table), table.schema.field(column).type))


def turned(table: pa.Table) -> pa.Table:
    return replaced(replaced(table, "uid_a", table["uid_b"]), "uid_b", table["uid_a"])


def all_failed(table: pa.Table) -> pa.Table:
    return filled("reason", "http_404")(filled("status", "failed")(table))


def above_the_cap(rows: int) -> pa.Array:
    """Draws that are as many as samples, half of them of one sample."""
    return pa.array([rows / 2, *[rows / 2 / (rows - 1)] * (rows - 1)])


def mixtures(table: pa.Table, *errors: float) -> pa.Table:
    """Points of one mixture at one number of samples seen."""
    point = {"metric": "m", "mixture": "both", "pools": ["a", "b"], "samples_seen": 10, "source": "s"}
    return pa.Table.from_pylist([{**point, "error": error} for error in errors], table.schema)


def fewer_points(facts: Manifest) -> Manifest:
    return Manifest(facts.rows - 1, facts.facts)


def saying(**facts: object) -> Callable[[Manifest], Manifest]:
    return lambda output: Manifest(output.rows, {**output.facts, **facts})


def counted_anew(part: str, kept: int) -> Callable[[Manifest], Manifest]:
    """The facts of filters, each of whose filters or leaves keeps so many."""
    return lambda output: saying(**{part: [{**one, "kept": kept} for one in output.facts[part]]})(output)


def without_one_name(table: pa.Table) -> pa.Table:
    names = table["topic_name"].to_pylist()
    return replaced(table, "topic_name", pa.array(["other", *names[1:]]))


def faulty(table: pa.Table) -> pa.Table:
    """With an image that a stage failed at."""
    return replaced(table, "fault", pa.array(["struct.error", *[None] * (table.num_rows - 1)], pa.string()))


FAULTY = ("image_features", "image_text", "joint_embeddings", "masked_similarity", "thumbnails")

BREAKAGES = [
    *((asset, "faults", faulty) for asset in FAULTY),
    ("raw_samples", "keys_unique", twice),
    ("raw_samples", "rows_complete", fewer),
    ("raw_samples", "success_rate", all_failed),
    ("raw_samples", "captions", without("caption")),
    ("image_features", "keys_unique", twice),
    ("image_features", "rows_complete", fewer),
    ("image_features", "coverage", without("embedding")),
    ("image_features", "embedding_finite", filled("embedding", [1.0, np.nan])),
    ("synthetic_captions/labels", "keys_unique", twice),
    ("synthetic_captions/labels", "rows_complete", fewer),
    ("synthetic_captions/labels", "coverage", without("caption")),
    ("joint_embeddings", "keys_unique", twice),
    ("joint_embeddings", "rows_complete", fewer),
    ("joint_embeddings", "embedding_finite", filled("embedding", [0.1, 2.0])),
    ("caption_scores", "keys_unique", twice),
    ("caption_scores", "rows_complete", fewer),
    ("caption_scores", "coverage", without("similarity")),
    ("caption_scores", "similarity_finite", filled("similarity", 1.5)),
    ("caption_scores", "similarity_finite", filled("similarity", float("nan"))),
    ("text_quality", "keys_unique", twice),
    ("text_quality", "rows_complete", fewer),
    ("text_quality", "special_ratio_finite", filled("special_ratio", 1.5)),
    ("text_quality", "repetition_finite", filled("repetition", -0.5)),
    ("image_text", "keys_unique", twice),
    ("image_text", "rows_complete", fewer),
    ("image_text", "coverage", without("regions")),
    ("image_text", "text_area_finite", filled("text_area", 1.5)),
    ("masked_similarity", "keys_unique", twice),
    ("masked_similarity", "rows_complete", fewer),
    ("masked_similarity", "masked_similarity_finite", filled("masked_similarity", -1.5)),
    ("masked_similarity", "kept_without_text", filled("masked_similarity", 0.25)),
    ("masked_similarity", "kept_without_text", without("masked_similarity")),
    ("caption_preference", "keys_unique", twice),
    ("caption_preference", "rows_complete", fewer),
    ("caption_preference", "probability_a_finite", filled("probability_a", 1.2)),
    ("best_captions", "keys_unique", twice),
    ("best_captions", "rows_complete", fewer),
    ("best_captions", "similarity_finite", filled("similarity", 1.5)),
    ("best_captions", "never_worse", filled("similarity", -1.0)),
    ("duplicate_pairs", "keys_unique", twice),
    ("duplicate_pairs", "within_rules", filled("similarity", 0.5)),
    ("duplicate_pairs", "two_samples", filled("uid_a", "no sample's")),
    ("duplicate_pairs", "two_samples", turned),
    ("duplicate_clusters", "keys_unique", twice),
    ("duplicate_clusters", "one_representative", filled("is_representative", False)),
    ("duplicate_clusters", "one_representative", filled("size", 99)),
    ("duplicate_clusters", "similarity_finite", filled("similarity", -1.5)),
    ("collection_map", "keys_unique", twice),
    ("collection_map", "x_finite", filled("x", float("nan"))),
    ("collection_map", "y_finite", filled("y", float("inf"))),
    ("collection_map", "rows_complete", fewer),
    ("collection_map", "topics_numbered", filled("topic", 1)),
    ("collection_map", "topics_numbered", without_one_name),
    ("caption_signatures", "keys_unique", twice),
    ("caption_signatures", "rows_complete", fewer),
    ("caption_duplicates", "keys_unique", twice),
    ("caption_duplicates", "one_representative", filled("is_representative", True)),
    ("caption_duplicates", "one_representative", filled("size", 99)),
    ("caption_duplicates", "similarity_finite", filled("similarity", -0.5)),
    ("pool_utilities", "keys_unique", twice),
    ("pool_utilities", "b_finite", filled("b", 0.1)),
    ("pool_utilities", "residual_finite", filled("residual", float("nan"))),
    ("pool_utilities", "fits_well", filled("residual", 0.1)),
    ("pool_utilities", "curves_fall", filled("falls", False)),
    ("measured_mixtures", "keys_unique", lambda table: pa.concat_tables([table, mixtures(table, 0.5, 0.5)])),
    ("measured_mixtures", "error_finite", lambda table: pa.concat_tables([table, mixtures(table, float("inf"))])),
    ("filter_recommendation", "keys_unique", twice),
    ("filter_recommendation", "error_finite", filled("error", float("inf"))),
    ("filter_recommendation", "one_best", filled("is_best", True)),
    ("concept_hits", "keys_unique", twice),
    ("concept_hits", "rows_complete", fewer),
    ("concept_hits", "coverage", filled("concepts", None)),
    ("concept_hits", "coverage", filled("concepts", [])),
    ("concept_hits", "known_concepts", filled("concepts", ["tabby", "no such thing"])),
    ("concept_frequency", "keys_unique", twice),
    ("concept_frequency", "every_concept", fewer),
    ("concept_frequency", "counts_add_up", filled("samples", 257)),
    ("concept_frequency", "counts_add_up", filled("agreed", 200)),
    ("misalignment", "keys_unique", twice),
    ("misalignment", "misaligned_listed", filled("misaligned_uids", ["somebody"] * 64)),
    ("misalignment", "misaligned_listed", filled("comparable", -1)),
    ("concept_performance", "keys_unique", twice),
    ("concept_performance", "slope_finite", filled("slope", float("nan"))),
    ("concept_performance", "more_is_better", filled("slope", -0.01)),
    ("concept_performance", "more_is_better", without("r")),
    ("concept_plan", "keys_unique", twice),
    ("concept_plan", "predicted_accuracy_finite", filled("predicted_accuracy", float("nan"))),
    ("concept_plan", "bill_adds_up", filled("samples_needed", 0.0)),
    ("concept_plan", "bill_adds_up", filled("predicted_accuracy", 0.99)),
    ("rare_concept_retrieval", "keys_unique", twice),
    ("rare_concept_retrieval", "score_finite", filled("score", 1.5)),
    ("rebalanced_subset", "keys_unique", twice),
    ("rebalanced_subset", "rows_complete", fewer),
    ("rebalanced_subset", "weights_within_cap", filled("weight", 2.0)),
    ("rebalanced_subset", "weights_within_cap", lambda table: replaced(table, "weight", above_the_cap(len(table)))),
    ("reviews", "keys_unique", twice),
    ("reviews", "rows_complete", fewer),
    ("rights", "keys_unique", twice),
    ("rights", "rows_complete", fewer),
    ("curriculum", "keys_unique", twice),
    ("curriculum", "rows_complete", fewer),
    ("curriculum", "difficulty_finite", filled("difficulty", 1.2)),
    ("curriculum", "ranks_an_order", filled("rank", 1)),
    ("curriculum", "ranks_an_order", lambda table: replaced(table, "difficulty", pc.negate(table["difficulty"]))),
    ("caption_collection", "count_matches", fewer_points),
    ("filter_masks", "rows_complete", fewer_points),
    ("filter_masks", "counts_agree", counted_anew("filters", 3)),
    ("filter_masks", "fraction_kept", counted_anew("leaves", 3)),
    ("filter_masks", "keeps_something", counted_anew("filters", 0)),
    ("subsets/best", "not_empty", lambda facts: Manifest(0, facts.facts)),
    ("subsets/best", "uids_sorted", fewer_points),
    ("subsets/best", "uids_sorted", saying(path="/nowhere/best.npy")),
    ("subsets/best", "agrees_with_masks", saying(expression="~basic_filter()")),
    ("warehouse", "rows_complete", fewer_points),
    ("thumbnails", "keys_unique", twice),
    ("thumbnails", "rows_complete", fewer),
    ("sample_view", "rows_complete", fewer_points),
]


@pytest.mark.parametrize(("asset", "check", "damage"), BREAKAGES, ids=[f"{a}-{c}" for a, c, _ in BREAKAGES])
def test_each_check_holds_and_can_fail(
    opened: Settings, asset: str, check: str, damage: Callable[[pa.Table | Manifest], pa.Table | Manifest]
) -> None:
    work, output = stored(opened, asset)
    stage = stage_named(opened, asset)
    good, bad = (checked(opened, stage, check, work, one) for one in (output, damage(output)))
    assert good.passed, good.description
    assert not bad.passed
    assert bad.description != good.description or bad.metadata != good.metadata


def test_every_check_is_shown_to_fail(opened: Settings) -> None:
    checks = {(stage.name, check.name) for stage in graph.stages(opened) for check in stage.checks}
    # These are shown to fail in tests/report/test_gallery_check.py, tests/ingest/test_left_out.py,
    # tests/score/test_further_captions.py and tests/reviews/test_assets.py.
    elsewhere = {("sample_gallery", "stands_alone"), ("raw_samples", "left_out")}
    elsewhere |= {("further_caption_scores", check) for check in ("keys_unique", "coverage", "similarity_finite")}
    elsewhere |= {("reviewed_caption_scores", check) for check in ("keys_unique", "coverage", "similarity_finite")}
    assert checks - elsewhere == {(asset, check) for asset, check, _ in BREAKAGES}


@pytest.fixture
def folder(data: Path) -> Path:
    """Six photos in two shards, and settings that name them."""
    photos = data / "photos"
    photos.mkdir()
    rng = np.random.default_rng(7)
    for index in range(6):
        pixels = rng.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(photos / f"{index}.jpg")
        (photos / f"{index}.txt").write_text(f"a picture of noise, number {index}")
    (data / "dqe.yaml").write_text(
        "sources: [{kind: folder, name: noise, path: photos, shard_size: 3, min_success_rate: 0.9}]\n"
        "captioners: [{kind: labels, name: labels}]\n"
    )
    return photos


def materialized(**options: object) -> runner.Outcome:
    settings = load_settings()
    with instance() as current:
        runner.sync(settings, current)
        return runner.materialize(settings, current, **options)  # type: ignore[arg-type]


def test_a_failing_blocking_check_stops_what_is_downstream_and_is_fixed_by_running_again(folder: Path) -> None:
    good = (folder / "4.jpg").read_bytes()
    (folder / "4.jpg").write_bytes(b"<html>gone</html>")
    outcome = materialized()
    store = load_settings().opened_store
    assert len(outcome.failures) == 1
    assert "raw_samples, shard noise-00001: check success_rate: " in outcome.failures[0]
    assert "2 of 3 rows have an image" in outcome.failures[0]
    assert "not_an_image 1" in outcome.failures[0]
    assert store.get("raw_samples", "noise-00001") is not None
    assert store.get("image_features", "noise-00001") is None
    assert store.get("caption_scores", "noise-00000") is not None, "the good shard goes on"
    assert store.get("warehouse", None) is None

    settings = load_settings()
    features = stage_named(settings, "image_features")
    work = features.work(settings.opened_store, "noise-00001", [])
    with pytest.raises(StorageError, match="needs raw_samples, shard noise-00001, which failed success_rate"):
        features.fingerprint(work, handed(settings, features))

    (folder / "4.jpg").write_bytes(good)
    assert materialized().failures == []
    assert store.get("warehouse", None) is not None


def test_what_is_current_is_left_alone_and_what_changed_is_made_again(folder: Path) -> None:
    assert materialized().failures == []
    assert materialized().made == []
    before = {path: path.stat().st_mtime_ns for path in (folder.parent / "store").rglob("noise-*")}
    (folder / "5.txt").write_text("another caption of the last photo")
    outcome = materialized()
    assert outcome.failures == []
    changed = {p.relative_to(folder.parent / "store") for p, t in before.items() if p.stat().st_mtime_ns != t}
    # What filters keep is decided over all shards, and stored for each.
    assert {path.name.split(".")[0] for path in changed if path.parent.name != "filter_masks"} == {"noise-00001"}
    assert Path("raw_samples/noise-00001.parquet") in changed


def test_the_garbage_collector_is_given_back_what_was_kept_from_it(folder: Path) -> None:
    before = gc.get_freeze_count()
    assert materialized(assets=["raw_samples"]).failures == []
    (folder / "4.jpg").write_bytes(b"<html>gone</html>")
    assert materialized(assets=["raw_samples"]).failures != []
    assert gc.get_freeze_count() == before


def test_force_makes_again_what_is_current(folder: Path) -> None:
    before_it = ("raw_samples", "image_features", "synthetic_captions/labels", "joint_embeddings", "reviews")
    assert materialized(assets=[*before_it, "caption_scores"]).failures == []
    path = folder.parent / "store" / "caption_scores" / "noise-00000.parquet"
    before, content = path.stat().st_mtime_ns, path.read_bytes()
    outcome = materialized(assets=["caption_scores"], shards=["noise-00000"], force=True)
    assert outcome.made == [("caption_scores", "noise-00000")]
    assert path.stat().st_mtime_ns > before
    assert path.read_bytes() == content


def test_a_smaller_source_loses_its_shards_and_the_report_its_rows(folder: Path) -> None:
    materialized()
    for index in (3, 4, 5):
        (folder / f"{index}.jpg").unlink()
    assert materialized().failures == []
    with load_settings().warehouse.connect() as connection:
        assert connection.sql("SELECT count(*) FROM samples").fetchall() == [(3,)]


def test_an_added_captioner_makes_only_what_is_new(folder: Path) -> None:
    materialized()
    settings_file = folder.parent / "dqe.yaml"
    settings_file.write_text(
        settings_file.read_text().replace(
            "[{kind: labels, name: labels}]", "[{kind: labels, name: labels}, {kind: labels, name: other}]"
        )
    )
    features = folder.parent / "store" / "image_features" / "noise-00000.parquet"
    before = features.stat().st_mtime_ns
    assert materialized().failures == []
    assert features.stat().st_mtime_ns == before
    scores = load_settings().opened_store.read("caption_scores", "noise-00000", CAPTION_SCORES)
    assert pc.unique(scores["caption_source"]).to_pylist() == ["original", "labels", "other"]


def test_without_a_captioner_everything_else_is_still_made(folder: Path) -> None:
    settings_file = folder.parent / "dqe.yaml"
    settings_file.write_text(settings_file.read_text().replace("[{kind: labels, name: labels}]", "[]"))
    assert materialized().failures == []
    with load_settings().warehouse.connect() as connection:
        assert connection.sql("SELECT count(*), count(original_similarity) FROM samples").fetchall() == [(6, 6)]
        assert connection.sql("SELECT count(*) FROM caption_preference").fetchall() == [(0,)]


def test_what_changes_while_it_is_read_is_not_taken_for_what_was_read(folder: Path) -> None:
    settings = load_settings()
    raw = stage_named(settings, "raw_samples")
    work = raw.work(settings.opened_store, "noise-00000", [])

    def reads_and_then_the_file_changes(work: Work, ingest: IngestSettings) -> pa.Table:
        table = pa.Table.from_batches(raw.function(work, ingest))
        (folder / "0.txt").write_text("another caption, written after the file was read")
        return table

    replace(raw, function=reads_and_then_the_file_changes).make(work, handed(settings, raw))
    assert raw.current(work, handed(settings, raw)) is None


def test_a_collection_that_was_deleted_is_made_again(folder: Path) -> None:
    materialized()
    shutil.rmtree(folder.parent / "qdrant")
    outcome = materialized()
    assert outcome.failures == []
    settings = load_settings()
    with settings.vectors.open() as collection:
        assert [collection.count({"shard": f"noise-0000{index}"}) for index in (0, 1)] == [3, 3]
    assert materialized().made == []


def test_unknown_assets_and_shards_are_named(folder: Path) -> None:
    with pytest.raises(UsageError, match="no asset raw_sample; there are: raw_samples, image_features"):
        materialized(assets=["raw_sample"])
    with pytest.raises(UsageError, match="no shard noise-9; there are: noise-00000, noise-00001"):
        materialized(shards=["noise-9"])


def test_a_torn_partition_is_named_and_made_again_and_one_of_another_program_is_kept_until_forced(folder: Path) -> None:
    settings = folder.parent / "dqe.yaml"
    settings.write_text(settings.read_text().splitlines()[0])
    assets = {"assets": ["raw_samples", "text_quality"]}
    materialized(**assets)
    path = folder.parent / "store" / "text_quality" / "noise-00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    outcome = materialized(**assets)
    assert (outcome.failures, outcome.made) == ([], [("text_quality", "noise-00000")])
    assert outcome.torn["text_quality", "noise-00000"].startswith(f"{path}: torn or not Parquet (")
    assert path.read_bytes() == whole
    pq.write_table(pa.table({"mine": [1]}), path)
    foreign = path.read_bytes()
    outcome = materialized(**assets)
    (failure,) = outcome.failures
    assert "this platform did not write it; move it away, or run: dqe materialize text_quality" in failure
    assert path.read_bytes() == foreign
    assert materialized(**assets, force=True).failures == []
    assert path.read_bytes() == whole


def test_a_shard_whose_source_is_damaged_holds_up_no_other(folder: Path) -> None:
    samples = pa.table({"image": [photo.read_bytes() for photo in sorted(folder.glob("*.jpg"))], "caption": ["x"] * 6})
    pq.write_table(samples, folder / "pairs.parquet", row_group_size=3, write_page_checksum=True)
    damage(folder / "pairs.parquet", "image", 1)
    settings = folder.parent / "dqe.yaml"
    settings.write_text("sources: [{kind: parquet, name: noise, path: photos/pairs.parquet, shard_size: 3}]\n")
    outcome = materialized(assets=["raw_samples", "image_features", "duplicate_pairs"])
    (failure,) = outcome.failures
    assert "raw_samples, shard noise-00001" in failure
    assert "pairs.parquet, after row 3: damaged" in failure
    assert outcome.made[-1] == ("duplicate_pairs", None)


def test_a_source_with_nothing_but_failures_still_gets_its_report(folder: Path) -> None:
    for photo in folder.glob("*.jpg"):
        photo.write_bytes(b"")
    settings_file = folder.parent / "dqe.yaml"
    settings_file.write_text(settings_file.read_text().replace("0.9", "0"))
    assert materialized().failures == []
    with load_settings().warehouse.connect() as connection:
        assert connection.sql("SELECT reason, count(*) FROM failures GROUP BY ALL").fetchall() == [("empty", 6)]


def test_the_store_can_be_an_object_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by the settings, which refuse it with an embedded collection: another machine would have another one.
    opened = cached_property(lambda _: Store(f"memory://{folder.parent.name}-{id(folder)}/store"))
    opened.__set_name__(Settings, "opened_store")
    monkeypatch.setattr(Settings, "opened_store", opened)
    assert materialized().failures == []
    assert materialized().made == []
    assert not (folder.parent / "store").exists()
    with load_settings().warehouse.connect() as connection:
        assert connection.sql("SELECT count(*), count(original_similarity) FROM samples").fetchall() == [(6, 6)]


def test_a_shard_opens_as_a_hugging_face_dataset(finished: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = finished / "store" / "raw_samples" / f"{SHARD}.parquet"
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(finished / "hf")).cast_column(
        "image", datasets.Image()
    )
    row = next(row for row in loaded if row["status"] == "ok")
    assert isinstance(row["image"], Image.Image)
    assert (row["image"].width, row["image"].height) == (row["width"], row["height"])


def test_a_stage_that_reads_what_it_does_not_name_is_refused(opened: Settings) -> None:
    work = stage_named(opened, "text_quality").work(opened.opened_store, SHARD, [])
    assert work.read("raw_samples", ["uid"]).num_rows == 64
    with pytest.raises(LookupError, match="text_quality reads image_features, which is none of its inputs"):
        work.read("image_features", ["uid"])


def test_a_column_that_is_not_there_is_named(opened: Settings) -> None:
    work = stage_named(opened, "image_features").work(opened.opened_store, SHARD, [])
    with pytest.raises(LookupError, match=r"raw_samples.*there is no column widht; there are: uid, source"):
        work.read("raw_samples", ["uid", "widht"])


def test_a_graph_in_which_a_stage_reads_what_nothing_makes_is_refused(opened: Settings) -> None:
    raw, features = stage_named(opened, "raw_samples"), stage_named(opened, "image_features")
    with pytest.raises(ValueError, match="image_features reads raw_sample, but no stage before it is called so"):
        connected([raw, replace(features, inputs=("raw_sample",))])
    with pytest.raises(ValueError, match="image_features reads raw_samples, but no stage before it"):
        connected([features, raw])


def test_the_warehouse_is_built_again_when_what_it_holds_is_declared_otherwise(opened: Settings) -> None:
    stages = graph.stages(opened)
    warehouse = next(one for one in stages if one.name == "warehouse")
    work = warehouse.work(opened.opened_store, None, [f"sample-{index:05d}" for index in range(4)])
    before = warehouse.signature(work)
    (raw,) = [one for one in stages if one.name == "raw_samples"]
    changed = replace(raw.relations, tables=(replace(raw.relations.tables[0], select="SELECT 1"),))
    others = [replace(one, relations=changed) if one is raw else one for one in stages[:-2]]
    again = warehouse_of(others, graph.captioner_infos(opened), opened.scorer)
    assert again.signature(work) != before
    assert warehouse_of(stages[:-2], graph.captioner_infos(opened), opened.scorer).signature(work) == before
