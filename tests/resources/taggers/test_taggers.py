"""Taggers: ImageNet labels as concepts, and zero-shot tags by a small open_clip model with weights made here."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError, create_model

from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.open_clip_loading import OpenClipError
from dqe_resources.taggers import AnyTagger
from dqe_resources.taggers.labels import LabelsTagger
from dqe_resources.taggers.open_clip import OpenClipTagger

if TYPE_CHECKING:
    from pathlib import Path

CONCEPTS = ["red square", "green_circle", "dog", "cat"]


Configured = create_model("Configured", tagger=AnyTagger)


def labelled(*samples: dict[str, float]) -> pa.Table:
    """``image_features`` of samples with these labels."""
    places = {name: place for place, name in enumerate(ImageModel().class_names)}
    ids = [[places[name] for name in sample] for sample in samples]
    return pa.table(
        {
            "label_ids": pa.array(ids, pa.list_(pa.int16())),
            "label_probabilities": pa.array([list(sample.values()) for sample in samples], pa.list_(pa.float32())),
        }
    )


@pytest.mark.usefixtures("data")
def test_labels_are_concepts_by_their_names_and_synonyms() -> None:
    samples = labelled({"golden retriever": 0.8, "goldfish": 0.1}, {"crane bird": 0.4, "construction crane": 0.5}, {})
    concepts = ["Golden_Retriever", "goldfish (fish)", "Carassius auratus", "crane", "dog", "retriever"]
    found = LabelsTagger().probabilities(samples, concepts)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[0.8, 0.1, 0.1, 0, 0, 0], [0, 0, 0, 0.9, 0, 0], [0] * 6]))


def test_a_tagger_is_chosen_by_its_kind() -> None:
    assert Configured(tagger={"kind": "labels"}).tagger == LabelsTagger()
    configured = Configured(tagger={"kind": "open_clip", "architecture": "RN50", "weights": "openai"}).tagger
    assert isinstance(configured, OpenClipTagger)
    with pytest.raises(ValidationError, match="kind 'ram' is not known; allowed: labels, open_clip"):
        Configured(tagger={"kind": "ram"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "'ViT-B-32' needs the key 'weights'"),
        ({"architecture": "hf-hub:a/b", "weights": "x"}, "'hf-hub:a/b' comes with its weights"),
        ({"weights": "x", "prompts": ["a photo"]}, r"'a photo' must have \{\} once"),
        ({"weights": "x", "temperature": 0}, "greater than 0"),
    ],
)
def test_settings_of_open_clip_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpenClipTagger(**settings)


def pictures() -> pa.Table:
    """Three pictures: red, green, and red again with a turn that EXIF undoes."""
    images = []
    for colour, orientation in (("red", 1), ("green", 1), ("red", 6)):
        image = Image.new("RGB", (40, 60) if orientation == 6 else (60, 40), colour)
        exif = Image.Exif()
        exif[0x0112] = orientation
        written = io.BytesIO()
        image.save(written, "PNG", exif=exif)
        images.append({"bytes": written.getvalue(), "path": None})
    return pa.table({"image": images})


def test_zero_shot_probabilities_by_a_model_of_open_clip(tiny_clip: Path) -> None:
    samples = pictures()
    tagger = OpenClipTagger(architecture=f"local-dir:{tiny_clip}", device="cpu")
    found = tagger.probabilities(samples, CONCEPTS)
    assert (found.shape, found.dtype) == ((3, 4), np.float32)
    assert found.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert found[2] == pytest.approx(found[0], abs=1e-5)
    assert np.abs(found[1] - found[0]).max() > 1e-4
    one_at_a_time = tagger.model_copy(update={"batch_size": 1}).probabilities(samples, CONCEPTS)
    assert one_at_a_time == pytest.approx(found, abs=1e-5)
    flat = tagger.model_copy(update={"temperature": 1e6}).probabilities(samples, CONCEPTS)
    assert flat == pytest.approx(np.full((3, 4), 0.25), abs=1e-3)
    several = tagger.model_copy(update={"prompts": ("a {}.", "art of the {}.")}).probabilities(samples, CONCEPTS)
    assert np.abs(several - found).max() > 1e-5
    assert tagger.probabilities(samples.slice(0, 0), CONCEPTS).shape == (0, 4)
    unreadable = pa.array([{"bytes": b"\xff\xd8\xff", "path": None}], samples.schema.field("image").type)
    with_one = tagger.probabilities(pa.concat_tables([samples, pa.table({"image": unreadable})]), CONCEPTS)
    np.testing.assert_allclose(with_one[:3], found, atol=1e-5)
    assert (with_one[3] == 0).all()


def test_probabilities_are_those_of_open_clip_itself(tiny_clip: Path) -> None:
    import open_clip
    import torch

    network, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tiny_clip}")
    tokens = tokenizer([f"a photo of a {c.replace('_', ' ')}." for c in CONCEPTS])
    image = preprocess(Image.new("RGB", (60, 40), "red")).unsqueeze(0)
    with torch.no_grad():
        features, _, scale = network(image, tokens)
        expected = (scale * features @ network.encode_text(tokens, normalize=True).T).softmax(1)
    found = OpenClipTagger(architecture=f"local-dir:{tiny_clip}", device="cpu").probabilities(pictures(), CONCEPTS)
    assert found[0] == pytest.approx(expected[0].numpy(), abs=1e-5)


def test_the_signature_follows_the_weights_and_not_the_speed(tiny_clip: Path, tmp_path: Path) -> None:
    tagger = OpenClipTagger(architecture=f"local-dir:{tiny_clip}")
    before = tagger.signature()
    assert tagger.model_copy(update={"batch_size": 7, "device": "cpu"}).signature() == before
    assert tagger.model_copy(update={"temperature": 2.0}).signature() != before
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"one")
    first = OpenClipTagger(weights=str(weights)).signature()
    weights.write_bytes(b"two!")
    assert OpenClipTagger(weights=str(weights)).signature() != first


def test_a_model_that_cannot_be_loaded_is_named(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenClipError, match=r"open_clip cannot load local-dir:.*give a model and weights"):
        OpenClipTagger(architecture=f"local-dir:{tmp_path}").probabilities(pictures(), CONCEPTS)
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(OpenClipError, match=r"cannot load ViT-B-32 .*w\.pt"):
        OpenClipTagger(weights=str(tmp_path / "w.pt")).probabilities(pictures(), CONCEPTS)
