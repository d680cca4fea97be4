"""The captioner that writes from labels and measures."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dqe_assets.caption.normalise import straightforward
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_resources.captioners import AnyCaptioner, LabelsCaptioner
from dqe_resources.captioners.labels import describe
from dqe_resources.captioners.protocol import Sample

MEDIUM = {"brightness": 0.5, "contrast": 0.2, "sharpness": 400.0, "focus": (0.5, 0.5)}


def first_sentence(*labels: tuple[str, float]) -> str:
    return describe(labels, ("grey",), **MEDIUM).split(" The picture")[0]


def picture(**measures: object) -> str:
    return describe([("vase", 0.9)], **{"colours": ("grey",), **MEDIUM, **measures}).split("vase. ")[1]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([("tabby cat", 0.9), ("tiger cat", 0.05)], "This image showcases a tabby cat."),
        (
            [("tabby cat", 0.7), ("Egyptian Mau", 0.2)],
            "This image showcases a tabby cat, or possibly an Egyptian Mau.",
        ),
        ([("moped", 0.5)], "This image showcases what is probably a moped."),
        ([("palace", 0.3), ("church", 0.2)], "This image showcases what is possibly a palace or a church."),
        (
            [("maze", 0.15), ("racket", 0.12)],
            "No object in this image is recognised with confidence; it most resembles a maze or a racket.",
        ),
    ],
)
def test_the_wording_is_hedged_by_probability(labels: list[tuple[str, float]], sentence: str) -> None:
    assert first_sentence(*labels) == sentence


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("hourglass", "an hourglass"),
        ("unicycle", "a unicycle"),
        ("European polecat", "a European polecat"),
        ("one-piece bathing suit", "a one-piece bathing suit"),
        ("umbrella", "an umbrella"),
        ("broccoli", "broccoli"),
        ("jeans", "jeans"),
        ("kite (bird of prey)", "a kite"),
        ("cardboard box / carton", "a cardboard box or carton"),
    ],
)
def test_names_have_the_right_article(name: str, phrase: str) -> None:
    assert first_sentence((name, 0.9)) == f"This image showcases {phrase}."


def test_two_classes_of_one_name_are_said_once() -> None:
    assert first_sentence(("sunglasses", 0.5), ("sunglasses", 0.4)).endswith("probably sunglasses.")


def test_the_picture_is_described_as_measured() -> None:
    assert picture(colours=("orange", "brown"), brightness=0.7, sharpness=1500, focus=(0.3, 0.5)) == (
        "The picture, in warm orange and brown tones, is bright and sharp, with most of the detail towards the left."
    )
    assert picture(colours=("black", "blue", "grey"), brightness=0.1, contrast=0.3, focus=(0.57, 0.44)) == (
        "The picture, in black, blue and grey tones, is very dark, high in contrast and moderately sharp, "
        "with slightly more detail towards the top right."
    )
    assert picture(colours=("blue",), contrast=0.0, sharpness=0.0) == (
        "The picture, in cool blue tones, is of medium brightness, low in contrast and smooth or blurred, "
        "without any detail."
    )
    assert picture(colours=()).startswith("The picture, in many colours, is")


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 1e5), st.tuples(st.floats(0, 1), st.floats(0, 1))
)
def test_every_measure_gives_two_sentences(
    probability: float, brightness: float, contrast: float, sharpness: float, focus: tuple[float, float]
) -> None:
    text = describe([("vase", probability)], ("red",), brightness, contrast, sharpness, focus)
    assert text.count(".") == 2
    assert "  " not in text
    assert straightforward(text).endswith(text.split("vase", 1)[1])


def test_configuration_chooses_it_by_kind() -> None:
    captioner = TypeAdapter(AnyCaptioner).validate_python({"kind": "labels", "name": "lite"})
    assert captioner == LabelsCaptioner(name="lite")
    assert captioner.asset == "image_features"
    assert captioner.backbones == {"efficientnet-lite0"}
    with pytest.raises(ValidationError, match=r"allowed: .*labels"):
        TypeAdapter(AnyCaptioner).validate_python({"kind": "label", "name": "lite"})


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = {"torch", "timm", "open_clip", "onnxruntime", "scipy", "pandas"}
    code = f"import sys, dqe_resources.captioners; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.skipif(importlib.util.find_spec("dqe_resources.models.image_model") is None, reason="no image model")
def test_one_caption_a_row_and_an_error_where_nothing_was_measured() -> None:
    row = {
        "uid": "a",
        "label_ids": [281, 282],
        "label_probabilities": [0.9, 0.05],
        "colours": ["brown"],
        "brightness": 0.5,
        "contrast": 0.2,
        "sharpness": 400.0,
        "focus_x": 0.5,
        "focus_y": 0.5,
    }
    samples = pa.Table.from_pylist([row, {"uid": "b"}], schema=IMAGE_FEATURES)
    captions = dict(LabelsCaptioner(name="labels").caption(Sample(values) for values in samples.to_pylist()))
    first, second = captions[0], captions[1]
    assert first.finish_reason == "stop"
    assert "tabby" in str(first.text)
    assert (second.text, second.finish_reason) == (None, "error")
    assert second.error
