from __future__ import annotations

import gzip

import pytest
from PIL import Image

from dqe_resources import images
from dqe_resources.images.formats import DECODED, format_of
from tests.image_files import encoded, scene

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def box(*brands: bytes) -> bytes:
    content = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(content) + 4).to_bytes(4, "big") + content + bytes(500)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (box(b"heic", b"mif1"), "HEIC"),
        (box(b"mif1", b"heic"), "HEIC"),
        (box(b"mif1", b"avif", b"miaf"), "AVIF"),
        (box(b"crx ", b"isom"), "CR3 (camera raw)"),
        (box(b"isom", b"mp42"), "MP4 or QuickTime (video)"),
        (box(b"qt  "), "MP4 or QuickTime (video)"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (encoded(scene(), "JPEG2000"), "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (b"II\xbc\x01", "JPEG XR"),
        (b"8BPS\0\1", "PSD"),
        (b"%PDF-1.7\n", "PDF"),
        (encoded(scene(), "PDF"), "PDF"),
        (encoded(scene(), "EPS"), "EPS"),
        (encoded(scene(), "ICO"), "ICO"),
        (encoded(scene(), "PPM"), "Netpbm"),
        (encoded(scene(), "TGA"), "TGA"),
        (encoded(scene(), "DDS"), "DDS"),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2 (camera raw)"),
        (b"IIRO\x08\0", "ORF (camera raw)"),
        (b"FUJIFILMCCD-RAW 0201", "RAF (camera raw)"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI (video)"),
        (b"\x1a\x45\xdf\xa3\x01", "WebM or Matroska (video)"),
        (b"qoif\0\0\0\x01", "QOI"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (SVG, "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a - b -->\n<!DOCTYPE svg PUBLIC '-//W3C'>\n<svg:svg>", "SVG"),
        (b"<!DOCTYPE svg [ <!ENTITY a 'b>'> ]><SVG\n>", "SVG"),
        (gzip.compress(SVG, mtime=0), "SVG (compressed)"),
    ],
)
def test_a_format_that_is_not_decoded_is_named(data: bytes, name: str) -> None:
    assert format_of(data) == name
    if name not in DECODED:
        with pytest.raises(images.ImageError) as caught:
            images.inspect(data, max_bytes=10**6, max_pixels=10**6)
        assert (caught.value.reason, caught.value.detail) == ("unsupported_format", name)


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><svg></svg></html>",
        b"<!-- <svg> --><html><svg>",
        b"<!---->" * 900,
        b"<svgx>",
        gzip.compress(b"a text", mtime=0),
        b"\x1f\x8b\x08damaged",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"{}",
        b"P7",
        b"BM and more words",
    ],
)
def test_what_is_no_image_has_no_format(data: bytes) -> None:
    with pytest.raises(images.ImageError) as caught:
        images.decode(data)
    assert caught.value.reason == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_what_is_decoded_is_known_by_its_bytes(kind: str) -> None:
    data = encoded(scene(), kind)
    assert DECODED[format_of(data) or ""] == kind
    assert images.inspect(data, max_bytes=10**6, max_pixels=10**6).format == kind.lower()


@pytest.mark.parametrize("data", [box(b"heic", b"mif1"), box(b"avif")])
def test_a_container_without_a_picture_that_a_decoder_knows_is_named(data: bytes) -> None:
    with pytest.raises(images.ImageError, match=r"unsupported_format: (HEIC|AVIF) of a kind that is not decoded"):
        images.decode(data)


def test_a_header_that_cannot_be_read_is_damage() -> None:
    for data in (b"\xff\xd8\xff\xe0" + bytes(99), b"\x89PNG\r\n\x1a\n" + bytes(99), b"GIF89a"):
        with pytest.raises(images.ImageError) as caught:
            images.decode(data)
        assert caught.value.reason in {"damaged", "truncated"}


def test_a_cameras_raw_file_is_not_its_preview() -> None:
    for tags, name in [({50706: b"\1\4\0\0"}, "DNG"), ({254: 1, 330: 8}, "TIFF of a preview alone")]:
        data = encoded(Image.new("RGB", (16, 12)), "TIFF", tiffinfo=tags)
        with pytest.raises(images.ImageError, match=rf"unsupported_format: {name} \(camera raw\)"):
            images.decode(data)
