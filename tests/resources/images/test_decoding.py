from __future__ import annotations

import contextlib
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dqe_resources import images
from dqe_resources.errors import DataQualityError
from dqe_resources.images import decoding
from tests.image_files import (
    ORIENTATION,
    TURNED,
    encoded,
    exif_of,
    icc_chunk,
    noise,
    png_chunk,
    scene,
    stored_turned,
    swapped_profile,
    with_chunk,
    with_segment,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = {"max_bytes": 10**8, "max_pixels": 10**7}
BAD_TAG = (256, 9, 1, (-5).to_bytes(4, "little", signed=True))
"""A tag that Pillow can read and cannot write back."""


def turned_by(orientation: int) -> tuple[int, int, int, bytes]:
    return (ORIENTATION, 3, 1, orientation.to_bytes(4, "little"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options", "levels"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, 5),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"big_tiff": True}, 0),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 8),
    ],
)
def test_pixels_and_sizes_are_upright(kind: str, options: dict[str, Any], levels: int, orientation: int) -> None:
    picture = scene(120, 80)
    data = stored_turned(picture, orientation, kind, **options)
    info = images.inspect(data, **LIMITS)
    assert (info.width, info.height, info.exif_orientation) == (120, 80, orientation)
    decoded = images.decode(data)
    assert decoded.size == (120, 80)
    assert np.abs(np.asarray(decoded, int) - np.asarray(picture, int)).max() <= levels
    assert images.is_plain(data) == (orientation == 1)
    with images.opened(data) as found:
        assert found.size == (120, 80)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_read_upright_where_its_decoder_is_installed(orientation: int) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    picture = scene(128, 80)
    data = stored_turned(picture, orientation, "HEIF", quality=95)
    info = images.inspect(data, **LIMITS)
    assert (info.format, info.width, info.height) == ("heif", 128, 80)
    assert np.abs(np.asarray(images.decode(data), int) - np.asarray(picture, int)).mean() < 3
    swapped = encoded(Image.new("RGB", (64, 64), (250, 10, 40)), "HEIF", icc_profile=swapped_profile(), quality=95)
    assert np.abs(np.asarray(images.decode(swapped), int) - (10, 250, 40)).max() <= 4


@pytest.mark.parametrize(("name", "kind"), [("HEIC", "HEIF"), ("AVIF", "AVIF")])
def test_a_format_whose_decoder_is_not_installed_is_named(name: str, kind: str, monkeypatch: Any) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed").register_heif_opener()
    data = encoded(scene(), kind)
    assert images.decode(data).size == scene().size
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(decoding.features, "check", lambda feature: False)
    decoding.has_decoder.cache_clear()
    with pytest.raises(images.ImageError) as caught:
        images.inspect(data, **LIMITS)
    monkeypatch.undo()
    decoding.has_decoder.cache_clear()
    assert (caught.value.reason, caught.value.detail) == ("unsupported_format", name)


def jpeg_with(marker: int, content: bytes) -> Callable[[], bytes]:
    return lambda: with_segment(encoded(scene(), "JPEG"), marker, content)


def png_with(kind: bytes, content: bytes) -> Callable[[], bytes]:
    return lambda: with_chunk(encoded(scene(), "PNG"), kind, content)


def wrong_checksum() -> bytes:
    odd = bytearray(with_chunk(encoded(scene(), "PNG"), b"tEXt", b"Comment\0text"))
    odd[45] ^= 1
    return bytes(odd)


def tiff_with(tag: int, kind: int, count: int) -> Callable[[], bytes]:
    """A TIFF with a tag whose value is of another kind and length than it should be."""

    def make() -> bytes:
        data = encoded(
            scene(), "TIFF", tiffinfo={270: "description", 700: b"<xmp/>", 305: "software"}, icc_profile=b"icc"
        )
        entries = data[int.from_bytes(data[4:8], "little") :]
        place = entries.index(struct.pack("<HH", tag, entries[entries.index(struct.pack("<H", tag)) + 2]))
        changed = struct.pack("<HHI", tag, kind, count)
        return data[: -len(entries)] + entries[:place] + changed + entries[place + 8 :]

    return make


LARGE_TEXT = b"Comment\0\0" + zlib.compress(bytes(80_000_000))
INTACT = {
    "jpeg: garbage for EXIF": jpeg_with(0xE1, b"Exif\0\0garbage"),
    "jpeg: EXIF that ends too early": jpeg_with(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    "jpeg: empty EXIF": jpeg_with(0xE1, b"Exif\0\0"),
    "jpeg: an orientation that there is not": jpeg_with(0xE1, b"Exif\0\0" + exif_of(turned_by(9))),
    "jpeg: garbage for XMP": jpeg_with(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"),
    "jpeg: garbage for a multi-picture index": jpeg_with(0xE2, b"MPF\0garbage"),
    "jpeg: garbage for Photoshop's data": jpeg_with(0xED, b"Photoshop 3.0\x008BIM\xff"),
    "jpeg: a short segment of Adobe's": jpeg_with(0xEE, b"Adobe"),
    "jpeg: an empty comment": jpeg_with(0xFE, b""),
    "jpeg: junk between segments": lambda: encoded(scene(), "JPEG")[:20] + b"junk" + encoded(scene(), "JPEG")[20:],
    "jpeg: a short segment of JFIF's": jpeg_with(0xE0, b"JFIF\0"),
    "jpeg: junk after the end": lambda: encoded(scene(), "JPEG") + bytes(5000),
    "jpeg: padding before the end": lambda: encoded(scene(), "JPEG")[:-2] + bytes(16) + b"\xff\xd9",
    "jpeg: no end mark": lambda: encoded(scene(), "JPEG")[:-2],
    "jpeg: half an end mark": lambda: encoded(scene(), "JPEG", progressive=True)[:-1],
    "png: garbage for EXIF": png_with(b"eXIf", b"garbage"),
    "png: no EXIF": png_with(b"eXIf", b""),
    "png: a large profile": png_with(b"iCCP", icc_chunk(bytes(3_000_000))),
    "png: a profile too large to be one": png_with(b"iCCP", icc_chunk(bytes(80_000_000))),
    "png: garbage for a profile": png_with(b"iCCP", b"name\0\0garbage"),
    "png: a large text": png_with(b"zTXt", LARGE_TEXT),
    "png: a large text in Unicode": png_with(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(80_000_000))),
    "png: many texts": lambda: (
        with_chunk(encoded(scene(), "PNG"), b"", b"")[:33]
        + png_chunk(b"tEXt", b"a\0" + bytes(1_000_000)) * 70
        + encoded(scene(), "PNG")[33:]
    ),
    "png: short chunks": lambda: with_chunk(
        with_chunk(with_chunk(encoded(scene(), "PNG"), b"pHYs", b"\0"), b"gAMA", b"\1"), b"acTL", b"\0"
    ),
    "png: a text with a wrong checksum": wrong_checksum,
    "png: no end": lambda: encoded(scene(), "PNG")[:-12],
    "png: junk after the end": lambda: encoded(scene(), "PNG") + b"junk" * 99,
    "webp: garbage for EXIF": lambda: encoded(scene(), "WEBP", lossless=True, exif=b"garbage"),
    "webp: garbage for a profile": lambda: encoded(scene(), "WEBP", lossless=True, icc_profile=b"garbage"),
    "tiff: a tag that cannot be written": lambda: encoded(scene(), "TIFF", tiffinfo={65000: "text"}),
    "tiff: a description of doubles": tiff_with(270, 12, 2**31),
    "tiff: XMP of numbers": tiff_with(700, 3, 1),
    "tiff: a profile of numbers": tiff_with(34675, 9, 1),
    "tiff: a profile beyond the end": tiff_with(34675, 7, 10**6),
    "tiff: a program's name beyond the end": tiff_with(305, 2, 10**9),
    "tiff: big": lambda: encoded(scene(), "TIFF", big_tiff=True),
    "tiff: several pictures": lambda: encoded(scene(), "TIFF", save_all=True, append_images=[scene(20, 20)]),
    "tiff: garbage for a profile": lambda: encoded(scene(), "TIFF", icc_profile=b"garbage"),
    "avif: garbage for EXIF": lambda: encoded(scene(), "AVIF", exif=b"Exif\0\0" + exif_of(BAD_TAG)),
}


@pytest.mark.parametrize("make", INTACT.values(), ids=INTACT)
def test_pixels_that_are_whole_are_ok_whatever_else_is_in_the_file(make: Callable[[], bytes]) -> None:
    data = make()
    info = images.inspect(data, **LIMITS)
    assert (info.width, info.height, info.exif_orientation) == (160, 96, 1)
    assert np.abs(np.asarray(images.decode(data), int) - np.asarray(scene(), int)).mean() < 4


STARTS = st.sampled_from(
    [b"", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08", b"http://ns.adobe.com/", b"MPF\0MM\0*", b"8BIM"]
)
CONTENTS = st.builds(bytes.__add__, STARTS, st.binary(max_size=80))


@given(st.lists(st.tuples(st.sampled_from([*range(0xE1, 0xEE), 0xEF, 0xFE]), CONTENTS), max_size=4))
def test_no_segment_beside_its_pixels_spoils_a_jpeg(segments: list[tuple[int, bytes]]) -> None:
    data = plain = encoded(scene(), "JPEG")
    for marker, content in segments:
        data = with_segment(data, marker, content)
    with images.opened(data) as found:
        turn = found.bare.orientation
    assert images.inspect(data, **LIMITS).exif_orientation == turn
    if turn == 1:
        assert images.decode(data).tobytes() == images.decode(plain).tobytes()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"tEXt",
                    b"zTXt",
                    b"iTXt",
                    b"iCCP",
                    b"eXIf",
                    b"cHRM",
                    b"pHYs",
                    b"acTL",
                    b"fcTL",
                    b"sPLT",
                    b"tIME",
                    b"hIST",
                    b"bKGD",
                    b"sBIT",
                    b"abCd",
                ]
            ),
            CONTENTS,
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_no_chunk_beside_its_pixels_spoils_a_png(chunks: list[tuple[bytes, bytes]], is_behind: bool) -> None:
    data = encoded(scene(), "PNG")
    for kind, content in chunks:
        data = data[:-12] + png_chunk(kind, content) + data[-12:] if is_behind else with_chunk(data, kind, content)
    if images.inspect(data, **LIMITS).exif_orientation == 1:
        assert images.decode(data).tobytes() == scene().tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_tag_that_cannot_be_written_back_does_not_hinder_turning(kind: str) -> None:
    exif = exif_of(BAD_TAG, turned_by(6))
    stored = scene(120, 80).transpose(Image.Transpose.ROTATE_90)
    if kind == "JPEG":
        data = with_segment(encoded(stored, kind), 0xE1, b"Exif\0\0" + exif)
    elif kind == "PNG":
        data = with_chunk(encoded(stored, kind), b"eXIf", exif)
    else:
        options: dict[str, Any] = {"exif": exif} if kind == "WEBP" else {"tiffinfo": {ORIENTATION: 6, 65000: b"\xff"}}
        data = encoded(stored, kind, **options)
    assert images.inspect(data, **LIMITS).exif_orientation == 6
    assert np.abs(np.asarray(images.decode(data), int) - np.asarray(scene(120, 80), int)).mean() < 4


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_whose_pixels_are_garbled_is_damaged(options: dict[str, Any], mode: str) -> None:
    jpeg = encoded(noise().convert(mode), "JPEG", **options)
    images.inspect(jpeg, **LIMITS)
    start = jpeg.index(b"\xff\xda") + 20
    garbled = jpeg[:start] + bytes(600) + jpeg[start + 600 :]
    cut_out = jpeg[:start] + jpeg[start + 600 :]
    cut_short = jpeg[:-600] + jpeg[-2:]
    for data in (garbled, cut_out, cut_short):
        with pytest.raises(images.ImageError, match=r"^(damaged: (JPEG: (Corrupt|Premature)|OSError)|truncated)"):
            images.inspect(data, **LIMITS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_jpeg_that_ends_too_early_is_truncated(options: dict[str, Any]) -> None:
    jpeg = encoded(noise(), "JPEG", **options)
    for length in (len(jpeg) // 2, len(jpeg) - 40):
        for read in (lambda data: images.inspect(data, **LIMITS), images.decode):
            with pytest.raises(images.ImageError) as caught:
                read(jpeg[:length])
            assert caught.value.reason == "truncated"


def animated(kind: str) -> bytes:
    return encoded(noise(), kind, save_all=True, append_images=[noise().rotate(90), noise().rotate(180)])


def heif() -> bytes:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed").register_heif_opener()
    return encoded(noise(), "HEIF")


CUT = {
    "jpeg": lambda: encoded(noise(), "JPEG"),
    "jpeg with a preview": lambda: with_segment(
        encoded(noise(), "JPEG"), 0xE1, b"Exif\0\0" + encoded(scene(64, 64), "JPEG")
    ),
    "png": lambda: encoded(noise(), "PNG"),
    "gif": lambda: encoded(noise(), "GIF"),
    "bmp": lambda: encoded(noise(), "BMP"),
    "webp": lambda: encoded(noise(), "WEBP"),
    "webp: lossless": lambda: encoded(noise(), "WEBP", lossless=True),
    "webp: with metadata": lambda: encoded(noise(), "WEBP", exif=b"Exif\0\0" + exif_of(), icc_profile=bytes(200)),
    "webp: animated": lambda: animated("WEBP"),
    "tiff": lambda: encoded(noise(), "TIFF"),
    "tiff: lzw": lambda: encoded(noise(), "TIFF", compression="tiff_lzw"),
    "tiff: jpeg": lambda: encoded(noise(), "TIFF", compression="jpeg"),
    "tiff: big": lambda: encoded(noise(), "TIFF", big_tiff=True),
    "avif": lambda: encoded(noise(), "AVIF"),
    "avif: animated": lambda: animated("AVIF"),
    "heic": heif,
}


@pytest.mark.parametrize("make", CUT.values(), ids=CUT)
def test_a_file_of_any_format_that_is_cut_off_is_truncated(make: Callable[[], bytes]) -> None:
    data = make()
    images.inspect(data, **LIMITS)
    for length in (12, 20, 33, 64, 200, *(len(data) * share // 20 for share in range(1, 19))):
        for read in (lambda cut: images.inspect(cut, **LIMITS), images.decode):
            with pytest.raises(images.ImageError) as caught:
                read(data[:length])
            assert caught.value.reason == "truncated", f"of {len(data)} bytes the first {length}: {caught.value}"


@given(
    st.sampled_from(sorted(CUT)),
    st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([0, 1, 127, 128, 255])), min_size=1, max_size=6),
    st.integers(0, 400),
)
def test_whatever_is_in_a_file_it_is_an_image_or_a_reason(
    kind: str, changes: list[tuple[int, int]], is_cut_to: int
) -> None:
    data = bytearray(CUT[kind]())
    for place, byte in changes:
        # Half of them at the beginning, where sizes and places stand.
        data[(place // 2 % 200 if place % 2 else place) % len(data)] = byte
    file = bytes(data[:is_cut_to] if is_cut_to % 4 == 3 else data)
    for read in (lambda: images.inspect(file, **LIMITS), lambda: images.decode(file, max_pixels=10**7)):
        with contextlib.suppress(images.ImageError):
            read()


@pytest.mark.parametrize("make", [make for kind, make in CUT.items() if kind.startswith(("webp", "avif", "heic"))])
def test_a_whole_file_whose_pixels_are_garbled_is_not_truncated(make: Callable[[], bytes]) -> None:
    data = make()
    place = max(data.find(mark) for mark in (b"VP8 ", b"VP8L", b"mdat")) + 8
    garbled = data[:place] + bytes(400) + data[place + 400 :]
    with pytest.raises(images.ImageError, match=r"^damaged"):
        images.inspect(garbled, **LIMITS)


def test_a_png_whose_pixels_are_garbled_is_damaged() -> None:
    png = encoded(noise(), "PNG", compress_level=0)
    place = png.index(b"IDAT") + 5000
    garbled = png[:place] + b"\0\1\2\3" + png[place + 4 :]
    for read in (lambda: images.inspect(garbled, **LIMITS), lambda: images.decode(garbled)):
        with pytest.raises(images.ImageError, match="damaged: PNG: the checksum of IDAT is wrong"):
            read()


@pytest.mark.parametrize(
    ("frame", "name"),
    [(0xC3, "lossless JPEG"), (0xF7, "JPEG-LS"), (0xC5, "hierarchical JPEG"), (0xC1, "JPEG of 12 bits")],
)
def test_a_jpeg_of_a_rare_process_is_named(frame: int, name: str) -> None:
    jpeg = bytearray(encoded(scene(), "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 1] = frame
    if frame == 0xC1:
        jpeg[place + 4] = 12
    with pytest.raises(images.ImageError, match=f"unsupported_format: {name}"):
        images.inspect(bytes(jpeg), **LIMITS)


def test_bounds_on_pixels_hold_for_every_format() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encoded(Image.new("L", (200, 100)), kind)
        assert images.inspect(data, max_bytes=10**6, max_pixels=20_000).width == 200
        for read in (
            lambda data: images.inspect(data, max_bytes=10**6, max_pixels=19_999),
            lambda data: images.decode(data, max_pixels=19_999),
        ):
            with pytest.raises(images.ImageError, match="bomb: 200 x 100 pixels, at most 19,999 are allowed"):
                read(data)


def test_a_jpeg_is_decoded_smaller_but_no_smaller_than_wanted() -> None:
    data = stored_turned(scene(640, 400), 6, "JPEG")
    assert images.decode(data, 160).size == (160, 100)
    assert images.decode(data, 161).size == (320, 200)
    assert images.decode(encoded(scene(640, 400), "PNG"), 160).size == (640, 400)


def test_of_a_strip_the_middle_is_looked_at() -> None:
    strip = scene(1000, 4)
    assert images.middle(strip).size == (128, 4)
    assert images.middle(strip).tobytes() == strip.crop((436, 0, 564, 4)).tobytes()
    assert images.middle(strip.transpose(Image.Transpose.ROTATE_90)).size == (4, 128)
    assert images.middle(scene(128, 4)).size == (128, 4)


def test_what_other_readers_show_otherwise_is_not_plain() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        assert images.is_plain(encoded(Image.new(mode, (8, 8)), "PNG"))
    assert not images.is_plain(encoded(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG"))
    assert not images.is_plain(encoded(Image.new("CMYK", (8, 8)), "JPEG"))
    assert not images.is_plain(with_chunk(encoded(scene(), "PNG"), b"gAMA", (100_000).to_bytes(4, "big")))
    assert not images.is_plain(stored_turned(scene(), 3, "WEBP"))


def test_whatever_is_raised_about_one_image_is_its_own_outcome() -> None:
    def work(item: Any) -> Any:
        if isinstance(item, Exception):
            raise item
        return item

    found = [images.guarded(work)(item) for item in (1, ZeroDivisionError("by zero"), OSError("file is truncated\nx"))]
    assert found[0] == 1
    assert [(fault.reason, fault.detail) for fault in found[1:]] == [
        ("damaged", "ZeroDivisionError: by zero"),
        ("truncated", "OSError: file is truncated x"),
    ]
    same = images.ImageError("bomb", "too many")
    assert images.guarded(work)(same) is same
    with pytest.raises(DataQualityError, match="no package"):
        images.guarded(work)(DataQualityError("no package"))
    with pytest.raises(KeyboardInterrupt):
        images.guarded(lambda _: (_ for _ in ()).throw(KeyboardInterrupt))(1)
    assert set(TURNED) == set(range(1, 9))
