from __future__ import annotations

import time

import pyarrow as pa
import pytest

from dqe_assets.score.patterns import PATTERNS, found_patterns
from dqe_resources.sources.sample_images.photos import PHOTOS
from dqe_resources.sources.sample_images.sample_captions import FILE_NAMES, MARKUP

FOUND = {
    "file_name": [
        *FILE_NAMES, "IMG_1234.jpg", "DSC00012", "DSC-00012", "PXL_20210312_101512345", "3054.png", "image 7",
        "white tree in field 3.JPG", "Untitled-2", "20190412_1015",
    ],
    "placeholder": ["null", "N/A", "  image ", "No caption", "no image available", "Photo not found", "untitled"],
    "boilerplate": [
        "Click here to see more", "click to enlarge", "Sunset, stock photo", "Royalty-free vector", "© 2012 Smith",
        "All rights reserved.", "Copyright 2004 the town", "Getty Images", "Add to cart", "free shipping today",
    ],
    "credit": ["Photo by Jane", "Image courtesy of NASA", "photo credit: me", "courtesy of the museum"],
    "url": ["see https://a.b/c", "www.example.org", "more at flickr.com", "Visit my-shop.co.uk now"],
    "email": ["write to jane.doe@example.org"],
    "price": ["only $5", "19,99 €", "now £ 20", "30 USD a night"],
    "product_code": ["SKU: AB-1234", "chair, item no. 4711", "ISBN 978-3-16", "Model # X200", "lot number 7"],
    "markup": [*MARKUP, "a<br/>b", "[url=x]cat[/url]", "<TD>1</TD>"],
    "only_hashtags": ["#cat #dog", "#sunset", "@jane, #me"],
    "no_letters": ["", "   ", "2012-05-01", "12345", "!!!"],
}  # fmt: skip
SOUND = [
    "in 2014", "Route 66 in Arizona", "the sign in front of the house", "a street sign in Prague", "BMW 320",
    "Budget <our rivals!> truck", "I <3 my cat", "a photo of a cat", "the number 7 bus", "Photograph of my dog",
    "Our first house. It was small", "Boeing 747 at the gate", "#1 dad", "a cat & a dog", "U.S. Navy ship", "Cat",
    "Windows are open.", "ice cream for $ signs", "the 3d model", "an e-mail on a screen", "写真",
]  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_each_pattern_is_found(name: str) -> None:
    texts = FOUND[name]
    found = found_patterns(pa.array(texts)).to_pylist()
    assert [text for text, names in zip(texts, found, strict=True) if name not in names] == []


def test_what_people_write_is_none_of_them() -> None:
    texts = [*SOUND, *(text for photo in PHOTOS.values() for text in (*photo.captions, photo.word))]
    texts += [text for photo in PHOTOS.values() for _, text in photo.translations]
    found = found_patterns(pa.array(texts)).to_pylist()
    assert {text: names for text, names in zip(texts, found, strict=True) if names} == {}


def test_names_come_in_the_order_of_the_patterns_and_null_stays_null() -> None:
    texts = pa.array(["<b>www.a.com</b> click here", None, "a cat", "<i>"])
    assert found_patterns(texts).to_pylist() == [["boilerplate", "url", "markup"], None, [], ["markup"]]
    assert found_patterns(texts.slice(1)).to_pylist() == [None, [], ["markup"]]
    assert found_patterns(pa.array([], pa.string())).to_pylist() == []


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "#" * 200_000, "<a " * 70_000, "a@" * 100_000, "-1_" * 70_000, " " * 200_000]
)
def test_hostile_captions_take_no_more_time_than_their_length_asks(text: str) -> None:
    started = time.process_time()
    found_patterns(pa.array([text]))
    # A backtracking matcher takes hours for some of these.
    assert time.process_time() - started < 5
