from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dqe_resources import images
from tests.image_files import (
    cmyk_profile,
    encoded,
    grey_profile,
    icc_chunk,
    png_chunk,
    scene,
    swapped_profile,
    with_chunk,
    with_segment,
)


def colour_of(data: bytes) -> tuple[int, ...]:
    decoded = images.decode(data)
    assert decoded.mode == "RGB"
    assert decoded.info == {}
    return tuple(int(value) for value in np.asarray(decoded).reshape(-1, 3).mean(axis=0).round())


def assert_alike(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 2, f"{found} is not {expected}"


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {"quality": 100}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_deflate"}),
        ("RGB", "AVIF", {"quality": 100}),
    ],
)
def test_colours_are_those_that_the_profile_means(mode: str, kind: str, options: dict[str, Any]) -> None:
    image = Image.new("RGB", (16, 16), (250, 10, 40)).convert(mode)
    plain = encoded(image, kind, **options)
    swapped = encoded(image, kind, icc_profile=swapped_profile(), **options)
    assert_alike(colour_of(plain), (250, 10, 40))
    assert_alike(colour_of(swapped), (10, 250, 40))


def test_what_the_profile_means_is_turned_and_laid_on_white() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGBA", (16, 8), (250, 10, 40, 255))
    half.paste((0, 0, 0, 0), (0, 0, 8, 8))
    decoded = images.decode(encoded(half, "PNG", icc_profile=swapped_profile(), exif=exif))
    assert decoded.size == (8, 16)
    assert_alike(decoded.getpixel((4, 2)), (255, 255, 255))
    assert_alike(decoded.getpixel((4, 13)), (10, 250, 40))


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("L", "TIFF")])
def test_grey_is_light_as_its_profile_means(mode: str, kind: str) -> None:
    data = encoded(Image.new(mode, (16, 16), 128 if mode == "L" else (128, 255)), kind, icc_profile=grey_profile(1.0))
    assert_alike(colour_of(data), (188, 188, 188))
    assert images.picture(data).mode == mode


def test_grey_in_a_profile_of_colours_is_read_as_such_a_grey() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, swapped_profile()):
        data = encoded(Image.new("L", (16, 16), 128), "PNG", icc_profile=profile)
        assert_alike(colour_of(data), (128, 128, 128))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_what_their_profile_means(kind: str) -> None:
    options: dict[str, Any] = {"quality": 100} if kind == "JPEG" else {}
    for ink, without, meant in [
        ((0, 0, 0, 0), (255, 255, 255), (255, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255), (119, 119, 119)),
        ((255, 0, 0, 0), (0, 255, 255), (0, 0, 0)),
    ]:
        image = Image.new("CMYK", (16, 16), ink)
        assert_alike(colour_of(encoded(image, kind, **options)), without)
        assert_alike(colour_of(encoded(image, kind, icc_profile=cmyk_profile(), **options)), meant)


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"not a profile"),
        ("RGB", swapped_profile()[:200]),
        ("RGB", cmyk_profile()),
        ("RGB", grey_profile()),
        ("L", cmyk_profile()),
        ("CMYK", swapped_profile()),
        ("CMYK", grey_profile()),
    ],
)
def test_a_profile_that_is_damaged_or_meant_for_other_pixels_is_ignored(mode: str, profile: bytes) -> None:
    image = Image.new("RGB", (16, 16), (200, 120, 120)).convert(mode)
    plain = encoded(image, "JPEG", quality=100)
    assert colour_of(encoded(image, "JPEG", quality=100, icc_profile=profile)) == colour_of(plain)


def test_a_profile_that_says_srgb_changes_no_pixel() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = scene()
    np.testing.assert_array_equal(np.asarray(images.decode(encoded(image, "PNG", icc_profile=srgb))), np.asarray(image))


def test_a_profile_in_several_segments_is_put_together_in_their_order() -> None:
    profile = swapped_profile()
    jpeg = encoded(Image.new("RGB", (16, 16), (250, 10, 40)), "JPEG", quality=100)
    parts = [profile[: len(profile) // 2], profile[len(profile) // 2 :]]
    for order in ([0, 1], [1, 0]):
        data = jpeg
        for place in order:
            data = with_segment(data, 0xE2, b"ICC_PROFILE\0" + bytes([place + 1, 2]) + parts[place])
        assert_alike(colour_of(data), (10, 250, 40))
    assert_alike(colour_of(with_segment(jpeg, 0xE2, b"ICC_PROFILE\0")), (250, 10, 40))


def test_the_gamma_of_a_png_counts_where_no_profile_does() -> None:
    png = encoded(Image.new("RGB", (16, 16), (128, 128, 128)), "PNG")
    linear, srgb = (with_chunk(png, b"gAMA", value.to_bytes(4, "big")) for value in (100_000, 45_455))
    assert_alike(colour_of(linear), (188, 188, 188))
    assert colour_of(srgb) == (128, 128, 128)
    assert colour_of(with_chunk(linear, b"sRGB", b"\0")) == (128, 128, 128)
    assert colour_of(with_chunk(png, b"gAMA", bytes(4))) == (128, 128, 128)
    assert_alike(colour_of(with_chunk(linear, b"iCCP", icc_chunk(swapped_profile()))), (128, 128, 128))


def ramp(low: float, high: float, kind: Any) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(low, high, 64).astype(kind), (8, 1)))


