from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.score.sentences import readable_parts, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A dog. A cat!", ["A dog.", "A cat!"]),
        ("A dog on a beach", ["A dog on a beach"]),
        (
            "Dr. J. Smith vs. Mrs. Jones... on St. Mark's. The end",
            ["Dr. J. Smith vs. Mrs. Jones...", "on St. Mark's.", "The end"],
        ),
        (
            'It costs 3.50 in all. He said "stop." Then he left.',
            ["It costs 3.50 in all.", 'He said "stop."', "Then he left."],
        ),
        ("一只狗。一只猫！", ["一只狗。", "一只猫！"]),
        ("first line\nsecond line\n\n", ["first line", "second line"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.lists(st.text("ab.!? \n。\"'Mr", max_size=60), max_size=6), st.integers(1, 6))
def test_parts_lose_no_word_and_fit(texts: list[str], most: int) -> None:
    def count(parts: list[str]) -> np.ndarray:
        return np.array([len(part.split()) for part in parts], np.int32)

    found = readable_parts(texts, count, most)
    assert ["".join("".join(parts).split()) for parts in found] == ["".join(text.split()) for text in texts]
    assert all(len(part.split()) <= most and part.strip() == part != "" for parts in found for part in parts)


def test_a_word_that_does_not_fit_is_left_whole() -> None:
    assert readable_parts(["abcdefgh xy"], lambda parts: np.array([len(part) for part in parts]), 4) == [
        ["abcdefgh", "xy"]
    ]
