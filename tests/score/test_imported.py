"""Probabilities that were computed elsewhere, and the stages that score with what is configured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import SettingsError, load_settings
from dqe_assets.report.build_warehouse import CaptionerInfo, WarehouseInputs, build_warehouse
from dqe_assets.report.quality import quality_report
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_assets.score.imported import PreferenceImport
from dqe_assets.score.preference import preference_counts
from dqe_assets.score.tables import CAPTION_PREFERENCE, CAPTION_SCORES
from dqe_resources.keyed_table import TableError
from tests.report.make_store import RELATIONS

if TYPE_CHECKING:
    from pathlib import Path

SHARD = "noise-00000"
NEEDED = {
    *("raw_samples", "synthetic_captions/long", "synthetic_captions/short"),
    *("joint_embeddings", "caption_scores", "caption_preference"),
}
PAIR = {"source_a": "original", "source_b": "vlm", "scorer": "CLIP ViT-B/32"}


def stored(path: Path, rows: list[dict[str, Any]], **settings: Any) -> PreferenceImport:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PreferenceImport(path=path, **PAIR, **settings)


def test_the_published_probabilities_by_url(sbu: Path) -> None:
    path = sbu / "clip_original_vs_cogvlm2.parquet"
    columns = {"probability_a_column": "probability_first", "probability_b_column": "probability_second"}
    published = PreferenceImport(path=path, **PAIR, key="url", key_column="image_url", **columns)
    urls = pq.read_table(path)["image_url"].to_pylist()
    first, second = published.probabilities([*reversed(urls), None, "http://example.org/none.jpg"])
    assert first.null_count == second.null_count == 2
    assert preference_counts(first.to_numpy(zero_copy_only=False), second.to_numpy(zero_copy_only=False)) == [
        (0.7, 231, 646),
        (0.8, 204, 607),
        (0.9, 162, 542),
    ]


def test_the_second_probability_is_the_rest_to_one_by_default(tmp_path: Path) -> None:
    found = stored(tmp_path / "p.jsonl", [{"uid": "1", "probability_a": 0.25}, {"uid": "2", "probability_a": 1}])
    first, second = found.probabilities(["2", "3", "1"])
    assert (first.to_pylist(), second.to_pylist()) == ([1, None, 0.25], [0, None, 0.75])
    (tmp_path / "p.csv").write_text("image_name,probability_a,b\n007,0.4,0.6\n008,,\n")
    of_csv = PreferenceImport(path=tmp_path / "p.csv", **PAIR, key="image_name", probability_b_column="b")
    assert of_csv.probabilities(["008", "007"])[1].to_pylist() == pytest.approx([None, 0.6])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([(0.4, 0.7)], "row 1: 0.4 and 0.7 are not the probabilities of two captions"),
        ([(0.4, 0.6), (1.2, -0.2)], "row 2: 1.2 and -0.2 are not"),
        ([(0.4, None)], "row 1: 0.4 and None are not"),
    ],
)
def test_what_are_no_probabilities_is_refused(tmp_path: Path, values: list[tuple[Any, Any]], message: str) -> None:
    rows = [{"uid": str(place), "probability_a": a, "b": b} for place, (a, b) in enumerate(values)]
    found = stored(tmp_path / "p.jsonl", rows, probability_b_column="b")
    with pytest.raises(TableError, match=message):
        found.probabilities(["0", "1"])
    twice = stored(tmp_path / "p.jsonl", [{"uid": "0", "probability_a": 0.1}, {"uid": "0", "probability_a": 0.2}])
    with pytest.raises(TableError, match="rows 1 and 2 have the same uid '0' and different probabilities"):
        twice.probabilities(["0"])
    with pytest.raises(ValidationError, match="has no column 'p'; it has: uid, probability_a"):
        stored(tmp_path / "p.jsonl", [{"uid": "0", "probability_a": 0.1}], probability_a_column="p")


@pytest.fixture
def folder(data: Path, tiny_clip: Path) -> Path:
    """Four photos in one shard, captions and probabilities made elsewhere, and a scorer of open_clip."""
    photos = data / "photos"
    photos.mkdir()
    rng = np.random.default_rng(7)
    names = [f"{index}.jpg" for index in range(4)]
    for index, name in enumerate(names):
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((160, 120)).save(photos / name)
        (photos / f"{index}.txt").write_text(f"a picture of noise, number {index}")
    long = "There is a lot of noise in this picture of noise. It is coloured. " * 9
    captions = {"image_name": names, "long": ["noise", long, "more", long], "short": ["noise"] * 4}
    pq.write_table(pa.table(captions), data / "captions.parquet")
    pq.write_table(pa.table({"image_name": names[:3], "p": [0.75, 0.5, 0.25]}), data / "clip.parquet")
    write(data, tiny_clip, policy="sentences_max")
    return data


def write(data: Path, tiny_clip: Path, policy: str, **imported: Any) -> None:
    clip = {
        "path": "clip.parquet",
        "key": "image_name",
        "source_a": "long",
        "source_b": "original",
        "scorer": "CLIP",
        "probability_a_column": "p",
        "image_backbones": ["EVA02-E"],
        **imported,
    }
    table = {"kind": "table", "path": "captions.parquet", "key": "image_name"}
    settings = {
        "sources": [{"kind": "folder", "name": "noise", "path": "photos", "shard_size": 4}],
        "captioners": [
            {**table, "name": "long", "caption_column": "long", "image_backbones": ["EVA02-E"]},
            {**table, "name": "short", "caption_column": "short"},
        ],
        "scorer": {"kind": "open_clip", "architecture": f"local-dir:{tiny_clip}", "long_captions": policy},
        "preference_imports": [clip],
    }
    (data / "dqe.yaml").write_text(json.dumps(settings))


def made() -> set[str]:
    """Make what the preferences need and is not current; returns what was made, every check of which holds."""
    settings = load_settings()
    resources = graph.resources(settings)
    ran = set()
    for stage in graph.stages(settings):
        if stage.name in NEEDED:
            work, arguments = stage.work(settings.opened_store, SHARD, [SHARD]), stage.arguments(resources)
            current = stage.current(work, arguments) is not None
            _, metadata, results = stage.make(work, arguments)
            assert all(result.passed for result in results.values())
            assert metadata["reused"] == current
            ran |= set() if current else {stage.name}
    return ran


def test_scores_and_preferences_follow_the_settings(folder: Path, tiny_clip: Path) -> None:
    assert made() == NEEDED
    settings = load_settings()
    store = settings.opened_store
    scores = store.read("caption_scores", SHARD, CAPTION_SCORES)
    assert scores["similarity_sentences_max"].null_count == len(scores) - 2
    preference = store.read("caption_preference", SHARD, CAPTION_PREFERENCE).to_pylist()
    imported = [row for row in preference if (row["source_a"], row["source_b"]) == ("original", "long")]
    assert [row["probability_b"] for row in imported] == [0.75, 0.5, 0.25, None]
    assert {(row["scorer"], row["independent"]) for row in imported} == {("CLIP", False)}
    assert {row["scorer"] for row in preference} == {"CLIP", settings.scorer.model}
    files = {name: store.files(name, [SHARD]) for name in NEEDED}
    captioners = [
        CaptionerInfo(name, "table", name, (), shares_backbone_with_scorer=False) for name in ("long", "short")
    ]
    with duckdb.connect() as connection:
        inputs = WarehouseInputs(RELATIONS, files, MATERIALISATIONS.empty_table(), captioners, settings.scorer.model)
        build_warehouse(connection, inputs)
        intervals = connection.sql("FROM preference_intervals").to_arrow_table().to_pylist()
        (long,) = connection.sql("FROM long_captions WHERE cut_captions > 0").to_arrow_table().to_pylist()
        notes = connection.sql("SELECT note FROM caption_preference WHERE note IS NOT NULL").fetchall()
        captions = next(section for section in quality_report(connection, RELATIONS) if section.title == "Captions")
    assert [(row["above_a"], row["above_b"], row["n"]) for row in intervals if row["scorer"] == "CLIP"] == [
        (1, 1, 3),
        (0, 0, 3),
        (0, 0, 3),
    ]
    assert {row["against"] for row in intervals} == {None}, "what different scorers say is not compared"
    assert (long["caption_source"], long["cut_captions"], long["truncated_share"]) == ("long", 2, 0.5)
    of_long = [row for row in scores.to_pylist() if row["caption_source"] == "long"]
    for policy in ("sentences_mean", "sentences_max"):
        read = [row[f"similarity_{policy}"] or row["similarity"] for row in of_long]
        assert long[f"mean_{policy}"] == pytest.approx(np.mean(read), abs=1e-6)
    assert long["changed_by_mean"] is not None
    assert "Reading long's long captions by sentences makes" in captions.description
    assert "scorer CLIP shares" in notes[0][0]

    scored = {"caption_scores", "caption_preference"}
    write(folder, tiny_clip, policy="sentences_mean")
    assert made() == scored, "the sentences have their vectors already"
    write(folder, tiny_clip, policy="truncate")
    assert made() == {"joint_embeddings", *scored}
    write(folder, tiny_clip, policy="truncate", scorer="another")
    assert made() == {"caption_preference"}


@pytest.mark.parametrize("other", ["nobody", "long"])
def test_an_import_must_be_of_two_caption_sources(folder: Path, tiny_clip: Path, other: str) -> None:
    write(folder, tiny_clip, policy="truncate", source_b=other)
    with pytest.raises(SettingsError, match=f"preference_imports: long and {other} must be two of original, long, sh"):
        load_settings()
