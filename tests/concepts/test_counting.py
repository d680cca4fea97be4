"""Counting concepts, against a plain reference: sets of words, one caption and one concept at a time."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.counting import (
    ABSENT_WORDS,
    AbsentWords,
    ConceptIndex,
    both,
    concept_hits,
    count_concepts,
    tally,
)
from dqe_assets.concepts.lemmas import METHODS, Method, words_of

WORDS = [
    "dog", "dogs", "Dog's", "hot", "kite", "kites", "bird", "Birds", "of", "prey", "tabby", "cat", "CATS", "palm",
    "tree", "trees", "t-shirt", "shirt", "t", "кошка", "Кошка", "猫", "बिल्ली", "café", "cafe\u0301", "mice", "mouse",
    "2012", "16a", "unicorn",
]  # fmt: skip
BETWEEN = [" ", "  ", "_", "-", ", ", ". ", "/", "\n", "\u00a0", " (", ") ", "'s ", " — ", "…"]
CONCEPTS = [
    "dog", "hot dog", "kite (bird of prey)", "kite", "bird of prey", "tabby_cat", "palm-tree", "Palm Trees", "T-shirt",
    "кошка", "猫", "बिल्ली", "Café", "house mouse", "2012 dog of 16a", "unicorn horn", "(kite)", "dog dogs", "!!", "",
]  # fmt: skip

captions_of = st.lists(
    st.none()
    | st.lists(st.tuples(st.sampled_from(BETWEEN), st.sampled_from(WORDS)), max_size=8).map(
        lambda parts: "".join(between + word for between, word in parts)
    ),
    max_size=12,
)
concepts_of = st.lists(
    st.sampled_from(CONCEPTS) | st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), max_size=10
)


def reference(
    captions: list[str | None], concepts: list[str], method: Method, absent_words: AbsentWords
) -> list[list[int]]:
    """The concepts that each caption shows, by the definition."""
    texts = [set(words_of(caption or "", method)) for caption in captions]
    corpus = set().union(*texts)
    needs = []
    for concept in concepts:
        plain = re.sub(r"\(.*?\)", " ", concept)
        if absent_words == "zero" or not words_of(plain):
            plain = concept
        words = set(words_of(plain, method))
        needs.append(words & corpus if absent_words == "ignore" else words)
    return [[place for place, words in enumerate(needs) if words and words <= text] for text in texts]


@settings(max_examples=300, deadline=None)
@given(captions_of, concepts_of, st.sampled_from(METHODS), st.sampled_from(ABSENT_WORDS))
def test_hits_and_counts_are_those_of_the_reference(
    captions: list[str | None], concepts: list[str], method: Method, absent_words: AbsentWords
) -> None:
    expected = reference(captions, concepts, method, absent_words)
    assert concept_hits(captions, concepts, method, absent_words).to_pylist() == expected
    table = count_concepts(captions, concepts, method, absent_words)
    assert table["concept"].to_pylist() == concepts
    assert table["count"].to_pylist() == [sum(place in hits for hits in expected) for place in range(len(concepts))]
    assert table.schema == pa.schema([("concept", pa.string()), ("count", pa.int64())])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(captions_of, min_size=1, max_size=4), concepts_of, st.sampled_from(METHODS), st.sampled_from(ABSENT_WORDS)
)
def test_shards_settle_and_merge_to_the_whole(
    shards: list[list[str | None]], concepts: list[str], method: Method, absent_words: AbsentWords
) -> None:
    whole = [caption for shard in shards for caption in shard]
    expected = reference(whole, concepts, method, absent_words)
    index = ConceptIndex(concepts, method, absent_words)
    found = [index.hits(pa.array(shard, pa.string())) for shard in shards]
    seen = [index.seen(hits.words) for hits in found]
    anywhere = np.logical_or.reduce(seen)
    settled = [index.settle(hits.concepts, here, anywhere) for hits, here in zip(found, seen, strict=True)]
    assert pa.concat_arrays(settled).to_pylist() == expected
    merged = index.count([])
    for shard in reversed(shards):
        merged = index.merge(index.count(shard), merged)
    assert merged.counts.tolist() == tally(pa.concat_arrays(settled), len(concepts)).tolist()
    assert merged.captions == len(whole)
    assert merged.seen.tolist() == anywhere.tolist()


@settings(deadline=None)
@given(st.text())
def test_a_caption_shows_each_of_its_words(text: str) -> None:
    words = list(words_of(text, "lowercased"))
    assert count_concepts([text, "", None], words, "lowercased")["count"].to_pylist() == [1] * len(words)


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a kite", "a bird", None, "prey", "a hot day", "hot dogs", ""] * 3
    concepts = ["kite", "hot dog", "bird of prey", "unicorn dog"]
    expected = concept_hits(captions, concepts), count_concepts(captions, concepts)
    monkeypatch.setattr("dqe_assets.concepts.counting._BATCH", 2)
    array = pa.array(captions)
    assert concept_hits(iter(captions), concepts).equals(expected[0])
    assert concept_hits(pa.chunked_array([array[:5], array[5:6], array[6:]]), concepts).equals(expected[0])
    assert count_concepts(iter(captions), concepts) == expected[1]
    assert count_concepts(array.cast(pa.large_string()), concepts) == expected[1]
    assert count_concepts(array.dictionary_encode(), concepts) == expected[1]
    assert count_concepts(pa.nulls(3), ["kite"])["count"].to_pylist() == [0]
    assert count_concepts(pa.chunked_array([array[:5], array[5:]]), concepts) == expected[1]


def test_a_cache_that_is_full_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqe_assets.concepts.counting._MOST_KEPT", 3)
    assert count_concepts([f"dog {number} cats" for number in range(20)], ["dog", "cat", "7"])["count"].to_pylist() == [
        20,
        20,
        1,
    ]


def test_absent_words_are_ignored_or_count_nothing() -> None:
    captions = ["a kite in the sky", "kites", "a dog"]
    concepts = ["kite (bird of prey)", "red kite", "unicorn", "dog"]
    assert count_concepts(captions, concepts)["count"].to_pylist() == [2, 2, 0, 1]
    assert count_concepts(captions, concepts, absent_words="zero")["count"].to_pylist() == [0, 0, 0, 1]
    both_words = [*captions, "a kite is a bird of prey", "a red bird"]
    assert count_concepts(both_words, concepts)["count"].to_pylist() == [3, 0, 0, 1]
    assert count_concepts(both_words, concepts, absent_words="zero")["count"].to_pylist() == [1, 0, 0, 1]


def test_a_word_of_another_shard_is_needed_in_every_shard() -> None:
    index = ConceptIndex(["red kite"])
    first, second = index.count(["a kite"]), index.count(["a red car"])
    assert (first.counts.tolist(), second.counts.tolist()) == ([1], [1])
    assert index.merge(first, second).counts.tolist() == [0]


def test_lowercased_words_are_compared_as_they_are() -> None:
    captions = ["two dogs", "a DOG", "dog"]
    assert count_concepts(captions, ["dog", "Dogs"])["count"].to_pylist() == [3, 3]
    assert count_concepts(captions, ["dog", "Dogs"], "lowercased")["count"].to_pylist() == [2, 1]


def test_a_caption_counts_once_and_a_repeated_concept_each_time() -> None:
    assert count_concepts(["dog dog dogs"], ["dog", "dog", "dogs"])["count"].to_pylist() == [1, 1, 1]


def test_nothing_to_count_in_and_nothing_to_count() -> None:
    assert count_concepts([], ["dog"])["count"].to_pylist() == [0]
    assert count_concepts(["dog"], []).num_rows == 0
    assert concept_hits(["dog", None], []).to_pylist() == [[], []]
    assert concept_hits([], ["dog"]).to_pylist() == []


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="absent_words is 'skip'; allowed: ignore, zero"):
        count_concepts(["dog"], ["dog"], absent_words="skip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the method is 'stem'"):
        count_concepts(["dog"], ["dog"], "stem")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give a list"):
        count_concepts("a dog", ["dog"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 5)).map(sorted), st.sets(st.integers(0, 5)).map(sorted)), max_size=8))
def test_text_and_image_agree_on_what_is_in_both(pairs: list[tuple[list[int], list[int]]]) -> None:
    text, image = (pa.array([pair[side] for pair in pairs], pa.list_(pa.int32())) for side in (0, 1))
    assert both(text, image).to_pylist() == [sorted(set(first) & set(second)) for first, second in pairs]


def test_texts_and_images_of_different_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="1 samples have texts, and 2 images"):
        both(pa.array([[1]], pa.list_(pa.int32())), pa.array([[1], []], pa.list_(pa.int32())))


def test_a_null_list_has_no_concepts() -> None:
    text = pa.array([[1], None, [2]], pa.list_(pa.int32()))
    assert both(text, pa.array([[1], [1], None], pa.list_(pa.int32()))).to_pylist() == [[1], [], []]
    assert tally(pa.chunked_array([text]), 4).tolist() == [0, 1, 1, 0]
