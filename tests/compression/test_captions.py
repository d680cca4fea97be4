"""Captions of compressed subsets."""

import numpy as np
import pytest

from dqe_assets.compression.captions import refined_captions


def words(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


OLD = ["a dog", "a very long caption of a dog", None, "a cat", ""]
NEW = ["a brown dog", "a dog", "a bird", None, None]


def test_captions_are_joined_where_there_is_room() -> None:
    found = refined_captions(OLD, NEW, "join", words, 6)
    assert found.texts == ("a dog; a brown dog", OLD[1], "a bird", "a cat", None)
    assert (found.joined, found.without_room, found.without_generated) == (1, 1, 2)


def test_captions_are_replaced_or_kept() -> None:
    assert refined_captions(OLD, NEW, "replace", words, 6).texts == ("a brown dog", "a dog", "a bird", "a cat", None)
    assert refined_captions(OLD, NEW, "original", words, 6).texts == ("a dog", OLD[1], None, "a cat", None)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="1 originals, 2 generated"):
        refined_captions(["a"], ["a", "b"], "join", words, 6)
    with pytest.raises(ValueError, match="how='glue'"):
        refined_captions(["a"], ["a"], "glue", words, 6)
