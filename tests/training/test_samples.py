from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dqe_assets.training.samples import Picture, picture_of
from dqe_resources import images
from tests.image_files import (
    cmyk_profile,
    encoded,
    scene,
    stored_turned,
    swapped_profile,
    with_chunk,
)

RED = Image.new("RGB", (24, 16), (250, 10, 40))


def copied(data: bytes) -> Picture:
    found = images.inspect(data, max_bytes=10**7, max_pixels=10**7)
    return picture_of({"uid": "0" * 32, "image": {"bytes": data}, "format": found.format})


@pytest.mark.parametrize(
    ("data", "extension"),
    [
        (encoded(scene(), "JPEG"), "jpg"),
        (encoded(scene(), "JPEG", icc_profile=swapped_profile()), "jpg"),
        (encoded(scene().convert("L"), "JPEG"), "jpg"),
        (encoded(scene(), "PNG", icc_profile=swapped_profile()), "png"),
        (encoded(scene().convert("P"), "PNG", transparency=0), "png"),
        (encoded(scene(), "WEBP"), "webp"),
    ],
)
def test_what_every_reader_shows_as_a_browser_does_is_copied(data: bytes, extension: str) -> None:
    assert copied(data) == Picture("0" * 32, extension, data, encoded=False)
    if extension == "jpg":
        assert copied(data + b"junk behind it").data == data, "what is no picture stays here"


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (stored_turned(RED, 6, "JPEG", icc_profile=swapped_profile(), quality=100), (10, 250, 40)),
        (stored_turned(RED, 8, "PNG"), (250, 10, 40)),
        (stored_turned(RED, 3, "TIFF", icc_profile=swapped_profile()), (10, 250, 40)),
        (stored_turned(RED, 5, "WEBP", lossless=True, icc_profile=swapped_profile()), (10, 250, 40)),
        (
            encoded(Image.new("CMYK", (24, 16), (0, 255, 0, 0)), "JPEG", icc_profile=cmyk_profile(), quality=100),
            (119,) * 3,
        ),
        (encoded(Image.new("CMYK", (24, 16), (0, 255, 255, 0)), "JPEG", quality=100), (255, 0, 0)),
        (encoded(Image.fromarray(np.full((16, 24), 32_896, np.uint16)), "PNG"), (128, 128, 128)),
        (with_chunk(encoded(RED, "PNG"), b"eXIf", b"garbage"), (250, 10, 40)),
        (with_chunk(encoded(Image.new("L", (24, 16), 128), "PNG"), b"gAMA", (100_000).to_bytes(4, "big")), (188,) * 3),
        (encoded(RED, "JPEG", quality=100)[:-2], (250, 10, 40)),
        (encoded(RED.convert("P"), "GIF"), (250, 10, 40)),
    ],
)
def test_anything_else_is_a_jpeg_that_every_reader_shows_so(data: bytes, colour: tuple[int, ...]) -> None:
    picture = copied(data)
    assert (picture.extension, picture.encoded) == ("jpg", True)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (24, 16))
        assert not image.getexif()
        assert "icc_profile" not in image.info
        found = np.asarray(image).reshape(-1, 3).mean(axis=0)
    assert np.abs(found - colour).max() <= (6 if data.startswith(b"GIF") else 2)


def test_an_image_that_cannot_be_decoded_any_more_is_copied_too() -> None:
    for format_ in ("jpeg", "tiff"):
        record: dict[str, Any] = {"uid": "0" * 32, "image": {"bytes": b"II*\0"}, "format": format_}
        assert picture_of(record) == Picture("0" * 32, "jpg" if format_ == "jpeg" else "tiff", b"II*\0", encoded=False)
