"""Texts found inside other texts, beside a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.contamination.texts import RUN, Texts, best_matches

ANSWER = "two men in red jackets repair the wooden bridge over the river"


def overlap(text: str, wanted: str, least: int) -> float:
    """The share of the runs of a wanted text that another has: the definition, word by word."""
    words, inside = wanted.lower().split(), f" {text.lower()} "
    if len(words) < least:
        return 0.0
    length = min(len(words), RUN)
    runs = {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}
    return sum(f" {run} " in inside for run in runs) / len(runs)


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=14).map(" ".join), max_size=6),
    st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=8),
    st.sampled_from([0.5, 0.7, 1.0]),
)
def test_the_best_match_is_that_of_a_plain_search(texts: list[str], wanted: list[str], least: float) -> None:
    best, share = best_matches(Texts(texts), wanted, 3, least)
    for row, text in enumerate(texts):
        shares = [overlap(text, one, 3) for one in wanted]
        highest = max(shares, default=0.0)
        if highest >= np.float32(least):
            assert share[row] == pytest.approx(highest)
            assert best[row] == shares.index(highest)
        else:
            assert (best[row], share[row]) == (-1, 0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (ANSWER, 1.0),
        (f"Question 4: {ANSWER.upper()}, or not?", 1.0),
        (ANSWER.replace("river", "lake"), 0.8),
        (ANSWER.replace("jackets", "coats"), 0.0),
        ("the river", 0.0),
        ("", 0.0),
        (None, 0.0),
    ],
)
def test_a_text_is_found_in_what_is_said_around_it_and_not_in_what_is_like_it(text: str | None, share: float) -> None:
    assert best_matches(Texts([text]), [ANSWER], 5, 0.7)[1][0] == pytest.approx(share)


def test_short_answers_say_nothing() -> None:
    assert best_matches(Texts(["is this a dog? yes"]), ["yes", "a dog"], 5, 0.7)[0].tolist() == [-1]
