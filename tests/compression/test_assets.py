"""Codebook, codes and clusters of the embedded sample, and subsets made of them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqe_assets.compression.codebook import Codebook
from dqe_assets.compression.tables import CODE_CLUSTERS, CODEBOOK, IMAGE_CODES
from dqe_assets.filtering.subset import read_subset
from dqe_assets.ingest.tables import RAW_SAMPLES
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
    for picture in ("again_similarity.png", "again_clusters.jpg"):
        with Image.open(data / "subsets" / picture) as image:
            assert image.width > 500
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


CAPTIONER = (
    "{kind: captioner, codes: 32, epochs: 12, batch_size: 16, draw: 64, decoder: {kind: small, width: 32, layers: 1}}"
)


def made_of_codes(data: Path) -> dict[str, bytes]:
    """The files of all that is made of images' codes, subsets among them."""
    places = [*(data / "store").glob("*code*/*.parquet"), *(data / "subsets").glob("*.npy")]
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(places)}


def killed_when(data: Path, pattern: str) -> None:
    """Materialise the subset, and kill all of that as soon as a file is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize", *ASSETS[:3], "subsets/tldr"],
        env=environment(data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list(data.glob(pattern)):
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(data.glob(pattern)), f"it never came as far as {pattern}"


def test_killed_at_every_stage_it_ends_with_the_same_subset(finished: Path, tmp_path: Path) -> None:
    whole = with_compression(finished, tmp_path / "whole", CAPTIONER)
    cut = with_compression(finished, tmp_path / "cut", CAPTIONER)
    for pattern in ("compression/state.pt", "store/image_codes/*", "store/code_clusters/*"):
        killed_when(cut, pattern)
        if pattern == "compression/state.pt":
            assert not list((cut / "store").glob("codebook/*")), "it was killed in the middle of the training"
    for data in (cut, whole):
        done = dqe(data, "materialize", *ASSETS[:3], "subsets/tldr")
        assert done.returncode == 0, done.stdout + done.stderr
    assert made_of_codes(cut) == made_of_codes(whole)
    assert len(made_of_codes(whole)) > 4
    assert (cut / "subsets" / "tldr.json").read_bytes() == (whole / "subsets" / "tldr.json").read_bytes()


def make_published(folder: Path) -> tuple[Path, Path]:
    """A vision transformer and a BERT as TL;DR has them, but small and with random weights: their places."""
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch
    from transformers import BertConfig, BertLMHeadModel, BertTokenizer

    torch.manual_seed(0)
    vit, bert = folder / "vit.pt", folder / "bert"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), vit)
    bert.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters)]
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(bert)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertLMHeadModel(config).save_pretrained(bert)
    return vit, bert


def test_tower_and_decoder_are_as_published_and_the_tower_is_trained(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit, bert = make_published(tmp_path)
    settings = (
        "{kind: captioner, codes: 16, epochs: 2, batch_size: 16, draw: 48, tower_learning_rate: 1.0e-4, "
        f"decoder: {{kind: bert, model: {bert}}}}}"
    )
    data = with_compression(finished, tmp_path, settings)
    text = (data / "dqe.yaml").read_text()
    tower = f"tower: {{kind: timm, model: test_vit, weights: {vit}, device: cpu}}"
    (data / "dqe.yaml").write_text(text.replace("tower: {kind: efficientnet_lite0, side: 96}", tower))
    made = dqe(data, "materialize", "codebook", "image_codes")
    assert made.returncode == 0, made.stdout + made.stderr
    for name, value in environment(data).items():
        monkeypatch.setenv(name, value)
    loaded = load_settings()
    store = loaded.opened_store
    facts = store.get("codebook", None).stamp.facts
    assert (facts["tower_trained"], facts["tokens"], len(facts["epochs"])) == (True, 100, 2)
    book = Codebook.from_table(store.read("codebook", None, CODEBOOK))
    before = dict(loaded.compression.tower.network().named_parameters())
    changes = [np.abs(book.tower[name] - weight.detach().numpy()).max() for name, weight in before.items()]
    assert 1e-6 < max(changes) < 0.01
    shard = min(store.partitions("image_codes"))
    raw = store.read("raw_samples", shard, RAW_SAMPLES, ["image"])["image"].to_pylist()
    files = [image["bytes"] for image in raw[:32] if image]
    codes = [one for one in store.read("image_codes", shard, IMAGE_CODES)["codes"].to_pylist()[:32] if one]
    (tokens,) = loaded.compression.tower.described(files[:8], book.tower)
    np.testing.assert_array_equal(book.nearest(tokens), codes[:8])
