from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.ingest.raw import raw_samples, uid_of
from dqe_assets.ingest.settings import ImageLimits
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_resources import images
from dqe_resources.sources.local_file import LocalFile
from dqe_resources.sources.rows import SourceRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000}


def never(_: Iterator[object]) -> None:
    raise AssertionError("there is nothing to fetch")


def made(rows: list[SourceRow], *, source: str = "s", shard: str = "s-00000", **limits: int) -> pa.Table:
    bounds = ImageLimits.model_validate(LIMITS | limits)
    batches = raw_samples(lambda: rows, source=source, shard=shard, limits=bounds, fetch=never)  # type: ignore[arg-type]
    return pa.Table.from_batches(batches, RAW_SAMPLES)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def photo(width: int = 60, height: int = 40) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def bomb_png() -> bytes:
    """A few bytes that claim to be 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


JPEG = encoded(photo(), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not_an_image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encoded(photo(), "PNG")[:-400], "truncated"),
        (bomb_png(), "bomb"),
        (encoded(photo(1100, 1000), "JPEG", quality=1), "bomb"),
        (bytes(1_000_001), "too_large"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (encoded(photo(), "JPEG2000"), "unsupported_format"),
        (None, "missing"),
    ],
)
def test_what_is_no_image_keeps_its_row_with_the_reason(data: bytes | None, reason: str) -> None:
    rows = [SourceRow("a", "first", JPEG), SourceRow("b", "second", data), SourceRow("c", None, JPEG)]
    table = made(rows)
    assert table.schema.equals(RAW_SAMPLES)
    assert table["row"].to_pylist() == [0, 1, 2]
    assert table["status"].to_pylist() == ["ok", "failed", "ok"]
    assert table["reason"].to_pylist() == ["ok", reason, "ok"]
    assert table["image"].is_valid().to_pylist() == [True, False, True]
    assert table["detail"][1].as_py()
    assert table["caption"].to_pylist() == ["first", "second", None]


def test_files_are_read_and_a_missing_one_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(JPEG)
    (tmp_path / "folder.jpg").mkdir()
    rows = [SourceRow(name, "c", LocalFile(tmp_path / name, tmp_path)) for name in ("x.jpg", "gone.jpg", "folder.jpg")]
    table = made(rows)
    assert table["reason"].to_pylist() == ["ok", "missing", "missing"]
    assert table["image"][0]["bytes"].as_py() == JPEG
    assert "No such file" in table["detail"][1].as_py()


def test_size_is_that_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(photo(60, 40), "JPEG", exif=exif)
    table = made([SourceRow("a", "c", turned)])
    row = table.drop_columns(["image"]).to_pylist()[0]
    assert (row["width"], row["height"], row["exif_orientation"], row["format"]) == (40, 60, 6, "jpeg")
    assert images.decode(turned).size == (40, 60)


def test_uids_are_of_the_key_and_the_source_and_nothing_else() -> None:
    assert uid_of("s", "a") == uid_of("s", "a")
    assert len({uid_of("s", "a"), uid_of("t", "a"), uid_of("s", "b"), uid_of("", "s\0a")}) == 4
    assert len(uid_of("s", "a")) == 32
    first = made([SourceRow("a", "c", JPEG), SourceRow("b", "c", JPEG)], shard="s-0")
    second = made([SourceRow("b", "other", JPEG)], shard="s-1")
    assert first["uid"][1] == second["uid"][0]


def test_uids_and_other_columns_of_the_source_are_kept_and_a_row_that_it_could_not_read_is_a_row() -> None:
    rows = [
        SourceRow("a", "c", JPEG, uid="0" * 32, metadata='{"clip": 0.3}'),
        SourceRow("b", None, None, url="http://example.org/x", fault="list.csv, line 2: 3 columns, expected 2"),
    ]
    table = made(rows)
    assert table["uid"].to_pylist() == ["0" * 32, uid_of("s", "b")]
    assert table["source_metadata"].to_pylist() == ['{"clip": 0.3}', None]
    assert table["reason"].to_pylist() == ["ok", "bad_row"]
    assert table["detail"][1].as_py() == "list.csv, line 2: 3 columns, expected 2"


def test_a_large_image_is_made_smaller_if_asked_and_its_size_before_is_kept() -> None:
    table = made([SourceRow("a", "c", encoded(photo(90, 60), "PNG")), SourceRow("b", "c", JPEG)], longest_side=60)
    first, second = table.to_pylist()
    assert (first["width"], first["height"], first["original_width"], first["original_height"]) == (60, 40, 90, 60)
    assert first["bytes"] == len(first["image"]["bytes"]) != first["original_bytes"]
    assert images.decode(first["image"]["bytes"]).size == (60, 40)
    assert (second["image"]["bytes"], second["original_width"], second["original_bytes"]) == (JPEG, None, None)


def test_many_images_come_in_batches_of_bounded_size() -> None:
    rows = [SourceRow(str(number), "c", JPEG + bytes(900_000)) for number in range(60)]
    bounds = ImageLimits(**LIMITS)
    batches = list(raw_samples(lambda: rows, source="s", shard="s-0", limits=bounds, fetch=never))  # type: ignore[arg-type]
    assert [batch.num_rows for batch in batches] == [19, 19, 19, 3]
    assert pa.Table.from_batches(batches)["row"].to_pylist() == list(range(60))


@pytest.mark.parametrize(
    ("image", "kind", "pixel"),
    [
        (Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG", (255, 255, 255)),
        (Image.new("L", (4, 4), 77), "PNG", (77, 77, 77)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("LA", (4, 4), (0, 255)), "PNG", (0, 0, 0)),
        (Image.new("P", (4, 4)), "GIF", (0, 0, 0)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 32_896, np.uint16)), "PNG", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(image: Image.Image, kind: str, pixel: tuple[int, int, int]) -> None:
    decoded = images.decode(encoded(image, kind))
    assert decoded.mode == "RGB"
    assert np.abs(np.array(decoded)[0, 0].astype(int) - pixel).max() <= 2


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.decode(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("position", range(0, len(JPEG), 97))
def test_damage_anywhere_is_an_image_or_an_image_error(position: int) -> None:
    damaged = JPEG[:position] + bytes(8) + JPEG[position + 8 :]
    try:
        info = images.inspect(damaged, **LIMITS)
    except images.ImageError as error:
        assert error.reason in {"not_an_image", "truncated", "damaged", "bomb"}  # noqa: PT017
    else:
        assert info.format == "jpeg"
