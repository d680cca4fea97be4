"""Captions to train on: opening formulas, entities, whitespace."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.caption.normalise import normalise_original, straightforward, straightforward_captions

CAPTIONS = Path(__file__).parents[3] / "shared" / "data" / "sbu" / "captions.parquet"

OPENINGS = [
    "This image showcases",
    "The image shows",
    "The picture depicts",
    "The photo features",
    "This photograph captures",
    "The image presents",
    "the scene portrays",
    "The image clearly shows",
    "The provided image displays",
    "The image you've sent illustrates",
    "The image is of",
    "These images show",
    "This is a photo of",
    "This is an image showing",
    "This is a picture that shows",
    "Here is a picture of",
    "A photograph of",
    "Picture of",
    "In this image, we can see",
    "In this picture we see",
    "In the image, there is",
    "In the photo there are",
    "In this photo,",
    "Depicted in this image is",
    "Sure! Here is a detailed description of the image:",
]

fragments = st.lists(
    st.one_of(
        st.sampled_from(
            [*OPENINGS, "&amp;", "&quot;", "&lt;", "&#38;", "&#x26;", "&num;", "&nbsp;", "amp;", "#38;", ";", "&"]
        ),
        st.text(max_size=8),
    ),
    max_size=12,
)
texts = st.one_of(st.text(), fragments.map("".join), fragments.map(" ".join))


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_opening_formula_is_stripped(opening: str) -> None:
    assert straightforward(f"{opening} two dogs on a sofa. The image is dark.") == (
        "Two dogs on a sofa. The image is dark."
    )


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("The image is a black and white photograph of a dog.", "A black and white photograph of a dog."),
        ("This is a close-up photo of a rose.", "A close-up photo of a rose."),
        ("The image shows the image shows a cat", "A cat"),
        ("In this image is a cat", "A cat"),
        ("This image showcases what is probably a moped.", "Probably a moped."),
        ("The image features 2 cats", "2 cats"),
        ("The image shows that it rains", "It rains"),
        ("This image presents us with a puzzle", "A puzzle"),
        ("The image depicts &amp;quot;Canela&amp;quot; the cat", '"Canela" the cat'),
        ("  This image\n\n showcases\ta cat  ", "A cat"),
    ],
)
def test_what_is_left_reads_as_a_caption(text: str, caption: str) -> None:
    assert straightforward(text) == caption


@pytest.mark.parametrize(
    "text",
    [
        "a serene lakeside scene at dusk",
        "a scene of destruction",
        "This painting shows a cat",
        "The image probably shows a cat",
        "The image appears to show a cat",
        "The image is a bit blurry.",
        "The image is dark.",
        "In the image of God he created them.",
        "In this photo taken in June, a boat",
        "The scene is dominated by a house",
        "Imageshows a cat",
        "This image shows",
        "A photo of",
        "The image shows ...",
    ],
)
def test_what_is_no_formula_stays(text: str) -> None:
    assert straightforward(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Black &amp;amp; white", "Black & white"),
        ("caf&eacute; &#233;&#xE9;", "café éé"),
        ("&amp;" * 50_000, "&" * 50_000),
        ("&" + "amp;" * 50_000 + "lt;", "<"),
        ("AT&T ?a=1&copy=2 &unknown;", "AT&T ?a=1&copy=2 &unknown;"),
        ("a&nbsp;b\u2003c\r\n d", "a b c d"),
        ("This image shows a cat", "This image shows a cat"),
        ("", ""),
    ],
)
def test_originals_keep_their_wording(text: str, plain: str) -> None:
    assert normalise_original(text) == plain


@given(texts)
def test_doing_it_again_changes_nothing(text: str) -> None:
    plain, caption = normalise_original(text), straightforward(text)
    assert normalise_original(plain) == plain
    assert straightforward(caption) == caption
    assert normalise_original(caption) == caption


@given(texts)
def test_only_whitespace_becomes_empty(text: str) -> None:
    assert bool(straightforward(text)) == bool(normalise_original(text).strip())


@given(st.lists(st.one_of(st.none(), texts)))
def test_arrays_keep_length_and_nulls(values: list[str | None]) -> None:
    captions = straightforward_captions(pa.array(values, type=pa.string()))
    assert captions.type == pa.string()
    assert captions.to_pylist() == [None if value is None else straightforward(value) for value in values]


@pytest.mark.skipif(not CAPTIONS.is_file(), reason="the SBU captions are not here")
@pytest.mark.parametrize("column", ["cogvlm2_caption", "internvl2_caption"])
def test_captions_of_real_models_come_back_from_behind_a_formula(column: str) -> None:
    for text in pq.read_table(CAPTIONS, columns=[column])[column].to_pylist():
        plain = normalise_original(text)
        assert straightforward(text) == plain
        assert straightforward(f"This image showcases {text}") == plain[0].upper() + plain[1:]
