"""Captions that say the same."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.dedup.caption_text import HASHES, jaccard, normalised_text, signatures, text_digest

WORDS = st.text("abcdeé海न े", min_size=1, max_size=9).map(normalised_text).filter(bool)


def runs(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + 4] for i in range(max(1, len(padded) - 3))}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A  Dog,\non the beach!", "a dog on the beach"),
        ("ＡＢＣ ﬁsh STRASSE Straße", "abc fish strasse strasse"),
        ("DSC_0042.JPG", "dsc 0042 jpg"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("…!?", ""),
    ],
)
def test_what_does_not_count_is_gone(text: str, normal: str) -> None:
    assert normalised_text(text) == normal
    assert normalised_text(normal) == normal


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_words_are_letters_marks_and_digits_of_any_script(text: str) -> None:
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = [letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in folded]
    assert normalised_text(text) == re.sub(" +", " ", "".join(kept)).strip()


def test_equal_texts_alone_have_equal_digests() -> None:
    texts = ["a", "b", "a b", "海", ""]
    assert len({text_digest(text) for text in texts}) == len(texts)
    assert all(len(text_digest(text)) == 16 for text in texts)
    assert text_digest("a dog") == text_digest(normalised_text("A dog!"))


@given(st.lists(WORDS, min_size=1, max_size=8), st.data())
@settings(max_examples=60)
def test_the_similarity_is_that_of_the_sets_of_four_letter_runs(texts: list[str], data: st.DataObject) -> None:
    some = st.tuples(*[st.integers(0, len(texts) - 1)] * 2)
    pairs = data.draw(st.lists(some, max_size=6))
    found = jaccard(pa.array(texts), np.array(pairs, np.int64).reshape(-1, 2))
    sets = [runs(text) for text in texts]
    assert found.tolist() == [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs]


def test_signatures_agree_as_often_as_the_similarity_says() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(300)]
    texts = [" ".join(rng.choice(words, 30)) for _ in range(20)]
    texts += [" ".join([*text.split()[: -1 - place], *rng.choice(words, place)]) for place, text in enumerate(texts)]
    pairs = np.stack([np.arange(20), np.arange(20, 40)], axis=1)
    similar = jaccard(pa.array(texts), pairs)
    assert similar.min() < 0.3
    assert similar.max() > 0.9
    signed = signatures(texts)
    assert signed.shape == (40, HASHES)
    agree = (signed[:20] == signed[20:]).mean(axis=1)
    assert np.abs(agree - similar - (1 - similar) / 256).max() < 0.1
    assert np.abs(np.mean(agree - similar - (1 - similar) / 256)) < 0.02


def test_a_signature_depends_on_its_text_alone() -> None:
    texts = [f"text number {number} of a few thousand" for number in range(2_500)]
    some = [2_499, 3, 1_000]
    assert np.array_equal(signatures(texts)[some], signatures([texts[number] for number in some]))
