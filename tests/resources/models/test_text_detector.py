from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from dqe_resources.images import ImageError, decode
from dqe_resources.models import text_detector
from dqe_resources.models.text_detector import TextDetector
from dqe_resources.parallel import ordered_map
from dqe_resources.sources.sample_images import sample_rows


def page(*lines: str, size: tuple[int, int] = (640, 480), height: int = 28) -> Image.Image:
    image = Image.new("RGB", size, "#305030")
    for place, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 30 + 60 * place), line, "white", ImageFont.load_default(height))
    return image


def test_lines_are_found_where_they_are_and_read_from_the_top() -> None:
    first, second = TextDetector().detect(page("A quiet morning", "by the river"))
    assert (first.text, second.text) == ("A quiet morning", "by the river")
    assert first.confidence is not None
    assert first.confidence > 0.9
    assert first.corners.shape == (4, 2)
    (left, top), _, (right, bottom), _ = first.corners * (640, 480)
    box = ImageDraw.Draw(page()).textbbox((30, 30), "A quiet morning", ImageFont.load_default(28))
    np.testing.assert_allclose((left, top, right, bottom), box, atol=14)


def test_a_large_image_gives_the_same_shares_as_a_small_one() -> None:
    small = page("A quiet morning")
    large = small.resize((2560, 1920))
    (one,), (other,) = TextDetector().detect(small), TextDetector().detect(large)
    assert other.text == one.text
    np.testing.assert_allclose(other.corners, one.corners, atol=0.02)


def test_without_reading_every_region_that_the_detector_is_sure_of_counts() -> None:
    wheel = page()
    ImageDraw.Draw(wheel).ellipse((280, 200, 340, 260), outline="white", width=8)
    seen = TextDetector(recognise=False, min_score=0.3).detect(wheel)
    assert [(one.text, one.confidence) for one in seen] == [(None, None)] * len(seen)
    assert len(seen) == 1
    assert TextDetector(min_score=0.3).detect(wheel) == []
    lettered = page("A quiet morning")
    (region,) = TextDetector(recognise=False).detect(lettered)
    assert region.text is None
    assert TextDetector(min_confidence=1.0).detect(lettered) == []


def test_only_the_largest_lines_are_read_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_detector, "MAX_READ", 1)
    monkeypatch.setattr(text_detector, "MAX_TEXT", 7)
    regions = TextDetector().detect(page("small", "A much longer line"))
    assert sorted(str(region.text) for region in regions) == ["A much ", "None"]


def test_images_can_be_looked_at_side_by_side() -> None:
    pictures = [page(f"number {place} of many") for place in range(6)]
    found = list(ordered_map(TextDetector().detect, pictures))
    assert [regions[0].text for regions in found] == [f"number {place} of many" for place in range(6)]


def test_every_caption_drawn_into_a_photo_of_the_sample_is_read() -> None:
    shares = []
    for row in sample_rows(0, 128):
        if row.truth is None or row.truth.image != "caption_drawn" or not row.image:
            continue
        regions = TextDetector().detect(decode(row.image))
        found = {word.strip(".,&:").lower() for region in regions for word in str(region.text).split()}
        words = {word.strip(".,&:").lower() for word in (row.caption or "").replace("&amp;", "").split()}
        shares.append(len(found & words) / len(words))
    assert len(shares) >= 10
    assert min(shares) > 0
    assert np.mean(shares) > 0.8


def test_what_is_painted_over_text_does_not_change_where_it_is() -> None:
    assert TextDetector(fill="image_mean").signature() == TextDetector().signature()
    assert TextDetector(longest_side=640).signature() != TextDetector().signature()
    with pytest.raises(ValidationError, match="surrounding_mean"):
        TextDetector.model_validate({"fill": "black"})
    with pytest.raises(ValidationError, match="allowed: fill, longest_side, min_confidence, min_score, recognise"):
        TextDetector.model_validate({"side": 3})


def test_noise_is_no_text() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert TextDetector().detect(Image.fromarray(noise)) == []
    with pytest.raises(ImageError):
        decode(b"no image")
