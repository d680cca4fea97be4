"""Image files without what they say beside their pixels: places, people, devices, paths of editors."""

from __future__ import annotations

import re
import struct
import zlib

from dqe_resources.images.formats import JPEG, PNG, WEBP, format_of
from dqe_resources.images.rights import ImageRights, rights_of, xmp_packet

_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_EOI, _SOS = 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
_APPLICATIONS = frozenset({*range(0xE0, 0xF0), 0xFE})
# What decides about colours: all else that an application wrote goes.
_KEPT_APPLICATIONS = (b"JFIF\0", b"Adobe", b"ICC_PROFILE\0")

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_KEPT_CHUNKS = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT"}
    | {b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"}
)
_KEPT_RIFF = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04


class NotCleanError(ValueError):
    """A file is not built as its format has it: what is in it cannot be told apart."""


def cleaned(data: bytes) -> bytes:
    """A JPEG, PNG or WebP file of the same pixels and colours that says nothing else but who has the rights.

    No pixel is encoded again. A file that says nothing else is returned as it is.

    Raises:
        NotCleanError: it is of another format, or not built as its format has it.
    """
    bare = with_rights(data, ImageRights())
    # Most files have nothing to lose, and so no rights to keep.
    rights = ImageRights() if bare == data else rights_of(data)
    return with_rights(data, rights) if rights else bare


def with_rights(data: bytes, rights: ImageRights) -> bytes:
    """As ``cleaned``, with these rights; where the file has no place for them (a simple WebP), without."""
    name = format_of(data)
    packet = xmp_packet(rights) if rights else b""
    try:
        if name == JPEG:
            return _jpeg(data, packet)
        if name == PNG:
            return _png(data, packet)
        if name == WEBP:
            return _webp(data, packet)
    except (IndexError, struct.error) as error:
        raise NotCleanError(f"{name}: it ends too early") from error
    raise NotCleanError(f"{name}: not a format that is cleaned")


def _jpeg(data: bytes, packet: bytes) -> bytes:
    kept: list[bytes] = []
    tail: list[bytes] = []
    place = 2
    while True:
        if data[place] != 0xFF:
            raise NotCleanError("JPEG: a segment does not begin where the one before it ends")
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == _EOI:
            break
        end = place + 2 if marker in _ALONE else place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if end > len(data):
            raise NotCleanError("JPEG: a segment goes on beyond the end")
        content = data[place + 4 : end]
        if marker == _SOS:
            end = _end_of_scan(data, end)
        if marker not in _APPLICATIONS or content.startswith(_KEPT_APPLICATIONS):
            (tail if tail or marker == _SOS else kept).append(data[place:end])
        place = end
    head = data[:2]
    if packet:
        segment = _XMP_MARK + packet
        # Behind the JFIF segment, which is to be the first.
        first = 1 if kept and kept[0][4:].startswith(b"JFIF\0") else 0
        kept.insert(first, b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment)
    return b"".join([head, *kept, *tail, bytes((0xFF, _EOI))])


def _end_of_scan(data: bytes, place: int) -> int:
    """Where the next marker stands that is no part of the scan."""
    found = _MARKER.search(data, place)
    if found is None:
        raise NotCleanError("JPEG: it has no end")
    return found.start()


def _png(data: bytes, packet: bytes) -> bytes:
    kept, place = [_PNG_MAGIC], len(_PNG_MAGIC)
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise NotCleanError("PNG: a chunk goes on beyond the end")
        if kind in _KEPT_CHUNKS:
            kept.append(data[place:end])
        if kind == b"IHDR" and packet:
            content = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
            checksum = zlib.crc32(content, zlib.crc32(b"iTXt")).to_bytes(4, "big")
            kept.append(struct.pack(">I4s", len(content), b"iTXt") + content + checksum)
        if kind == b"IEND":
            return b"".join(kept)
        place = end


def _webp(data: bytes, packet: bytes) -> bytes:
    size = 8 + int.from_bytes(data[4:8], "little")
    if size > len(data):
        raise NotCleanError("WebP: it ends too early")
    chunks: list[bytes] = []
    place = 12
    is_extended = False
    while place + 8 <= size:
        kind, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        if place + 8 + length > size:
            raise NotCleanError("WebP: a chunk goes on beyond the end")
        chunk = data[place:end].ljust(end - place, b"\0")
        if kind == b"VP8X":
            is_extended = True
            flags = (chunk[8] & ~(_WEBP_EXIF | _WEBP_XMP)) | (_WEBP_XMP if packet else 0)
            chunk = chunk[:8] + bytes((flags,)) + chunk[9:]
        if kind in _KEPT_RIFF:
            chunks.append(chunk)
        place = end
    if packet and is_extended:
        chunks.append(struct.pack("<4sI", b"XMP ", len(packet)) + packet + bytes(len(packet) % 2))
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(content).to_bytes(4, "little") + content
