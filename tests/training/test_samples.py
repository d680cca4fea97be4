import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.training.samples import Picture, StoreShard, picture_of
from dqe_resources import images
from dqe_resources.store import Stamp, Store
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


def no_value(data_type: pa.DataType) -> Any:
    return "" if pa.types.is_string(data_type) else [] if pa.types.is_list(data_type) else 0


def test_what_is_said_of_a_sample_has_nothing_of_the_machine(tmp_path: Path) -> None:
    uid, store = "0" * 32, Store(str(tmp_path))
    row: dict[str, Any] = {field.name: None if field.nullable else no_value(field.type) for field in RAW_SAMPLES} | {
        "uid": uid,
        "status": "ok",
        "image": {"bytes": encoded(scene(), "PNG"), "path": None},
        "format": "png",
        "caption": "a field",
        "image_name": "/home/somebody/pictures/1.png",
        "url": "https://me:secret@example.org/1.png?X-Amz-Signature=abc",
    }
    store.write_table("raw_samples", "s-00000", pa.Table.from_pylist([row], RAW_SAMPLES), RAW_SAMPLES, Stamp("", "", 1))
    (sample,) = StoreShard(store, "s-00000").read({uid})
    facts = json.loads(sample.files["json"])
    assert (facts["image_name"], facts["url"]) == ("1.png", "https://example.org/1.png")
