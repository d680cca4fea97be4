"""Captions that say the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.dedup.caption_text import normalised_text, text_pairs
from dqe_assets.dedup.clusters import find_caption_duplicates
from dqe_assets.dedup.tables import CAPTION_DUPLICATES

WORDS = st.sampled_from(
    [
        "dog",
        "cat",
        "on",
        "the",
        "beach",
        "red",
        "car",
        "blue",
        "house",
        "near",
        "tree",
        "with",
        "two",
        "birds",
        "über",
        "海",
        ".JPG",
        "DSC_0042",
        "!",
    ]
)


def grams(text: str) -> set[str]:
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


@given(st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=25), st.floats(0.7, 1))
@settings(max_examples=60)
def test_equal_texts_are_linked_and_near_ones_are_as_near_as_said(texts: list[str], threshold: float) -> None:
    equal, near, similarity = text_pairs(pa.array(texts, pa.string()), threshold)
    normal = [normalised_text(text) for text in texts]
    assert all(normal[i] == normal[j] for i, j in equal)
    firsts = {normal.index(text) for text in normal if text}
    assert {int(j) for _, j in equal} == {i for i, text in enumerate(normal) if text} - firsts
    for (i, j), found in zip(near, similarity, strict=True):
        assert i < j
        assert {int(i), int(j)} <= firsts
        wanted = len(grams(normal[i]) & grams(normal[j])) / len(grams(normal[i]) | grams(normal[j]))
        assert found == pytest.approx(wanted)
        assert found >= threshold


def test_nearly_all_near_texts_are_found() -> None:
    rng = np.random.default_rng(0)
    vocabulary = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 8))) for _ in range(2_000)]
    originals = [" ".join(rng.choice(vocabulary, 12)) for _ in range(1_000)]
    copies = [text.replace(" ", ", ", 1) + " " + rng.choice(vocabulary) for text in originals[:300]]
    texts = originals + copies
    _, near, _ = text_pairs(pa.array(texts), 0.8)
    found = {(int(i), int(j)) for i, j in near}
    wanted = {
        (i, 1_000 + i)
        for i in range(300)
        if len(grams(normalised_text(texts[i])) & grams(normalised_text(copies[i])))
        >= 0.8 * len(grams(normalised_text(texts[i])) | grams(normalised_text(copies[i])))
    }
    assert len(wanted) > 250
    assert len(found & wanted) >= 0.99 * len(wanted)
    assert found <= wanted


def test_a_template_with_a_number_takes_two_links_a_caption() -> None:
    texts = pa.array(
        [f"photo number {number:05d} of the summer holiday in the mountains of the north" for number in range(3_000)]
    )
    _, near, _ = text_pairs(texts, 0.8)
    assert len(near) < 3_000 * 40, "not all pairs"
    parent = list(range(3_000))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for i, j in near:
        parent[root(int(i))] = root(int(j))
    assert len({root(row) for row in range(3_000)}) == 1


def test_nulls_and_empty_captions_take_no_part() -> None:
    equal, near, _ = text_pairs(pa.array([None, "", "!!", None, "a cat"], pa.string()), 0.8)
    assert len(equal) == len(near) == 0
    assert all(len(found) == 0 for found in text_pairs(pa.array([], pa.string()), 0.8))


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_a_threshold_that_is_no_similarity_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="Jaccard"):
        text_pairs(pa.array(["a"]), threshold)


def test_clusters_of_captions_are_of_one_source_and_say_how_near_they_are() -> None:
    uids = pa.chunked_array([[f"{n:032x}" for n in (4, 3, 2, 1)]])
    captions = {
        "original": pa.chunked_array(
            [["A dog!", "a dog", "a dog on the beach of the lake", "a dog on the beach of a lake"]]
        ),
        "model": pa.chunked_array([["a dog", None, "a cat", "a cow"]]),
    }
    table = find_caption_duplicates(uids, captions, 0.7)
    assert table.schema.equals(CAPTION_DUPLICATES)
    rows = [(row["caption_source"], row["kind"], int(row["uid"], 16), row["size"]) for row in table.to_pylist()]
    assert rows == [
        *(("original", "exact", uid, 2) for uid in (3, 4)),
        *(("original", "near", uid, 2) for uid in (1, 2, 3, 4)),
    ]
    similar = {(row["kind"], row["uid"]): row["similarity"] for row in table.to_pylist()}
    assert similar["near", f"{2:032x}"] == pytest.approx(
        len(grams("a dog on the beach of the lake") & grams("a dog on the beach of a lake"))
        / len(grams("a dog on the beach of the lake") | grams("a dog on the beach of a lake"))
    )
    assert similar["exact", f"{3:032x}"] == 1
    assert find_caption_duplicates(uids.slice(0, 0), {"original": uids.slice(0, 0)}, 0.7).num_rows == 0
