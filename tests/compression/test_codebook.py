"""Codebooks: nearest codes, k-means, and a captioner's, on made tokens and on real images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqe_assets.compression import caption_codebook
from dqe_assets.compression.caption_codebook import TrainedCodebook, key_word_vectors, train_codebook
from dqe_assets.compression.codebook import Codebook, health, k_means_codebook
from dqe_assets.compression.settings import CaptionerCodebook, SmallDecoder

THINGS = ("dog", "pizza", "rocket", "violin", "tulip", "whale")


def made(rows: int = 240, tokens: int = 9, width: int = 24) -> tuple[np.ndarray, list[str]]:
    """Tokens of made images of a thing on a ground each, and captions that name both."""
    random = np.random.default_rng(0)
    things, grounds = random.normal(size=(len(THINGS), width)), random.normal(size=(3, width))
    thing, ground = random.integers(len(THINGS), size=rows), random.integers(3, size=rows)
    found = grounds[ground][:, None] + 0.2 * random.normal(size=(rows, tokens, width))
    found[:, :4] += things[thing][:, None]
    colours = ("red", "green", "blue")
    return found.astype(np.float16), [f"a {THINGS[a]} on {colours[b]}" for a, b in zip(thing, ground, strict=True)]


SETTINGS = CaptionerCodebook(
    codes=32,
    dimension=16,
    decoder=SmallDecoder(width=32, layers=1, heads=2, tokens=8),
    epochs=5,
    batch_size=32,
    learning_rate=5e-3,
)


def test_codes_are_the_nearest() -> None:
    random = np.random.default_rng(0)
    book = Codebook(random.normal(size=(50, 6)).astype(np.float32), *_projection(random))
    tokens = random.normal(size=(7, 9, 8)).astype(np.float32)
    projected = tokens @ book.weight.T + book.bias
    plain = ((projected[:, :, None] - book.vectors) ** 2).sum(axis=-1).argmin(axis=-1)
    found = book.nearest(tokens)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, plain)
    again = Codebook.from_table(book.to_table())
    np.testing.assert_array_equal(again.nearest(tokens), found)


def _projection(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random.normal(size=(6, 8)).astype(np.float32), random.normal(size=6).astype(np.float32)


def test_k_means_finds_planted_kinds_of_tokens_and_is_the_same_again() -> None:
    random = np.random.default_rng(1)
    kinds = random.normal(size=(5, 12)) * 5
    which = random.integers(5, size=(300, 9))
    tokens = (kinds[which] + random.normal(size=(300, 9, 12)) * 0.1).astype(np.float16)
    book = k_means_codebook(tokens, 20, seed=0)
    codes = book.nearest(tokens)
    pairs = {(int(code), int(kind)) for kind, code in zip(which.ravel(), codes.ravel(), strict=True)}
    assert len(pairs) == len({code for code, _ in pairs}) <= 20
    np.testing.assert_array_equal(book.vectors, k_means_codebook(tokens, 20, seed=0).vectors)
    assert len(k_means_codebook(tokens[:1, :3], 64, seed=0).vectors) == 3


def test_perplexity_is_the_number_of_codes_that_are_used_alike() -> None:
    assert health(np.array([5, 5, 5, 5, 0, 0]))["perplexity"] == pytest.approx(4)
    assert health(np.array([7, 0]))["perplexity"] == pytest.approx(1)
    assert health(np.array([3, 1, 0]))["codes_used"] == 2


@pytest.mark.parametrize("changes", [{}, {"update": "gradient", "initial": "uniform"}, {"initial": "key_words"}])
def test_a_captioner_learns_to_write_captions_from_codes(tmp_path: Path, changes: dict[str, str]) -> None:
    tokens, captions = made()
    found = train_codebook(tokens, captions, SETTINGS.model_copy(update=changes), tmp_path, "1")
    assert len(found.epochs) == 5
    assert found.epochs[-1].held_out_loss < 0.75 * found.unigram_loss
    assert found.codebook.vectors.shape == (32, 16)
    codes = found.codebook.nearest(tokens)
    assert codes.max() < 32
    if not changes:
        assert found.epochs[-1].perplexity > 8


def small_tower() -> Any:
    """A tower of made pixels [n, 3, 12, 12]: a token for each 4 x 4 of them."""
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 24, 4, 4)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.patches(pixels).flatten(2).transpose(1, 2)

    torch.manual_seed(5)
    return Tower().eval()


def pictures(rows: int = 240) -> tuple[np.ndarray, list[str]]:
    """Pixels of made images of a thing, of which its colour in one part says which it is; and captions."""
    random = np.random.default_rng(2)
    things, thing = random.normal(size=(len(THINGS), 3)), random.integers(len(THINGS), size=rows)
    pixels = random.normal(size=(rows, 3, 12, 12))
    pixels[:, :, :8, :8] = 2 * things[thing][:, :, None, None] + 0.2 * pixels[:, :, :8, :8]
    return pixels.astype(np.float16), [f"a {THINGS[one]}" for one in thing]


def test_the_tower_is_trained_too_where_it_is_asked_for(tmp_path: Path) -> None:
    pixels, captions = pictures()
    settings = SETTINGS.model_copy(update={"tower_learning_rate": 1e-3})
    tower = small_tower()
    before = {name: weight.detach().numpy().copy() for name, weight in tower.named_parameters()}
    found = train_codebook(pixels, captions, settings, tmp_path, "1", tower=tower)
    assert found.epochs[-1].held_out_loss < 0.75 * found.unigram_loss
    assert {name: weight.shape for name, weight in found.codebook.tower.items()} == {
        name: weight.shape for name, weight in before.items()
    }
    changes = [np.abs(found.codebook.tower[name] - before[name]).max() for name in before]
    assert 1e-4 < max(changes) < 0.1
    again = Codebook.from_table(found.codebook.to_table())
    for name, weight in found.codebook.tower.items():
        np.testing.assert_array_equal(again.tower[name], weight)


@pytest.mark.parametrize("trains_tower", [False, True])
def test_what_is_killed_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trains_tower: bool
) -> None:
    seen, captions = pictures(120) if trains_tower else made(120)
    settings = SETTINGS.model_copy(update={"epochs": 4, "tower_learning_rate": 1e-3 if trains_tower else None})

    def trained(name: str, version: str = "1") -> TrainedCodebook:
        tower = small_tower() if trains_tower else None
        return train_codebook(seen, captions, settings, tmp_path / name, version, tower=tower)

    whole = trained("whole")
    saved = caption_codebook._save
    passes = []

    def save_and_die(*state: object) -> None:
        saved(*state)
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(caption_codebook, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        trained("cut")
    monkeypatch.setattr(caption_codebook, "_save", saved)
    again = trained("cut")
    np.testing.assert_array_equal(again.codebook.vectors, whole.codebook.vectors)
    for name, weight in whole.codebook.tower.items():
        np.testing.assert_array_equal(again.codebook.tower[name], weight)
    assert bool(whole.codebook.tower) == trains_tower
    assert again.epochs == whole.epochs
    assert len(trained("cut", "2").epochs) == 4


def test_a_training_can_be_forgotten(tmp_path: Path) -> None:
    tokens, captions = made(60)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    passes: list[int] = []
    for forget in (False, False, True):
        if forget:
            caption_codebook.forget_training(tmp_path)
        train_codebook(tokens, captions, settings, tmp_path, "1", lambda done, _: passes.append(done))
    assert len(passes) == 2


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    tokens, captions = made(3)
    with pytest.raises(ValueError, match="3 samples"):
        train_codebook(tokens, captions, SETTINGS, tmp_path, "1")


def test_key_words_are_the_codes_they_are_asked_for() -> None:
    found = key_word_vectors(["a dog and a cat", "the dog"], 16, 8, 0)
    assert found.shape == (16, 8)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
