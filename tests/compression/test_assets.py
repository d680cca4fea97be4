"""Codebook, codes and clusters of the embedded sample, and subsets made of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqe_assets.compression.tables import CODE_CLUSTERS, IMAGE_CODES
from dqe_assets.filtering.subset import read_subset
from dqe_assets.orchestration.settings import load_settings
from tests.conftest import dqe, environment

pytestmark = pytest.mark.slow

SETTINGS = """
compression:
  tower: {kind: efficientnet_lite0, side: 96}
  codebook: CODEBOOK
  clustering: {clusters: 24}
subsets:
  - {name: tldr, expression: "tldr(share=0.25)"}
  - {name: best_of_each, expression: "tldr(share=0.5, rule=best_score) & score_top(share=0.5)"}
  - {name: baseline, expression: "kmeans_embeddings(share=0.25, clusters=24)"}
  - {name: random, expression: "random(share=0.25)"}
"""
ASSETS = (
    "codebook",
    "image_codes",
    "code_clusters",
    *(f"subsets/{name}" for name in ("tldr", "best_of_each", "baseline", "random")),
)


def with_compression(finished: Path, folder: Path, codebook: str) -> Path:
    """A copy of the finished store whose settings have codes and subsets."""
    data = folder / "data"
    shutil.copytree(finished, data, ignore=shutil.ignore_patterns("dagster_home", "*.duckdb", "qdrant"))
    settings = data / "dqe.yaml"
    settings.write_text(settings.read_text() + SETTINGS.replace("CODEBOOK", codebook))
    return data


def test_a_share_of_each_cluster_is_a_subset(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_compression(finished, tmp_path, "{kind: kmeans, codes: 128, draw: 150}")
    made = dqe(data, "materialize", *ASSETS)
    assert made.returncode == 0, made.stdout + made.stderr
    for name, value in environment(data).items():
        monkeypatch.setenv(name, value)
    store = load_settings().opened_store
    book = store.get("codebook", None).stamp.facts
    assert book["codes"] == 128
    assert book["perplexity"] > 32
    shards = store.get("code_clusters", None).stamp.facts["shards"]
    codes = [store.read("image_codes", shard, IMAGE_CODES) for shard in shards]
    assert {len(one) for table in codes for one in table["codes"].to_pylist() if one} == {9}
    tables = [store.read("code_clusters", shard, CODE_CLUSTERS) for shard in shards]
    labels = np.concatenate([table["code_cluster"].drop_null().to_numpy() for table in tables])
    assert np.bincount(labels).tolist() == sorted(np.bincount(labels).tolist(), reverse=True)
    sizes = {name: len(read_subset(data / "subsets" / f"{name}.npy")) for name in ("tldr", "baseline", "random")}
    assert sizes["tldr"] == max(round(len(labels) * 0.25), len(set(labels.tolist())))
    assert sizes["random"] == round(len(labels) * 0.25)
    manifest = json.loads((data / "subsets" / "best_of_each.json").read_bytes())
    assert [step["condition"].split("(")[0] for step in manifest["filters"][0]["steps"]] == ["tldr", "score_top"]
    blip = tmp_path / "blip"
    written = dqe(data, "compress", "--share", "0.25", "--name", "again", "--blip", str(blip), "--captions", "join")
    assert written.returncode == 0, written.stdout + written.stderr
    annotations = json.loads((blip / "annotations.json").read_bytes())
    assert (data / "subsets" / "again.npy").read_bytes() == (data / "subsets" / "tldr.npy").read_bytes()
    assert sorted(one["image_id"] for one in annotations) == sorted({one["image_id"] for one in annotations})
    assert 0 < len(annotations) <= sizes["tldr"]
    for one in annotations:
        with Image.open(blip / one["image"]) as image:
            assert image.getexif().get(0x0112, 1) == 1
        assert one["caption"]
    assert any("; " in one["caption"] for one in annotations)
    before = (data / "subsets" / "tldr.npy").read_bytes()
    again = dqe(data, "materialize", *ASSETS, "--force")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (data / "subsets" / "tldr.npy").read_bytes() == before


def test_a_captioner_learns_codes_of_real_images(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = "{kind: small, width: 64, layers: 1}"
    settings = f"{{kind: captioner, codes: 64, epochs: 8, batch_size: 32, draw: 240, decoder: {decoder}}}"
    data = with_compression(finished, tmp_path, settings)
    made = dqe(data, "materialize", "codebook", "image_codes")
    assert made.returncode == 0, made.stdout + made.stderr
    for name, value in environment(data).items():
        monkeypatch.setenv(name, value)
    found = load_settings().opened_store.get("codebook", None).stamp.facts
    assert found["epochs"][-1]["held_out_loss"] < found["unigram_loss"]
    assert found["perplexity"] > 16
    assert not load_settings().opened_store.get("codebook", None).stamp.failed_checks


def test_codes_are_asked_for_before_they_are_read(finished: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    text = (finished / "dqe.yaml").read_text()
    (data / "dqe.yaml").write_text(text + '\nsubsets:\n  - {name: a, expression: "tldr(share=0.25)"}\n')
    failed = dqe(data, "status")
    assert failed.returncode == 2
    assert "set compression: {}" in " ".join((failed.stdout + failed.stderr).split())
