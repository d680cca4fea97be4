"""The scorer open_clip, on a small model with weights made here."""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from dqe_assets.core.schema import IMAGE_TYPE
from dqe_resources.models.open_clip_loading import OpenClipError
from dqe_resources.scorers import AnyScorer
from dqe_resources.scorers.open_clip import OpenClipScorer
from tests.image_files import encoded
from tests.tiny_clip import CONFIGURATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = ["a dog", "two dogs run over a beach, & bark", "a cat " * 60, "", "Ünïcödé 猫 🐈!"]


def scorer_of(folder: Path, **settings: Any) -> OpenClipScorer:
    return OpenClipScorer(architecture=f"local-dir:{folder}", **{"device": "cpu", **settings})


def pictures(count: int) -> pa.Table:
    """Pictures of noise, no two alike, of many sizes."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        written = io.BytesIO()
        pixels = rng.integers(0, 255, (5, 7, 3), np.uint8)
        Image.fromarray(pixels).resize((40 + number, 70 - number)).save(written, "JPEG")
        files.append({"bytes": written.getvalue(), "path": None})
    return pa.table({"image": pa.array(files, IMAGE_TYPE)})


@pytest.fixture(scope="module")
def reference(tiny_clip: Path) -> tuple[Any, Any, Any]:
    """The network as open_clip itself loads it, its transform and its tokenizer."""
    import open_clip

    network, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    return network.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{tiny_clip}")


def test_vectors_are_those_of_open_clip_itself(tiny_clip: Path, reference: tuple[Any, Any, Any]) -> None:
    import torch

    network, preprocess, tokenizer = reference
    samples = pictures(9)
    files = [Image.open(io.BytesIO(image["bytes"])) for image in samples["image"].to_pylist()]
    with torch.no_grad():
        images = network.encode_image(torch.stack([preprocess(file) for file in files]), normalize=True)
        texts = network.encode_text(tokenizer(TEXTS), normalize=True)
    for batch_size in (1, 4, 32):
        scorer = scorer_of(tiny_clip, batch_size=batch_size)
        np.testing.assert_allclose(scorer.embed_images(samples), images, atol=1e-6)
        np.testing.assert_allclose(scorer.embed_texts(TEXTS).vectors, texts, atol=1e-6)
    assert scorer.logit_scale == pytest.approx(network.logit_scale.exp().item())
    assert scorer.dimension == CONFIGURATION["embed_dim"]
    assert scorer.max_tokens == 77


def test_a_transparent_and_a_16_bit_image_are_seen_as_they_look(tiny_clip: Path) -> None:
    """As everywhere on the platform: what is transparent is on white, and 16 bits of grey are scaled, not clipped."""
    grey = np.linspace(0, 255, 64 * 48).astype(np.uint8).reshape(48, 64)
    hole = np.zeros((48, 64), np.uint8)
    hole[:, 32:] = 255
    clear = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(hole)))
    images = {
        "deep": Image.fromarray(grey.astype(np.uint16) * 257),
        "grey": Image.fromarray(grey),
        "clear": clear,
        "on white": Image.fromarray(np.where(hole == 0, 255, grey).astype(np.uint8)),
    }
    files = []
    for image in images.values():
        written = io.BytesIO()
        image.save(written, "PNG")
        files.append({"bytes": written.getvalue(), "path": None})
    vectors = scorer_of(tiny_clip).embed_images(pa.table({"image": pa.array(files, IMAGE_TYPE)}))
    deep, plain, clear_vector, on_white = vectors
    np.testing.assert_allclose(deep, plain, atol=1e-5)
    np.testing.assert_allclose(clear_vector, on_white, atol=1e-5)
    assert abs(float(plain @ on_white)) < 1 - 1e-4


def test_an_image_that_cannot_be_read_has_no_vector_and_a_strip_has_that_of_its_middle(tiny_clip: Path) -> None:
    scorer = scorer_of(tiny_clip, batch_size=2)
    strip = Image.new("RGB", (60_000, 1), "red")
    strip.paste("blue", (29_900, 0, 30_100, 1))
    files = [encoded(Image.new("RGB", (9, 9), "blue"), "PNG"), b"\xff\xd8\xff", encoded(strip, "PNG"), None]
    stored = pa.array([file and {"bytes": file, "path": None} for file in files], IMAGE_TYPE)
    vectors = scorer.embed_images(pa.table({"image": stored}))
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False, True]
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)


def test_tokens_are_counted_before_the_cut(tiny_clip: Path, reference: tuple[Any, Any, Any]) -> None:
    scorer = scorer_of(tiny_clip)
    embedded = scorer.embed_texts(TEXTS)
    expected = [len(reference[2].encode(text)) + 2 for text in TEXTS]
    assert embedded.tokens.tolist() == scorer.count_tokens(TEXTS).tolist() == expected
    assert expected[:3] == [4, 11, 122]
    assert embedded.truncated.tolist() == [False, False, True, False, False]
    exactly = ["cat " * 75, "cat " * 76]
    assert scorer.embed_texts(exactly).tokens.tolist() == [77, 78]
    assert scorer.embed_texts(exactly).truncated.tolist() == [False, True]
    nothing = scorer.embed_texts([])
    assert (nothing.vectors.shape, nothing.tokens.shape) == ((0, 16), (0,))


def test_images_are_taken_as_they_are_needed_and_stay_in_order(tiny_clip: Path) -> None:
    scorer = scorer_of(tiny_clip, batch_size=2)
    samples, taken = pictures(20), []

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(50):
            taken.append(1)
            yield from samples.to_batches(max_chunksize=20)

    found = scorer.embed_image_batches(batches())
    first = [next(found) for _ in range(10)]
    assert len(taken) < 10
    np.testing.assert_allclose(np.concatenate(first), scorer.embed_images(samples), atol=1e-6)
    found.close()


def test_another_thread_setting_is_left_as_it_was(tiny_clip: Path) -> None:
    import torch

    before = torch.get_num_threads()
    scorer_of(tiny_clip, batch_size=1).embed_texts(TEXTS)
    assert torch.get_num_threads() == before


def test_half_the_precision_gives_nearly_the_same_unit_vectors(tiny_clip: Path) -> None:
    samples = pictures(4)
    for precision in ("bf16", "fp16"):
        half, full = scorer_of(tiny_clip, precision=precision), scorer_of(tiny_clip)
        for rough, exact in (
            (half.embed_images(samples), full.embed_images(samples)),
            (half.embed_texts(TEXTS).vectors, full.embed_texts(TEXTS).vectors),
        ):
            assert rough.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1, atol=1e-5)
            assert (rough * exact).sum(axis=1).min() > 0.999
            assert np.abs(rough - exact).max() > 1e-5


def test_the_signature_follows_the_vectors_alone(tiny_clip: Path, tmp_path: Path) -> None:
    scorer = scorer_of(tiny_clip)
    same = {"batch_size": 7, "device": "cuda", "image_backbones": ("x",), "long_captions": "sentences_max"}
    assert scorer.model_copy(update=same).signature() == scorer.signature()
    assert scorer.model_copy(update={"precision": "bf16"}).signature() != scorer.signature()
    moved = shutil.copytree(tiny_clip, tmp_path / "moved")
    assert scorer_of(moved).signature() == scorer.signature()
    with (moved / "open_clip_model.safetensors").open("ab") as file:
        file.write(b"x")
    assert scorer_of(moved).signature() != scorer.signature()


def test_a_configuration_and_a_checkpoint_of_ones_own(tiny_clip: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    (tmp_path / "own.json").write_text(json.dumps(CONFIGURATION))
    torch.save(load_file(tiny_clip / "open_clip_model.safetensors"), tmp_path / "own.pt")
    own = OpenClipScorer(architecture=str(tmp_path / "own.json"), weights=str(tmp_path / "own.pt"), device="cpu")
    np.testing.assert_allclose(own.embed_texts(TEXTS).vectors, scorer_of(tiny_clip).embed_texts(TEXTS).vectors)
    assert own.model == "open_clip own.json (own.pt)"
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(OpenClipError, match=r"other\.json: not a configuration of open_clip"):
        own.model_copy(update={"architecture": str(tmp_path / "other.json")}).load()


def test_a_tokenizer_of_hugging_face_counts_too(tiny_clip: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "dog", "cat"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", sep_token="[SEP]").save_pretrained(tmp_path)
    text = {**CONFIGURATION["text_cfg"], "context_length": 8, "hf_tokenizer_name": "own"}
    described = {"model_cfg": {**CONFIGURATION, "text_cfg": text}, "preprocess_cfg": {"size": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    weights = load_file(tiny_clip / "open_clip_model.safetensors")
    weights["positional_embedding"] = weights["positional_embedding"][:8].contiguous()
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    scorer = scorer_of(tmp_path)
    embedded = scorer.embed_texts(["a dog", "a cat " * 5, "a cat a cat a cat"])
    assert embedded.tokens.tolist() == [4, 12, 8]
    assert embedded.truncated.tolist() == [False, True, False]
    ids = torch.tensor([[1, 4, 5, 2, 0, 0, 0, 0]])
    with torch.no_grad():
        expected = scorer.load().module.encode_text(ids, normalize=True)
    np.testing.assert_allclose(embedded.vectors[:1], expected, atol=1e-6)


def test_a_tag_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    scorer = OpenClipScorer(weights="laion2b_s34b_b79k", device="cpu")
    with pytest.raises(OpenClipError, match=r"load ViT-B-32 laion2b_s34b_b79k.*Hugging Face hub.*local-dir:FOLDER"):
        scorer.embed_texts(["a dog"])
    assert scorer.dimension == 512, "what is asked of the configuration needs no weights"
    with pytest.raises(OpenClipError, match="open_clip has no model ViT-B-33"):
        _ = scorer.model_copy(update={"architecture": "ViT-B-33"}).dimension


def test_weights_of_another_activation_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = pytest.importorskip("open_clip.factory")
    monkeypatch.setattr(factory, "download_pretrained", lambda *_, **__: "fetched")
    with pytest.raises(
        OpenClipError, match=r"another activation than openai was .*: use the architecture ViT-B-32-qui"
    ):
        OpenClipScorer(architecture="ViT-B-32", weights="openai", device="cpu").load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'ViT-B-32' needs the key 'weights'"),
        ({"architecture": "hf-hub:a/b", "weights": "x"}, "comes with its weights"),
        ({"weights": "nowhere/w.pt"}, r"there is nothing at .*nowhere/w\.pt"),
        ({"weights": "w.safetensors"}, r"there is nothing at .*w\.safetensors"),
        ({"architecture": "local-dir:nowhere"}, "there is nothing at .*nowhere"),
        ({"architecture": "own.json", "weights": "x"}, r"there is nothing at .*own\.json"),
        ({"weights": "x", "precision": "int8"}, "'fp32', 'bf16' or 'fp16'"),
        ({"weights": "x", "long_captions": "cut"}, "'truncate', 'sentences_mean' or 'sentences_max'"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(AnyScorer).validate_python({"kind": "open_clip", **settings})


def test_it_shares_what_its_settings_say_with_captioners() -> None:
    scorer = OpenClipScorer(weights="openai", image_backbones=("EVA02-E",))
    assert scorer.backbones == {"ViT-B-32", "EVA02-E"}
