"""Image files for tests: encoded pictures, odd metadata, colour profiles."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

ORIENTATION = 0x0112
TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is stored, for each EXIF orientation that turns it back."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def blocks(number: int) -> bytes:
    """A JPEG of blocks of random colours, another one for each number."""
    colours = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return encoded(Image.fromarray(colours).resize((96, 64), Image.Resampling.NEAREST), "JPEG", quality=95)


def scene(width: int = 160, height: int = 96) -> Image.Image:
    """A smooth picture, different in each corner: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=-1).astype(np.uint8))


def noise(width: int = 160, height: int = 96) -> Image.Image:
    """A picture of much detail, the same each time."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def stored_turned(image: Image.Image, orientation: int, kind: str, **options: Any) -> bytes:
    """A file of the image that a reader has to turn by its EXIF orientation."""
    turn = TURNED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image if turn is None else image.transpose(turn), kind, exif=exif.tobytes(), **options)


def exif_of(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF block of tag, type, count and the four bytes of each value, as EXIF holds it."""
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with one segment more at its beginning."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one chunk more after its header."""
    return png[:33] + png_chunk(kind, content) + png[33:]


def icc_chunk(profile: bytes) -> bytes:
    """The content of a chunk iCCP."""
    return b"profile\0\0" + zlib.compress(profile)


def swapped_profile() -> bytes:
    """sRGB with red and green changed over, so that a picture that follows it looks other than its numbers."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def grey_profile(gamma: float = 1.0) -> bytes:
    """A profile of grey whose values are light to the power of 1 / gamma: 128 of gamma 1 looks as 188 of sRGB."""
    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _WHITE, b"kTRC": curve})


def cmyk_profile() -> bytes:
    """A profile of CMYK in which magenta is a middle grey: L* of 50, which is 119 of sRGB, and other inks are black."""
    nodes = np.zeros((16, 3), np.uint8)
    nodes[:, 1:] = 128
    nodes[0, 0], nodes[4, 0] = 255, 128
    ramp = bytes(range(256))
    identity = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 16)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + nodes.tobytes() + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _WHITE, b"A2B0": table})


_WHITE = b"XYZ " + bytes(4) + struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.4."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78), **tags}
    place, directory, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        directory += struct.pack(">4sII", name, place + len(body), len(content))
        body += padded
    head = bytearray(128)
    struct.pack_into(">I", head, 0, 128 + len(directory) + len(body))
    head[8:24] = b"\2\x40\0\0" + kind + space + connection
    head[24:36] = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    head[36:40] = b"acsp"
    head[68:80] = struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return bytes(head) + directory + body
