"""Judgements in the warehouse, the report and the gallery, and none if none is configured."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dqe_assets.core.figures import DARK, LIGHT
from dqe_assets.improve.agreement import cohen_kappa
from dqe_assets.improve.judging_plots import marks_by_source
from dqe_assets.improve.tables import CAPTION_JUDGEMENTS
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.gallery import GalleryInputs, render_gallery
from dqe_assets.report.quality import quality_report
from dqe_resources.captioners.judge import CRITERIA
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.make_store import Store

ATTACK = "<script>alert(1)</script> it invents"
SOURCES = ("original", "labels", "vlm")


def marks_of(uid: str, source: str) -> list[int] | None:
    """Marks that depend on nothing but the caption; none for a sixteenth of the samples."""
    if uid.startswith("0"):
        return None
    base = {"original": 2, "labels": 2, "vlm": 4}[source]
    drawn = hashlib.sha256(f"{uid}{source}".encode()).digest()
    return [min(5, base + byte % 2) for byte in drawn[:4]]


def judged(store: Store) -> Store:
    """The store with a judge's opinion of every sample that has an image."""
    path = store.inputs.assets["caption_scores"][0].parent.parent / "caption_judgements" / "photos-00000.parquet"
    path.parent.mkdir()
    records: list[dict[str, Any]] = []
    for uid in sorted(store.images):
        order = sorted(SOURCES, key=lambda source: hashlib.sha256(f"{source}{uid}".encode()).digest())
        for place, source in enumerate(order, 1):
            marks = marks_of(uid, source)
            record = {"uid": uid, "caption_source": source, "place": place, "stratum": 0, "model": "tiny-judge"}
            record |= {"prompt_hash": "0" * 16, "prompt_tokens": 900, "completion_tokens": 200, "attempts": 1}
            record |= {"finish_reason": "stop" if marks else "unparsable", "finished_at": datetime.now(UTC)}
            if marks:
                record |= dict(zip(CRITERIA, marks, strict=True)) | {"overall": sum(marks) / 4}
                record["reasons"] = dict.fromkeys(CRITERIA, ATTACK)
            records.append(record)
    pq.write_table(pa.Table.from_pylist(records, CAPTION_JUDGEMENTS), path)
    assets = {**store.inputs.assets, "caption_judgements": [path]}
    return replace(store, inputs=replace(store.inputs, assets=assets))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return judged(make_store(tmp_path_factory.mktemp("store"), shards=2))


