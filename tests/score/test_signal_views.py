"""Which pairs are suspects and why: on the sample's planted rows, and on pairs made for one reason each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.quality import quality_report
from dqe_assets.score.signal_views import DECISIVE, REASONS
from dqe_assets.score.tables import CAPTION_SCORES, IMAGE_TEXT, MASKED_SIMILARITY, TEXT_QUALITY
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings

ROWS = 40


def asked(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with settings.warehouse.connect() as connection:
        return connection.sql(sql).to_arrow_table().to_pylist()


@pytest.fixture
def truth(opened: Settings) -> dict[str, dict[str, str]]:
    store = opened.opened_store
    shards = [f"sample-{index:05d}" for index in range(4)]
    raw = pa.concat_tables(store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "truth"]) for shard in shards)
    return {row["uid"]: row["truth"] for row in raw.to_pylist()}


def test_every_suspect_of_the_originals_is_planted_and_no_file_name_is_missed(
    opened: Settings, truth: dict[str, dict[str, str]]
) -> None:
    suspects = asked(opened, "SELECT * FROM suspects WHERE caption_source = 'original'")
    planted = [truth[row["uid"]] for row in suspects]
    sound = [row for row in planted if row["caption"] == "right" and row["image"] not in {"tiny", "extreme_aspect"}]
    assert len(sound) <= 0.05 * len(suspects)
    named = {uid for uid, row in truth.items() if row["caption"] == "file_name"}
    found = {row["uid"] for row in suspects if "file_name" in row["reasons"]}
    assert found == named
    assert len({row["caption"] for row in planted}) >= 5


def test_suspects_say_why_in_a_fixed_order_those_most_objected_to_first(opened: Settings) -> None:
    suspects = asked(opened, "FROM suspects")
    places = {reason: place for place, reason in enumerate(REASONS)}
    for row in suspects:
        order = [places[reason] for reason in row["reasons"]]
        assert order == sorted(set(order))
        assert row["signals"] == len({REASONS[reason][0] for reason in row["reasons"]})
        low = {"low_similarity", "fits_by_its_text"} & set(row["reasons"])
        assert row["signals"] >= 3 or (low and row["signals"] >= 2) or set(DECISIVE) & set(row["reasons"])
    signals = [row["signals"] for row in suspects]
    assert signals == sorted(signals, reverse=True)
    assert len({(row["uid"], row["caption_source"]) for row in suspects}) == len(suspects)


def test_the_sources_texts_stand_side_by_side(opened: Settings) -> None:
    original, labels = asked(opened, "FROM text_quality_by_source")
    assert (original["caption_source"], labels["caption_source"]) == ("original", "labels")
    assert original["captions"] == 253
    assert 0.06 < original["share_not_english"] < 0.12
    assert labels["share_not_english"] == labels["share_with_pattern"] == 0
    patterns = asked(opened, "SELECT pattern, captions, meaning, example FROM caption_patterns")
    assert [(row["pattern"], row["captions"]) for row in patterns] == [
        ("file_name", 14),
        ("markup", 6),
        ("no_letters", 5),
    ]
    assert all(row["meaning"] and row["example"] is not None for row in patterns)


def made(root: Path, change: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The suspects among the originals of a store of one shard, whose signals are sound but for these; by row."""
    store = make_store(root, shards=1, rows=ROWS, captioners=(), duplicates=False)
    files = dict(store.inputs.assets)

    def write(asset: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        path = root / asset / "photos-00000.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
        files[asset] = [path]

    def changed(row: int, part: str, **sound: Any) -> dict[str, Any]:
        return sound | change.get(row, {}).get(part, {})

    raw, features = (pq.read_table(files[name][0]).to_pylist() for name in ("raw_samples", "image_features"))
    uids = [sample["uid"] for sample in raw]
    samples, texts, images, scores, masked = [], [], [], [], []
    for row, sample in enumerate(raw):
        uid = {"uid": sample["uid"]}
        readable = changed(row, "raw", width=640, height=480, caption=f"number {row}") if sample["image"] else {}
        samples.append(sample | readable)
        sound_text = {"language": "en", "language_probability": 0.9, "words": 8, "repetition": 0.0, "patterns": []}
        texts.append(uid | {"caption_source": "original"} | changed(row, "text", **sound_text))
        images.append(uid | {"regions": []} | changed(row, "image", text_area=0.0))
        similarity = 0.2 + row / 100
        scores.append(uid | {"caption_source": "original", "similarity": similarity})
        masked.append(uid | {"similarity": similarity} | changed(row, "masked", masked_similarity=similarity))
    write("raw_samples", samples, RAW_SAMPLES)
    sharpness = [{**one, "sharpness": 100.0 + row} for row, one in enumerate(features)]
    write("image_features", sharpness, IMAGE_FEATURES)
    write("text_quality", texts, TEXT_QUALITY)
    write("image_text", images, IMAGE_TEXT)
    write("caption_scores", scores, CAPTION_SCORES)
    write("masked_similarity", masked, MASKED_SIMILARITY)
    warehouse = Warehouse(path=root / "warehouse.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, replace(store.inputs, assets=files)))
    found = warehouse.query("FROM suspects").to_pylist()
    return {uids.index(row["uid"]): row for row in found}


def test_each_signal_objects_for_its_own_reason(tmp_path: Path) -> None:
    """Rows 0 to 3 score lowest. Row 7, 20 and 33 have no image."""
    found = made(
        tmp_path,
        {
            1: {"text": {"words": 2}},
            2: {"text": {"language": "de", "language_probability": 0.8, "words": 2}},
            3: {"image": {"text_area": 0.5}},
            10: {"text": {"patterns": ["file_name"]}},
            11: {"text": {"patterns": ["url"]}},
            12: {"text": {"patterns": ["url", "price"], "repetition": 0.5}, "raw": {"width": 100}},
            13: {"text": {"language": "ja", "language_probability": 0.9, "words": 1}, "raw": {"height": 90}},
            14: {"text": {"language": "fr", "patterns": ["price"]}, "raw": {"width": 2000}},
            15: {"masked": {"masked_similarity": -0.5}, "text": {"words": 1}, "image": {"text_area": 0.1}},
            16: {"text": {"language": "de", "language_probability": 0.4}, "raw": {"height": 90}},
        },
    )
    assert {row: one["reasons"] for row, one in found.items()} == {
        # The least sharp come first, as rows do.
        0: ["low_similarity", "blurred"],
        1: ["low_similarity", "short", "blurred"],
        2: ["low_similarity", "short", "not_english"],
        3: ["low_similarity", "mostly_text"],
        10: ["file_name"],
        14: ["price", "not_english", "strip"],
        15: ["fits_by_its_text", "short"],
    }
    assert [found[row]["signals"] for row in (0, 2, 10, 14, 15)] == [2, 3, 1, 3, 2]
    assert (found[15]["similarity"], found[15]["masked_similarity"]) == pytest.approx((0.35, -0.5))


def test_nothing_measured_is_no_objection(tmp_path: Path) -> None:
    store = make_store(tmp_path, captioners=())
    without = {name: files for name, files in store.inputs.assets.items() if name in {"raw_samples", "image_features"}}
    warehouse = Warehouse(path=tmp_path / "warehouse.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, replace(store.inputs, assets=without)))
    assert warehouse.query("SELECT count(*) AS n FROM suspects")["n"].to_pylist() == [0]
    with warehouse.connect() as connection:
        (section,) = [one for one in quality_report(connection, RELATIONS) if one.title == "Suspects"]
    assert section.table.num_rows == 0


def test_the_report_counts_reasons(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        (section,) = [one for one in quality_report(connection, RELATIONS) if one.title == "Suspects"]
    rows = section.table.to_pylist()
    assert {row["source"] for row in rows} == {"original", "labels"}
    assert all(REASONS[row["reason"]][1] == row["meaning"] for row in rows)
    assert max(sum(row["source"] == source for row in rows) for source in ("original", "labels")) <= 5
