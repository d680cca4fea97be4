"""Words: the same for captions and concepts, in any script."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simplemma import lemmatize

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.concepts.counting import count_concepts
from dqe_assets.concepts.lemmas import NOUNS, PLURALS, lemma, split_words, words_of
from dqe_assets.concepts.make_nouns import DEBIAN, Nouns, nouns_that_stay
from dqe_assets.concepts.vocabulary import imagenet_concepts

if TYPE_CHECKING:
    from pathlib import Path


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
        ("paintings", "painting"),
        ("leaves", "leaf"),
        ("skies", "sky"),
        ("shelves", "shelf"),
        ("paris", "paris"),
        ("16a", "16a"),
        ("собаки", "собаки"),
    ],
)
def test_lemmas(word: str, expected: str) -> None:
    assert lemma(word) == expected


@pytest.mark.parametrize("noun", ["lighter", "dice", "parking", "mars", "tights", "moped", "saw", "swimming", "reed"])
def test_a_noun_keeps_itself(noun: str) -> None:
    assert lemma(noun) == noun


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("glasses", "glass"),
        ("men", "man"),
        ("teeth", "tooth"),
        ("flies", "fly"),
        ("wings", "wing"),
        ("windows", "window"),
        ("lighters", "lighter"),
        ("mopeds", "moped"),
        ("drawings", "drawing"),
        ("bikers", "biker"),
        ("algae", "alga"),
        ("parked", "park"),
        ("brighter", "bright"),
        ("crying", "crying"),
        ("defence", "defense"),
        ("neighborhood", "neighbourhood"),
        ("pajamas", lemma("pajama")),
    ],
)
def test_plurals_other_spellings_and_what_is_no_noun_do_not(word: str, expected: str) -> None:
    assert lemma(word) == expected


def test_counts_are_of_the_noun_and_not_of_the_word_it_resembles() -> None:
    captions = [
        "light from a window",
        "a lighter",
        "two lighters",
        "parked at the park",
        "No parking",
        "he died",
        "dice",
    ]
    counts = count_concepts(captions, ["lighter", "light", "parking", "park", "dice"], "lemmatized", "zero")
    assert counts["count"].to_pylist() == [2, 1, 1, 1, 1]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs WordNet: apt install wordnet-base")
def test_the_list_of_nouns_is_what_the_rule_gives() -> None:
    lines = NOUNS.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == nouns_that_stay(DEBIAN)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs WordNet: apt install wordnet-base")
def test_real_captions_are_counted_as_the_rule_says(sbu: Path) -> None:
    nouns = Nouns(DEBIAN)

    @cache
    def by_rule(word: str) -> str:
        path = [PLURALS.get(word, word)]
        while (step := lemmatize(path[-1], lang="en").casefold()) not in path:
            is_plural = nouns.is_plural(path[-1], step) or nouns.is_plural(step, path[-1])
            if path[-1] in nouns.senses and not is_plural and not nouns.is_spelling(path[-1], step):
                return path[-1]
            path.append(step)
        return min(path[path.index(step) :])

    texts = pq.read_table(sbu / "captions.parquet", columns=["original_caption"])["original_caption"]
    captions = normalise_captions(texts)
    of_tasks = pq.read_table(sbu.parent / "concept_frequency" / "search_counts.parquet", columns=["concept"])["concept"]
    names = list(dict.fromkeys([*filter(None, of_tasks.to_pylist()), *imagenet_concepts()]))
    shown_by: dict[str, set[int]] = {}
    for place, caption in enumerate(captions.to_pylist()):
        for word in split_words(caption or ""):
            shown_by.setdefault(by_rule(word), set()).add(place)
    expected = {
        name: len(set.intersection(*(shown_by.get(by_rule(word), set()) for word in split_words(name))))
        for name in names
    }
    counts = count_concepts(captions, names, "lemmatized", "zero")["count"].to_pylist()
    assert len(names) > 4000
    assert dict(zip(names, counts, strict=True)) == expected
    some = ("lighter", "dice", "parking", "mars", "flooring", "topping")
    assert {name: expected[name] for name in some} == {
        "lighter": 3,
        "dice": 0,
        "parking": 22,
        "mars": 0,
        "flooring": 1,
        "topping": 0,
    }


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
