"""Which format an image file has, by its first bytes."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
        *(".tif", ".tiff", ".avif", ".avifs", ".heic", ".heif", ".heics", ".heifs", ".hif", ".jxl", ".svg", ".svgz"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm", ".jxr", ".wdp", ".hdp", ".ico", ".cur", ".icns"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm", ".tga", ".dds", ".qoi", ".pcx", ".exr", ".hdr"),
        *(".psd", ".psb", ".xcf", ".eps", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".raf", ".orf"),
        *(".rw2", ".pef", ".srw"),
    }
)
"""How the names of image files end, in lower case: also of formats that are not decoded, which become rows too."""

JPEG, PNG, WEBP, GIF, TIFF, BMP, AVIF, HEIC = "JPEG", "PNG", "WebP", "GIF", "TIFF", "BMP", "AVIF", "HEIC"

DECODED = {JPEG: "JPEG", PNG: "PNG", WEBP: "WEBP", GIF: "GIF", BMP: "BMP", TIFF: "TIFF", AVIF: "AVIF", HEIC: "HEIF"}
"""The formats that are decoded, and Pillow's names of their decoders: the fewer, the less hostile bytes can reach."""

_HEAD = 4096
_RAW = "camera raw"
_VIDEO = "video"

_MAGIC = (
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"\x89PNG\r\n\x1a\n", PNG),
    (0, b"GIF87a", GIF),
    (0, b"GIF89a", GIF),
    (8, b"CR\x02", f"CR2 ({_RAW})"),
    (0, b"II*\0", TIFF),
    (0, b"MM\0*", TIFF),
    (0, b"II+\0", TIFF),
    (0, b"MM\0+", TIFF),
    (0, b"BM", BMP),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"gimp xcf", "XCF"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\x8bJNG", "JNG"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"IIRO", f"ORF ({_RAW})"),
    (0, b"IIRS", f"ORF ({_RAW})"),
    (0, b"MMOR", f"ORF ({_RAW})"),
    (0, b"IIU\0", f"RW2 ({_RAW})"),
    (0, b"FUJIFILMCCD-RAW", f"RAF ({_RAW})"),
    (6, b"HEAPCCDR", f"CRW ({_RAW})"),
    (0, b"FOVb", f"X3F ({_RAW})"),
    (0, b"\0MRM", f"MRW ({_RAW})"),
    (0, b"\x1a\x45\xdf\xa3", f"WebM or Matroska ({_VIDEO})"),
    (0, b"FLV\1", f"FLV ({_VIDEO})"),
    (0, b"\0\0\1\xba", f"MPEG ({_VIDEO})"),
    (0, b"\0\0\1\xb3", f"MPEG ({_VIDEO})"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", f"WMV ({_VIDEO})"),
    (0, b"OggS", f"Ogg ({_VIDEO})"),
    (4, b"moov", f"QuickTime ({_VIDEO})"),
    (4, b"mdat", f"QuickTime ({_VIDEO})"),
)

_RIFF = {b"WEBP": WEBP, b"AVI ": f"AVI ({_VIDEO})"}

# ISO base media files (ISO/IEC 14496-12) say what they are by brands; the first row that has one of a file's decides.
_BRANDS = (
    (AVIF, frozenset({b"avif", b"avis"})),
    (HEIC, frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})),
    (f"CR3 ({_RAW})", frozenset({b"crx "})),
)

_NETPBM = re.compile(rb"P([1-7]|[Ff])[ \t\r\n]")
# Each part is taken whole or not at all, so a hostile text costs no more than its length.
_SVG = re.compile(
    rb"(?>\xef\xbb\xbf)?(?>\s+|(?><\?.*?\?>)|(?><!--.*?-->)|(?><!DOCTYPE(?>[^>\[]*)(?>\[.*?\]\s*)?>))*+<(\w+:)?svg[\s>/]",
    re.DOTALL | re.IGNORECASE,
)


def format_of(data: bytes) -> str | None:
    """The name of a file's format, one of ``DECODED`` or of another format of images or videos; None if unknown."""
    if data[4:8] == b"ftyp":
        size = min(int.from_bytes(data[:4], "big"), _HEAD)
        brands = {data[8:12], *(data[place : place + 4] for place in range(16, size, 4))}
        return next((name for name, known in _BRANDS if known & brands), f"MP4 or QuickTime ({_VIDEO})")
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    found = next((name for offset, magic, name in _MAGIC if data.startswith(magic, offset)), None)
    return found or next((name for name, test in _TESTS if test(data)), None)


def _unzipped(data: bytes) -> bytes:
    """The beginning of what a gzip file holds; nothing if it is damaged."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data[:_HEAD], _HEAD)
    except zlib.error:
        return b""


_TESTS: tuple[tuple[str, Callable[[bytes], object]], ...] = (
    ("Netpbm", _NETPBM.match),
    ("CUR", re.compile(rb"\x00\x00\x02\x00[^\x00]\x00").match),
    ("TGA", lambda data: data.endswith(b"TRUEVISION-XFILE.\0")),
    ("SVG", lambda data: _SVG.match(data[:_HEAD])),
    ("SVG (compressed)", lambda data: data.startswith(b"\x1f\x8b") and _SVG.match(_unzipped(data))),
)