@pytest.fixture(scope="module")
def warehouse(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    built = Warehouse(path=tmp_path_factory.mktemp("warehouse") / "w.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return built


def asked(warehouse: Warehouse, sql: str) -> list[dict[str, Any]]:
    return warehouse.query(sql).to_pylist()


def page_of(warehouse: Warehouse, store: Store) -> str:
    def images(uids: list[str]) -> dict[str, bytes]:
        return {uid: store.images[uid] for uid in uids if uid in store.images}

    with warehouse.connect() as connection:
        return "".join(render_gallery(GalleryInputs(connection, images), RELATIONS).values())


def test_means_are_of_the_captions_that_were_judged(warehouse: Warehouse, store: Store) -> None:
    found = {row["caption_source"]: row for row in asked(warehouse, "FROM judged_sources")}
    assert list(found) == ["original", "labels", "vlm"]
    for source, row in found.items():
        marks = [mark for uid in store.images if (mark := marks_of(uid, source))]
        assert row["judged"] == len(marks) < len(store.images)
        assert row["overall"] == pytest.approx(sum(map(sum, marks)) / (4 * len(marks)))
        assert row["complete"] == pytest.approx(sum(mark[1] for mark in marks) / len(marks))
        assert row["overall_low"] < row["overall"] < row["overall_high"]
    places = asked(warehouse, "FROM judged_places")
    assert [row["place"] for row in places] == [1, 2, 3]
    rows = asked(
        warehouse,
        "SELECT count(*) AS n, count(overall) AS judged, sum(len(reasons.fluent)) AS said FROM caption_judgements",
    )
    assert rows == [
        {
            "n": 3 * len(store.images),
            "judged": sum(row["judged"] for row in places),
            "said": len(ATTACK) * rows[0]["judged"],
        }
    ]


def test_kappa_is_that_of_the_preferences_of_judge_and_scorer(warehouse: Warehouse, store: Store) -> None:
    similarity = {
        (row["uid"], row["caption_source"]): row["similarity"]
        for row in asked(warehouse, "SELECT uid, caption_source, similarity FROM captions")
    }
    pairs = asked(warehouse, "FROM judge_agreement")
    assert [(row["source_a"], row["source_b"]) for row in pairs] == [
        ("original", "labels"), ("original", "vlm"), ("labels", "vlm")
    ]  # fmt: skip
    for row in pairs:
        a, b = row["source_a"], row["source_b"]
        judge, scorer = [], []
        for uid in store.images:
            first, second = marks_of(uid, a), marks_of(uid, b)
            both = similarity[uid, a], similarity[uid, b]
            if first and second and None not in both and sum(first) != sum(second):
                judge.append(sum(first) > sum(second))
                scorer.append(both[0] > both[1])
        assert row["pairs"] - row["ties"] == len(judge)
        assert row["agreed"] == pytest.approx(sum(x == y for x, y in zip(judge, scorer, strict=True)) / len(judge))
        assert row["kappa"] == pytest.approx(cohen_kappa(judge, scorer))
        assert row["independent"] == ("labels" not in (a, b))


def test_disagreements_are_those_where_both_are_sure(warehouse: Warehouse) -> None:
    rows = asked(warehouse, "FROM judge_disagreements")
    apart = sum(
        row["pairs"] - row["ties"] - round(row["agreed"] * (row["pairs"] - row["ties"]))
        for row in asked(warehouse, "FROM judge_agreement")
    )
    assert len(rows) == apart > 0
    assert all(row["overall_gap"] > 0 and row["similarity_gap"] > 0 for row in rows)
    gaps = [row["disagreement"] for row in rows]
    assert gaps == sorted(gaps, reverse=True)


def test_the_report_has_what_the_judge_thinks(warehouse: Warehouse) -> None:
    with warehouse.connect() as connection:
        sections = {section.title: section for section in quality_report(connection, RELATIONS)}
    assert sections["Judgements"].table["source"].to_pylist() == list(SOURCES)
    assert "Mean mark by the place at which a caption was shown: 1: " in sections["Judgements"].description
    assert sections["Judge and scorer"].table["independent"].to_pylist() == ["no", "yes", "no"]


def test_the_gallery_shows_where_they_disagree_with_the_reasons_as_text(warehouse: Warehouse, store: Store) -> None:
    page = page_of(warehouse, store)
    assert "<h2>Judge and scorer disagree</h2>" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; it invents" in page
    assert "<script>" not in page
    assert 'alt="What the judge thinks of the captions"' in page
    assert page == page_of(warehouse, store)


def test_without_a_judge_no_judgement_is_shown(tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1)
    plain = Warehouse(path=tmp_path / "w.duckdb")
    plain.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    for table in ("caption_judgements", "judged_sources", "judged_places", "judge_agreement", "judge_disagreements"):
        assert asked(plain, f"FROM {table}") == []
    with plain.connect() as connection:
        assert not [section for section in quality_report(connection, RELATIONS) if section.title.startswith("Judge")]
    assert "judge" not in page_of(plain, store).lower().replace("judgement", "").partition("<header>")[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_plot_is_drawn_with_and_without_intervals(warehouse: Warehouse, theme: Any) -> None:
    means = warehouse.query("FROM judged_sources")
    for table in (means, means.slice(0, 1), means.slice(0, 0)):
        image = marks_by_source(table, theme)
        assert image == marks_by_source(table, theme)
        assert Image.open(io.BytesIO(image)).width > 100
