"""Measures of an image that need no model."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from dqe_assets.features.measure import COLOURS, dominant_colours, measure, name_colours
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_resources.images import perceptual_hash

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "sbu" / "images"
RAMP_HASH = 0xAA00000000000000


def textured(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """Smooth random blobs: something like a photo's frequencies, the same at every size."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def distance(a: Image.Image, b: Image.Image) -> int:
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def test_the_names_are_columns_of_image_features() -> None:
    assert set(measure(textured())._fields) < set(IMAGE_FEATURES.names)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3), (640, 480)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 40)])
def test_a_flat_image_of_any_size_has_finite_measures(size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = measure(Image.new("RGB", size, colour))
    assert all(math.isfinite(value) for value in got if isinstance(value, float))
    assert (got.sharpness, got.contrast) == (0, 0)
    assert (got.focus_x, got.focus_y) == (0.5, 0.5)
    assert len(got.colours) == 1
    assert got.perceptual_hash == (1 << 63 if any(colour) else 0)


@settings(max_examples=50)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_noise_of_any_size_stays_in_range(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    got = measure(Image.fromarray(pixels))
    assert 0 <= got.perceptual_hash < 1 << 64
    assert all(0 <= value <= 1 for value in (got.brightness, got.contrast, got.focus_x, got.focus_y))
    assert got.sharpness >= 0
    assert got.colourfulness >= 0
    assert len(got.colours) <= 3
    assert set(got.colours) <= set(COLOURS)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="not L"):
        measure(Image.new("L", (4, 4)))


def test_near_copies_have_near_hashes_and_others_do_not() -> None:
    image = textured()
    assert distance(image, image.resize((97, 61), Image.Resampling.LANCZOS)) <= 4
    assert distance(image, ImageEnhance.Brightness(image).enhance(0.8)) <= 4
    assert distance(image, textured(seed=1)) > 16


def test_the_hash_is_that_of_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash", reason="imagehash is not installed")
    for seed in range(20):
        image = textured(seed=seed)
        assert perceptual_hash(image) == int(str(imagehash.phash(image)), 16)


def test_the_hash_of_a_known_image_never_changes() -> None:
    ramp = np.add.outer(np.arange(32) * 3, np.arange(32) ** 2 // 8).astype(np.uint8)
    assert perceptual_hash(Image.fromarray(ramp).convert("RGB")) == RAMP_HASH


def test_blur_lowers_sharpness_and_grey_lowers_colourfulness() -> None:
    image = textured()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8))
    assert measure(image).sharpness < measure(noise).sharpness
    assert measure(image.convert("L").convert("RGB")).colourfulness == 0
    assert measure(image).colourfulness > 30


def test_brightness_and_contrast_of_a_known_image() -> None:
    halves = np.zeros((100, 100, 3), dtype=np.uint8)
    halves[:, 50:] = 255
    got = measure(Image.fromarray(halves))
    assert got.brightness == pytest.approx(0.5)
    assert got.contrast == pytest.approx(0.5)
    assert got.colours == ("black", "white")


@pytest.mark.parametrize(("corner", "focus"), [((10, 10), (0.15, 0.2)), ((150, 70), (0.85, 0.8))])
def test_focus_is_where_the_detail_is(corner: tuple[int, int], focus: tuple[float, float]) -> None:
    image = Image.new("RGB", (200, 100), (90, 90, 90))
    image.paste(textured(40, 20), corner)
    got = measure(image)
    assert (got.focus_x, got.focus_y) == pytest.approx(focus, abs=0.02)


def test_measures_hardly_depend_on_the_size() -> None:
    small, large = measure(textured(512, 384)), measure(textured(1024, 768))
    assert small.brightness == pytest.approx(large.brightness, abs=0.01)
    assert small.sharpness == pytest.approx(large.sharpness, rel=0.3)
    assert small.colours == large.colours


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 12), "black"),
        ((128, 128, 128), "grey"),
        ((250, 250, 248), "white"),
        ((200, 20, 30), "red"),
        ((120, 20, 25), "red"),
        ((255, 140, 0), "orange"),
        ((110, 70, 30), "brown"),
        ((222, 200, 165), "beige"),
        ((250, 220, 30), "yellow"),
        ((40, 110, 40), "green"),
        ((90, 100, 40), "green"),
        ((0, 140, 140), "teal"),
        ((30, 60, 160), "blue"),
        ((135, 190, 235), "blue"),
        ((110, 40, 150), "purple"),
        ((255, 150, 190), "pink"),
    ],
)
def test_colours_have_their_everyday_names(rgb: tuple[int, int, int], name: str) -> None:
    assert name_colours(np.array(rgb, dtype=np.uint8)) == name


def test_colours_come_largest_first_and_small_ones_not_at_all() -> None:
    image = Image.new("RGB", (100, 100), (30, 60, 200))
    image.paste((210, 20, 30), (0, 0, 100, 30))
    image.paste((250, 220, 30), (0, 90, 100, 100))
    assert dominant_colours(image) == ("blue", "red")


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the SBU photos are not here")
def test_colours_of_real_photos_are_what_a_person_says() -> None:
    def colours(name: str) -> tuple[str, ...]:
        with Image.open(PHOTOS / name) as photo:
            return measure(photo.convert("RGB")).colours

    assert colours("4657604206_509efcddcf.jpg") == ("red",)
    assert colours("5074494155_059f1d487a.jpg")[:2] == ("black", "green")
    assert colours("177587051_77a20a40b2.jpg") == ("black", "grey")
