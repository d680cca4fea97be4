from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from dqe_assets.score.image_text import covered, image_text, without_text
from dqe_assets.score.tables import IMAGE_TEXT
from dqe_resources.models.text_detector import TextDetector

SHARES = st.floats(0, 1, width=32)
QUADS = st.lists(st.lists(st.tuples(SHARES, SHARES), min_size=4, max_size=4).map(np.float32), max_size=4)
WORDS = "Fresh bread every day"


def picture(text: str | None = None, size: tuple[int, int] = (320, 240), colour: str = "#4060a0") -> Image.Image:
    image = Image.new("RGB", size, colour)
    if text:
        ImageDraw.Draw(image).text((20, size[1] // 2), text, "white", ImageFont.load_default(24))
    return image


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_each_picture_is_looked_at_once_and_a_failed_row_has_nothing() -> None:
    looked: list[int] = []

    class Counting(TextDetector):
        def detect(self, image: Image.Image) -> list:
            looked.append(1)
            return super().detect(image)

    plain, lettered = encoded(picture()), encoded(picture(WORDS))
    files = [plain, lettered, None, lettered, plain]
    digests = ["a", "b", None, "b", "a"]
    faults = [None, None, "damaged: x", None, None]
    images = pa.array([file and {"bytes": file, "path": "x"} for file in files])
    features = pa.table({"uid": [str(row) for row in range(5)], "pixel_digest": digests, "fault": faults})
    batches = pa.table({"image": images}).to_batches(max_chunksize=2)
    table = image_text(features, batches, Counting())
    assert table["fault"].to_pylist() == faults
    assert len(looked) == 2
    assert table.schema == IMAGE_TEXT
    assert table["text"].to_pylist() == [None, WORDS, None, WORDS, None]
    assert [None if regions is None else len(regions) for regions in table["regions"].to_pylist()] == [0, 1, None, 1, 0]
    areas = table["text_area"].to_pylist()
    assert (areas[0], areas[2]) == (0, None)
    assert 0.05 < areas[1] < 0.2


def test_a_picture_that_the_detector_fails_at_is_that_rows_fault() -> None:
    class Failing(TextDetector):
        def detect(self, image: Image.Image) -> list:
            if image.width == 30:
                raise ZeroDivisionError("no lines")
            return super().detect(image)

    files = [encoded(picture(WORDS)), encoded(picture(size=(30, 30))), b"\xff\xd8\xff"]
    features = pa.table({"uid": ["a", "b", "c"], "pixel_digest": ["a", "b", "c"], "fault": pa.nulls(3, pa.string())})
    raw = pa.table({"image": pa.array([{"bytes": file, "path": "x"} for file in files])})
    table = image_text(features, raw.to_batches(), Failing())
    assert table["text"].to_pylist() == [WORDS, None, None]
    assert table["regions"].is_valid().to_pylist() == [True, False, False]
    assert table["fault"].to_pylist() == [
        None,
        "damaged: ZeroDivisionError: no lines",
        "truncated: JPEG: it ends too early",
    ]


def test_a_detector_that_cannot_be_loaded_is_no_fault_of_an_image() -> None:
    class Absent(TextDetector):
        def load(self) -> None:
            raise OSError("no model")

    features = pa.table({"uid": ["a"], "pixel_digest": ["a"], "fault": pa.nulls(1, pa.string())})
    raw = pa.table({"image": pa.array([{"bytes": encoded(picture()), "path": "x"}])})
    with pytest.raises(OSError, match="no model"):
        image_text(features, raw.to_batches(), Absent())


def test_text_on_a_plain_ground_vanishes() -> None:
    image = picture(WORDS)
    corners = [region.corners for region in TextDetector().detect(image)]
    for fill in ("surrounding_mean", "image_mean"):
        assert np.abs(np.int32(without_text(image, corners, fill)) - np.int32(picture())).max() <= 1, fill


def test_each_region_takes_the_colour_of_what_is_around_it() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, :100], pixels[:, 100:] = (200, 0, 0), (0, 0, 200)
    image = Image.fromarray(pixels)
    left, right = (np.float32([[x, 0.4], [x + 0.2, 0.4], [x + 0.2, 0.6], [x, 0.6]]) for x in (0.1, 0.7))
    marked = pixels.copy()
    marked[40:60, 20:60] = marked[40:60, 140:180] = 255
    assert np.array_equal(np.asarray(without_text(Image.fromarray(marked), [left, right])), pixels)
    mean = np.asarray(without_text(image, [left, right], "image_mean"))
    assert mean[50, 40].tolist() == mean[50, 160].tolist() == [100, 0, 100]


def test_the_ring_around_a_line_leaves_out_the_line_below() -> None:
    pixels = np.full((100, 200, 3), 50, np.uint8)
    pixels[30:60, 20:180] = 255
    lines = [np.float32([[0.1, y], [0.9, y], [0.9, y + 0.15], [0.1, y + 0.15]]) for y in (0.3, 0.45)]
    assert (np.asarray(without_text(Image.fromarray(pixels), lines)) == 50).all()


def test_an_image_that_is_all_text_becomes_its_mean() -> None:
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:5] = 200
    whole = np.float32([[-0.1, -0.1], [1.1, -0.1], [1.1, 1.1], [-0.1, 1.1]])
    for fill in ("surrounding_mean", "image_mean"):
        assert (np.asarray(without_text(Image.fromarray(pixels), [whole], fill)) == 100).all()


@given(QUADS, st.integers(1, 40), st.integers(1, 40), st.sampled_from(["surrounding_mean", "image_mean"]))
@example([np.float32([[0.375, 0.375], [0.75, 0.0], [0.25, 0.875], [0.125, 0.0]])], 20, 33, "surrounding_mean")
def test_whatever_the_regions_nothing_outside_them_changes(
    corners: list[np.ndarray], width: int, height: int, fill: str
) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    text = covered(corners, (width, height))
    assert text.shape == (height, width)
    found = np.asarray(without_text(Image.fromarray(pixels), corners, fill))
    assert np.array_equal(found[~text], pixels[~text])
    if fill == "image_mean" and text.any():
        assert len(np.unique(found[text], axis=0)) == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (30, 30)])
def test_images_of_any_shape_can_be_looked_at(size: tuple[int, int]) -> None:
    assert TextDetector().detect(picture(size=size)) == []