@pytest.mark.parametrize(
    "image",
    [
        ramp(0, 2**31 - 1, np.int32),
        ramp(-1000, 1000, np.int32),
        ramp(0, 1, np.float32),
        ramp(0, 65_535, np.float32),
        ramp(-3e38, 3e38, np.float32),
        ramp(0, 65_535, np.uint16),
    ],
)
def test_deep_grey_is_scaled_by_its_range(image: Image.Image) -> None:
    decoded = np.asarray(images.decode(encoded(image, "TIFF")))[4].astype(int)
    assert np.abs(decoded - np.linspace(0, 255, 64)[:, None]).max() <= 1


def test_unsigned_and_inverted_deep_grey_of_tiffs_is_read_as_such() -> None:
    # Pillow writes signed integers, black as 0; the same bytes under other tags are other pixels.
    signed = encoded(ramp(0, 2**31 - 1, np.int32), "TIFF")
    values = np.tile(np.linspace(0, 2**32 - 1, 64).astype(np.uint32), (8, 1)).tobytes()
    unsigned = signed.replace((339).to_bytes(2, "little") + b"\3\0\1\0\0\0\2\0", b"\x53\1\3\0\1\0\0\0\1\0")
    unsigned = unsigned.replace(ramp(0, 2**31 - 1, np.int32).tobytes(), values)
    assert unsigned != signed
    assert np.abs(np.asarray(images.decode(unsigned))[4, :, 0] - np.linspace(0, 255, 64)).max() <= 1
    deep = encoded(ramp(0, 65_535, np.uint16), "TIFF")
    inverted = deep.replace(b"\x06\1\3\0\1\0\0\0\1\0", b"\x06\1\3\0\1\0\0\0\0\0")
    assert inverted != deep
    np.testing.assert_array_equal(np.asarray(images.decode(inverted)), 255 - np.asarray(images.decode(deep)))


def test_numbers_that_are_none_and_grey_of_one_value_are_pixels_too() -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    values[1] = 1.5
    decoded = np.asarray(images.decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert decoded[0].tolist() == [0, 255, 0, 0]
    assert (decoded[1] == 255).all()
    for value in (np.nan, 7.0):
        flat = encoded(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")
        assert (np.asarray(images.decode(flat)) == 0).all()


def raw_png(depth: int, colour: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one pixel in each of two lines, the same in both."""
    import zlib

    head = (1).to_bytes(4, "big") + (2).to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    body = [png_chunk(kind, content) for kind, content in chunks]
    body.append(png_chunk(b"IDAT", zlib.compress((b"\0" + pixels) * 2)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + b"".join(body) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "pixel"),
    [
        (raw_png(1, 0, b"\x80", (b"tRNS", b"\0\1")), (255, 0)),
        (raw_png(1, 0, b"\x00", (b"tRNS", b"\0\1")), (0, 255)),
        (raw_png(2, 0, b"\x80", (b"tRNS", b"\0\2")), (170, 0)),
        (raw_png(2, 0, b"\x80", (b"tRNS", b"\0\1")), (170, 255)),
        (raw_png(8, 0, b"\x80", (b"tRNS", b"\0\x80")), (128, 0)),
        (raw_png(16, 0, b"\x80\x01", (b"tRNS", b"\x80\x01")), (128, 0)),
        (raw_png(16, 0, b"\x80\x01", (b"tRNS", b"\x80\x02")), (128, 255)),
        (raw_png(8, 2, b"\1\2\3", (b"tRNS", b"\0\1\0\2\0\3")), (1, 2, 3, 0)),
        (raw_png(16, 2, b"\1\0\2\0\3\0", (b"tRNS", b"\1\0\2\0\3\0")), (1, 2, 3, 0)),
        (raw_png(8, 3, b"\1", (b"PLTE", b"\0\0\0\7\x08\x09"), (b"tRNS", b"\xff\x40")), (7, 8, 9, 64)),
        (raw_png(8, 3, b"\1", (b"PLTE", b"\0\0\0\7\x08\x09"), (b"tRNS", bytes(300))), (7, 8, 9, 0)),
        (raw_png(8, 2, b"\1\2\3", (b"tRNS", b"\0")), (1, 2, 3)),
        (raw_png(16, 4, b"\x80\0\x40\0"), (128, 128, 128, 64)),
        (raw_png(16, 6, b"\1\0\2\0\3\0\x40\0"), (1, 2, 3, 64)),
    ],
)
def test_transparency_is_that_of_the_pixels_as_stored(data: bytes, pixel: tuple[int, ...]) -> None:
    images.inspect(data, max_bytes=1000, max_pixels=10)
    found = images.picture(data)
    assert len(found.getbands()) == len(pixel)
    assert_alike(found.getpixel((0, 1)), pixel)


def test_a_picture_in_lab_is_brought_into_srgb() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    file = io.BytesIO()
    transform.apply(Image.new("RGB", (8, 8), (200, 80, 40))).save(file, "TIFF")
    assert_alike(colour_of(file.getvalue()), (200, 80, 40))
