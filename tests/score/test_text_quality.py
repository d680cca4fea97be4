from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.score import text_quality as module
from dqe_assets.score.tables import TEXT_QUALITY
from dqe_assets.score.text_quality import ENGLISH, READ, sign_ratios, text_quality, word_repetition
from dqe_resources.sources.sample_images.sample_rows import manifest

WORDS = st.sampled_from(["a", "A", "cat,", "cat", "(cat)", "dog", "Dog.", "sat", "über", "--"])
SENTENCES = st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=40)
CAPTIONS = st.lists(st.none() | SENTENCES, max_size=6)


def measured(*captions: str | None) -> list[dict]:
    uids = pa.chunked_array([[f"{row:032x}" for row in range(len(captions))]])
    table = text_quality(uids, {"original": pa.array(captions, pa.string())})
    assert table.schema == TEXT_QUALITY
    return table.to_pylist()


def plain_repetition(text: str) -> float:
    """The share of words in a run of three that came before, word by word."""
    trimmed = [
        "".join(sign if unicodedata.category(sign)[0] not in "PS" else "\0" for sign in word).strip("\0")
        for word in text.lower().split()
    ]
    seen, repeated = set(), set()
    for start in range(len(trimmed) - 2):
        run = tuple(trimmed[start : start + 3])
        if run in seen:
            repeated |= {start, start + 1, start + 2}
        seen.add(run)
    return len(repeated) / len(trimmed) if trimmed else 0.0


@given(CAPTIONS)
def test_repetition_is_what_a_plain_loop_counts(captions: list[str | None]) -> None:
    # White space as Python and as Arrow see it, which differ in control characters.
    captions = [text and "".join(" " if unicodedata.category(c) == "Cc" else c for c in text) for text in captions]
    words, repetition = word_repetition(pa.array(captions, pa.string()))
    assert words.to_pylist() == [None if text is None else len(text.split()) for text in captions]
    ascii_only = [text for text in captions if text is not None and all(ord(sign) < 0x2100 for sign in text)]
    expected = {text: plain_repetition(text) for text in ascii_only}
    for text, found in zip(captions, repetition.to_pylist(), strict=True):
        if text is None:
            assert found is None
        elif text in expected:
            assert found == pytest.approx(expected[text])


@given(CAPTIONS)
def test_ratios_are_what_a_plain_loop_counts(captions: list[str | None]) -> None:
    special, digits = sign_ratios(pa.array(captions, pa.string()))
    for text, found in zip(captions, zip(special.to_pylist(), digits.to_pylist(), strict=True), strict=True):
        kinds = Counter(
            unicodedata.category(sign)[0]
            for sign in text or ""
            if not sign.isspace() and unicodedata.category(sign)[0] != "Z"
        )
        total = kinds.total()
        if not total:
            assert found == (None, None)
        else:
            other = total - kinds["L"] - kinds["M"] - kinds["N"]
            assert found == pytest.approx((other / total, kinds["N"] / total))


def test_a_caption_is_measured_and_what_is_missing_is_null() -> None:
    row, missing, blank, loop = measured(
        "Look: 2 cats sleep, on the red sofa! www.cats.com",
        None,
        "  ",
        "a dog on a beach and a dog on a beach and a dog",
    )
    assert (row["words"], row["characters"], row["language"], row["patterns"]) == (9, 49, "en", ["url"])
    assert row["special_ratio"] == pytest.approx(5 / 41)
    assert row["digit_ratio"] == pytest.approx(1 / 41)
    assert all(missing[name] is None for name in TEXT_QUALITY.names[2:])
    assert (blank["words"], blank["language"], blank["special_ratio"], blank["repetition"]) == (0, None, None, 0)
    assert blank["patterns"] == ["no_letters"]
    assert loop["repetition"] == pytest.approx(8 / 14)
    assert row["repetition"] == 0


def test_captions_do_not_depend_on_what_they_are_measured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [
        "one two three one two three",
        "three one two three",
        None,
        "",
        "one two three",
        "été 12",
        "日本語 の 文",
    ] * 3
    whole = measured(*captions)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    assert measured(*captions) == whole


def test_of_a_hostile_caption_only_the_beginning_is_read() -> None:
    (row,) = measured("spam " * 1_000_000)
    assert row["characters"] == 5_000_000
    assert row["words"] == READ // 5
    assert row["repetition"] == pytest.approx(1, abs=0.01)


def test_every_source_has_its_rows_in_order() -> None:
    uids = pa.chunked_array([["0", "1"]])
    table = text_quality(uids, {"original": pa.array(["a", None]), "vlm": pa.array(["a cat", "a dog"])})
    assert table["uid"].to_pylist() == ["0", "1", "0", "1"]
    assert table["caption_source"].to_pylist() == ["original", "original", "vlm", "vlm"]
    assert table["words"].to_pylist() == [1, None, 2, 2]
    assert text_quality(uids.slice(2), {"original": pa.array([], pa.string())}).num_rows == 0


@pytest.fixture(scope="module")
def planted() -> pa.Table:
    """What is said of the sample's captions, next to the kind that was planted."""
    plants = manifest()
    uids = pa.chunked_array([[plant.name for plant in plants]])
    table = text_quality(uids, {"original": pa.array([plant.caption for plant in plants], pa.string())})
    return table.append_column("kind", pa.array([plant.caption_kind for plant in plants]))


@pytest.mark.parametrize(("kind", "pattern"), [("file_name", "file_name"), ("markup", "markup")])
def test_planted_file_names_and_markup_are_found_and_nothing_else(planted: pa.Table, kind: str, pattern: str) -> None:
    found = [pattern in (names or []) for names in planted["patterns"].to_pylist()]
    assert found == pc.equal(planted["kind"], kind).to_pylist()


def test_planted_empty_and_one_word_captions_are_found_by_their_words(planted: pa.Table) -> None:
    words = planted["words"].fill_null(0).to_numpy()
    kinds = np.array(planted["kind"].to_pylist())
    assert (words[kinds == "empty"] == 0).all()
    assert (words[kinds == "one_word"] == 1).all()
    assert words[(kinds == "right") | (kinds == "other_photo")].min() > 2


def test_planted_captions_in_other_languages_are_found(planted: pa.Table) -> None:
    kinds = np.array(planted["kind"].to_pylist())
    foreign = np.char.startswith(kinds, "language_")
    language = np.array([code or "" for code in planted["language"].to_pylist()])
    probability = planted["language_probability"].fill_null(0).to_numpy()
    assert foreign.sum() == 18
    said = (language != ENGLISH) & (probability > 0.5)
    assert said[foreign].mean() == 1
    assert said[kinds == "right"].mean() < 0.02
    assert (language[foreign] == [kind.removeprefix("language_") for kind in kinds[foreign]]).mean() > 0.9
