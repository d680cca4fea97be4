"""Words: the same for captions and concepts, in any script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.lemmas import lemma, split_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Tabby Cat, asleep.", ["a", "tabby", "cat", "asleep"]),
        ("t-shirt, palm_tree/oasis", ["t", "shirt", "palm", "tree", "oasis"]),
        ("F-16A/B", ["f", "16a", "b"]),
        ("kite (bird of prey)", ["kite", "bird", "of", "prey"]),
        ("the cat's bowl; the cats' bowl", ["the", "cat", "bowl", "the", "cats", "bowl"]),
        ("the dog’S bone", ["the", "dog", "bone"]),
        ("rock 'n' roll, it's 's", ["rock", "n", "roll", "it"]),
        ("o'sullivan", ["o", "sullivan"]),
        ("кошка и собака", ["кошка", "и", "собака"]),
        ("हिन्दी में बिल्ली", ["हिन्दी", "में", "बिल्ली"]),
        ("猫和狗，在屋顶", ["猫和狗", "在屋顶"]),
        ("قطة سوداء", ["قطة", "سوداء"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("ΟΔΟΣ οδος", ["οδοσ", "οδοσ"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ＣＡＴ", ["cat"]),
        ("co\u00adoperate می\u200cخواهم", ["cooperate", "میخواهم"]),
        ("cat\u00a0dog\u3000bird…fish", ["cat", "dog", "bird", "fish"]),
        ("🐈 ☃ --- !!", []),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@settings(deadline=None)
@given(st.text())
def test_a_word_is_letters_marks_and_digits_and_nothing_is_lost(text: str) -> None:
    words = split_words(text)
    kept = "".join(words)
    assert all(unicodedata.category(character)[0] in "LMN" for character in kept)
    whole = unicodedata.normalize("NFKC", text).casefold().replace("'s", "").replace("’s", "")
    assert len(kept) >= sum(unicodedata.category(character)[0] in "LMN" for character in whole)


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "M", "N", "P", "Z", "Cf"])))
def test_words_stay_as_they_are_when_split_again(text: str) -> None:
    words = split_words(text)
    assert split_words(" ".join(words)) == words


def test_case_and_composition_do_not_matter() -> None:
    assert split_words("ÉCOLE Über") == split_words(unicodedata.normalize("NFD", "école über"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dogs", "dog"),
        ("mice", "mouse"),
        ("wolves", "wolf"),
        ("paintings", lemma("painting")),
        ("leaves", lemma("leaf")),
        ("skies", lemma("sky")),
        ("shelves", "shelf"),
        ("paris", "paris"),
        ("16a", "16a"),
        ("собаки", "собаки"),
    ],
)
def test_lemmas(word: str, expected: str) -> None:
    assert lemma(word) == expected


@settings(deadline=None)
@given(
    st.sampled_from(["paintings", "buildings", "axes", "left", "flies", "data", "glasses"])
    | st.text("aegnrst", min_size=1)
)
def test_a_lemma_is_its_own_lemma(word: str) -> None:
    assert lemma(lemma(word)) == lemma(word)


def test_words_of_a_text_are_distinct_and_the_method_is_checked() -> None:
    assert words_of("Two dogs and a dog") == ("two", "dog", "and", "a")
    assert words_of("Two dogs and a dog", "lowercased") == ("two", "dogs", "and", "a", "dog")
    with pytest.raises(ValueError, match="the method is 'stemmed'; allowed: lemmatized, lowercased"):
        words_of("dogs", "stemmed")  # type: ignore[arg-type]
