from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from dqe_assets.ingest.resize import Resized, resize
from dqe_resources import images


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(width: int, height: int) -> Image.Image:
    """A smooth picture: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=-1).astype(np.uint8))


def resized(data: bytes, longest_side: int) -> tuple[Resized, Image.Image]:
    small = resize(data, longest_side)
    assert small is not None
    image = Image.open(io.BytesIO(small.data))
    image.load()
    assert image.size == (small.width, small.height)
    assert str(image.format).lower() == small.format
    assert not image.getexif()
    assert "icc_profile" not in image.info
    return small, image


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 200), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_the_longest_side_is_kept_to_and_nothing_is_enlarged(width: int, height: int, longest: int, kind: str) -> None:
    data = encoded(scene(width, height), kind)
    if max(width, height) <= longest:
        assert resize(data, longest) is None
        return
    small, _ = resized(data, longest)
    assert max(small.width, small.height) == longest
    scale = longest / max(width, height)
    assert abs(small.width - width * scale) <= 1
    assert abs(small.height - height * scale) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("longest", [200, 64, 33])
def test_the_picture_stays_the_same(kind: str, longest: int) -> None:
    picture = scene(640, 400)
    small, image = resized(encoded(picture, kind), longest)
    reference = picture.resize((small.width, small.height), Image.Resampling.BOX)
    assert small.format == "jpeg"
    difference = np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(reference, int))
    assert difference.mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "TIFF"):
        data = encoded(scene(320, 200), kind, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        small, image = resized(data, 80)
        assert (small.width, small.height) == ((80, 50) if upright.width == 320 else (50, 80))
        reference = np.asarray(upright.resize(image.size, Image.Resampling.BOX), int)
        assert np.abs(np.asarray(image, int) - reference).mean() < 2


@pytest.mark.parametrize(
    ("image", "kind", "options", "format_", "mode", "pixel"),
    [
        (Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", {}, "jpeg", "RGB", (255, 0, 0)),
        (Image.new("L", (64, 64), 77), "JPEG", {}, "jpeg", "L", 77),
        (Image.new("1", (64, 64), 1), "PNG", {}, "jpeg", "L", 255),
        (Image.new("RGBA", (64, 64), (255, 0, 0, 255)), "PNG", {}, "jpeg", "RGB", (254, 0, 0)),
        (Image.new("RGBA", (64, 64), (255, 0, 0, 90)), "PNG", {}, "png", "RGBA", (255, 0, 0, 90)),
        (Image.new("RGBA", (64, 64), (255, 0, 0, 90)), "WEBP", {"lossless": True}, "png", "RGBA", (255, 0, 0, 90)),
        (Image.new("LA", (64, 64), (9, 90)), "PNG", {}, "png", "LA", (9, 90)),
        (Image.new("RGB", (64, 64), (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, "png", "RGBA", (0, 0, 0, 0)),
        (Image.new("P", (64, 64), 0), "PNG", {}, "jpeg", "RGB", (0, 0, 0)),
        (Image.new("P", (64, 64), 0), "PNG", {"transparency": 0}, "png", "RGBA", (0, 0, 0, 0)),
        (Image.fromarray(np.full((64, 64), 32_896, np.uint16)), "PNG", {}, "jpeg", "L", 128),
    ],
)
def test_every_mode_is_handled(
    image: Image.Image, kind: str, options: dict[str, Any], format_: str, mode: str, pixel: Any
) -> None:
    small, result = resized(encoded(image, kind, **options), 32)
    assert (small.format, result.mode) == (format_, mode)
    assert np.abs(np.array(result)[5, 5].astype(int) - np.array(pixel)).max() <= 2


def test_hidden_colours_do_not_bleed_out_of_transparent_pixels() -> None:
    half = np.zeros((64, 64, 4), np.uint8)
    half[:, :32] = (0, 0, 255, 255)
    half[:, 32:] = (255, 255, 0, 0)
    _, image = resized(encoded(Image.fromarray(half), "PNG"), 20)
    visible = np.array(image)[np.array(image)[..., 3] > 40]
    assert (visible[:, 2] > 240).all()
    assert (visible[:, 0] < 15).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        _, image = resized(data, 32)
        assert getattr(image, "n_frames", 1) == 1
        assert np.abs(np.array(image.convert("RGB"))[5, 5].astype(int) - (255, 0, 0)).max() <= 6


def swapped_profile() -> bytes:
    """sRGB with red and green changed over, so that a picture that follows it looks other than its numbers."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_embedded_profile_is_converted_from(mode: str) -> None:
    image = Image.new(mode, (64, 64), (250, 10, 10, 128)[: len(mode)])
    _, result = resized(encoded(image, "PNG", icc_profile=swapped_profile()), 32)
    pixel = np.array(result)[5, 5].astype(int)
    assert pixel[1] > 230
    assert pixel[0] < 60
    if mode == "RGBA":
        assert pixel[3] == 128


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG")])
@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()])
def test_a_profile_that_does_not_fit_is_left_out(mode: str, kind: str, profile: bytes) -> None:
    small, _ = resized(encoded(Image.new(mode, (64, 64)), kind, icc_profile=profile), 32)
    assert small.format == "jpeg"


def test_what_is_no_image_is_an_image_error() -> None:
    whole = encoded(scene(400, 300), "JPEG")
    for data, reason in [(b"<html>", "not_an_image"), (whole[: len(whole) // 2], "truncated")]:
        with pytest.raises(images.ImageError) as caught:
            resize(data, 32)
        assert caught.value.reason == reason


def test_the_same_bytes_give_the_same_bytes() -> None:
    data = encoded(scene(400, 300), "JPEG")
    assert resize(data, 100) == resize(data, 100)
