"""Image files taken apart: what decides about pixels, and what else of the file does about how they look.

Pillow gives up on a file, or on all that it says beside its pixels, for one odd field of its EXIF, text or profile.
Browsers don't. So a decoder gets a file of nothing but pixels, and orientation and colour are read here.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from dqe_resources.images.faults import ImageError
from dqe_resources.images.formats import AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF, WEBP

MAX_PROFILE = 1 << 22
"""Bytes that a colour profile may have; a larger one is ignored."""

UPRIGHT = 1

_ORIENTATION, _SHORT, _LONG = 0x0112, 3, 4

_EOI, _SOS = 0xD9, 0xDA
_WITHOUT_CONTENT = frozenset({0x00, 0x01, *range(0xD0, 0xD9), 0xFF})
_EXIF, _ICC = 0xE1, 0xE2
_APPLICATIONS = frozenset({*range(0xE0, 0xF0), 0xFE})
# By these two, if they are whole, libjpeg knows which colours the components are.
_COLOUR_MARKS = (b"JFIF\0", b"Adobe")
_ICC_MARK = b"ICC_PROFILE\0"
# Processes of JPEG (ITU-T T.81 table B.1, and JPEG-LS) that libjpeg does not decode.
_NOT_DECODED = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical JPEG"),
    0xF7: "JPEG-LS",
}
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_BIG = 43
_BYTE, _UNDEFINED = 1, 7
_SUBFILE, _SUB_IFDS, _PROFILE, _DNG_VERSION = 254, 330, 34_675, 50_706
_REDUCED = 1
# What decides about pixels: sizes, depths, compression, colours, strips and tiles, and what JPEG in TIFF has besides.
_TIFF_PIXELS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, *range(320, 326), 332, 338, 339, 347}
    | {*range(512, 522), *range(529, 533)}
)

_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_WHOLE = {_SHORT: "H", _LONG: "I", 16: "Q"}

# The type of an item, in the two versions of its entry (ISO/IEC 14496-12, 8.11.6).
_AVIF_EXIF = re.compile(rb"(infe\x02.{3}.{2}.{2})Exif|(infe\x03.{3}.{4}.{2})Exif", re.DOTALL)

_GREY, _TRUECOLOUR, _PALETTE = 0, 2, 3
_GAMMA_UNIT = 100_000


@dataclass(frozen=True, slots=True)
class Bare:
    """A file without what is not needed to decode it, and what was said there of how its pixels are to be shown.

    Attributes:
        data: the file.
        orientation: 1 to 8, as EXIF numbers them.
        profile: the ICC profile; None if there is none.
        gamma: the exponent by which light became a value, if the file says so and has no profile: 0.45455 for sRGB.
        is_sound: whether nothing was mended or left out that another reader may fail at.
    """

    data: bytes
    orientation: int = UPRIGHT
    profile: bytes | None = None
    gamma: float | None = None
    is_sound: bool = True


def exif_orientation(exif: bytes) -> int:
    """The orientation that an EXIF block states, 1 to 8; 1 if it states none, or one that does not exist."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return UPRIGHT
    try:
        (place,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and number == 1 and 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass  # it ends too early
    return UPRIGHT


def bare_jpeg(data: bytes) -> Bare:
    """A JPEG without comments, previews, EXIF and profile, and without junk between its segments.

    Raises:
        ImageError: it is of a kind that libjpeg does not decode.
    """
    kept = [data[:2]]
    orientation: int | None = None
    profile: dict[bytes, bytes] = {}
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) <= len(data) - 4:
        marker = data[place + 1]
        if marker in _WITHOUT_CONTENT:
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in {_SOS, _EOI} or not place + 4 <= end <= len(data):
            break
        content = data[place + 4 : end]
        if marker in _NOT_DECODED:
            raise ImageError("unsupported_format", _NOT_DECODED[marker])
        if marker in _FRAMES and content[:1] not in {b"\x08", b""}:
            raise ImageError("unsupported_format", f"JPEG of {content[0]} bits")
        if marker == _EXIF and orientation is None and content.startswith(b"Exif\0"):
            orientation = exif_orientation(content)
        elif marker == _ICC and content.startswith(_ICC_MARK):
            start = len(_ICC_MARK)
            profile[content[start : start + 1]] = content[start + 2 :]
        if marker not in _APPLICATIONS or (content.startswith(_COLOUR_MARKS) and len(content) >= 12):
            kept.append(data[place:end])
        place = end
    rest = data[place:] if place >= 0 else b""
    whole = b"".join(part for _, part in sorted(profile.items()))
    return Bare(b"".join([*kept, rest]), orientation or UPRIGHT, whole if 0 < len(whole) <= MAX_PROFILE else None)


def bare_png(data: bytes) -> Bare:
    """A PNG of nothing but pixels: without texts, EXIF, profile, and all frames but the one that any reader shows.

    Raises:
        ImageError: a checksum of its pixels is wrong, or it is of the kind that only Apple's readers know.
    """
    kept = [_PNG_MAGIC]
    found: dict[bytes, bytes] = {}
    is_sound, is_ended = True, False
    place = len(_PNG_MAGIC)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind == b"CgBI":
            raise ImageError("unsupported_format", "CgBI (PNG for Apple's devices)")
        if end > len(data):
            kept.append(data[place:] if kind == b"IDAT" else b"")
            break
        content = data[place + 8 : end - 4]
        is_whole = zlib.crc32(content, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end], "big")
        if kind in _PIXELS:
            if not is_whole:
                raise ImageError("damaged", f"PNG: the checksum of {kind.decode()} is wrong")
            kept.append(data[place:end])
            if kind == b"IHDR":
                found[kind] = content
        elif is_whole:
            found.setdefault(kind, content)
            if kind == b"tRNS":
                kept.append(_transparency(content, found.get(b"IHDR", b"")))
        # Pillow reads these only once it has decoded the pixels.
        is_sound &= is_whole and not (kept[-1][4:8] == b"IDAT" and kind not in _PIXELS)
        if kind == b"IEND":
            is_ended = True
            break
        place = end
    profile = _inflated(found.get(b"iCCP", b""))
    gamma = found.get(b"gAMA", b"") if profile is None and b"sRGB" not in found else b""
    return Bare(
        b"".join(kept),
        exif_orientation(found.get(b"eXIf", b"")),
        profile,
        int.from_bytes(gamma, "big") / _GAMMA_UNIT if len(gamma) == 4 and any(gamma) else None,
        is_sound and is_ended,
    )


def _transparency(content: bytes, header: bytes) -> bytes:
    """The chunk that says what is transparent, in the 8 bits that Pillow compares with; nothing if it does not fit."""
    depth, colour = header[8:10] or (0, -1)
    values = struct.unpack(f">{len(content) // 2}H", content[: len(content) // 2 * 2])
    if colour == _GREY and len(content) == 2 and depth < 8:
        content = struct.pack(">H", values[0] * 255 // ((1 << depth) - 1) & 0xFF)
    elif colour == _TRUECOLOUR and len(content) == 6 and depth == 16:
        content = struct.pack(">3H", *(value >> 8 for value in values))
    elif colour == _PALETTE:
        content = content[:256]
    elif len(content) != {_GREY: 2, _TRUECOLOUR: 6}.get(colour):
        return b""
    return struct.pack(">I4s", len(content), b"tRNS") + content + zlib.crc32(content, zlib.crc32(b"tRNS")).to_bytes(4)


def _inflated(content: bytes) -> bytes | None:
    """The profile in an iCCP chunk; None if it is damaged or too large."""
    packed = content.partition(b"\0")[2][1:]
    decompressor = zlib.decompressobj()
    try:
        profile = decompressor.decompress(packed, MAX_PROFILE)
    except zlib.error:
        return None
    return profile if profile and decompressor.eof else None


@dataclass(frozen=True, slots=True)
class _TiffForm:
    """How the numbers of a TIFF's directories are written.

    Attributes:
        order: of their bytes.
        start: where the place of the first directory stands.
        number: of entries in a directory.
        entry: tag, kind, count, value or its place.
        offset: a place in the file.
    """

    order: str
    start: int
    number: str
    entry: str
    offset: str

    @classmethod
    def of(cls, data: bytes) -> _TiffForm:
        order = "<" if data.startswith(b"II") else ">"
        if data[2:4] == struct.pack(f"{order}H", _BIG):
            return cls(order, 8, f"{order}Q", f"{order}HHQ8s", f"{order}Q")
        return cls(order, 4, f"{order}H", f"{order}HHI4s", f"{order}I")

    def directory(self, data: bytes) -> list[tuple[int, int, int, bytes]] | None:
        """The entries of the first directory; None if it ends beyond the file."""
        try:
            (place,) = struct.unpack_from(self.offset, data, self.start)
            (number,) = struct.unpack_from(self.number, data, place)
            first, size = place + struct.calcsize(self.number), struct.calcsize(self.entry)
            return [
                struct.unpack_from(self.entry, data, first + size * n)
                for n in range(min(number, len(data) // size + 1))
            ]
        except (struct.error, OverflowError):
            return None

    def numbers(self, data: bytes, kind: int, count: int, value: bytes) -> tuple[int, ...] | None:
        """What an entry of whole numbers says, nothing for one of others; None if it stands beyond the file."""
        size = count * _TIFF_SIZES.get(kind, 1)
        if size > len(value):
            (place,) = struct.unpack(self.offset, value)
            value = data[place : place + size]
        if len(value) < size:
            return None
        form = _TIFF_WHOLE.get(kind)
        return struct.unpack_from(f"{self.order}{count}{form}", value) if form else ()


def bare_tiff(data: bytes) -> Bare:
    """A TIFF of its first picture alone, and of what decides about its pixels.

    Raises:
        ImageError: it is a camera's raw file, of which a decoder would show the preview.
    """
    form = _TiffForm.of(data)
    entries = form.directory(data)
    if entries is None:
        return Bare(data)
    tags = {tag: (kind, count, value) for tag, kind, count, value in reversed(entries)}
    if _DNG_VERSION in tags:
        raise ImageError("unsupported_format", "DNG (camera raw)")
    if _SUB_IFDS in tags and _number(tags.get(_SUBFILE), form.order) == _REDUCED:
        raise ImageError("unsupported_format", "TIFF of a preview alone (camera raw)")
    kept = [struct.pack(form.entry, *entry) for entry in entries if entry[0] in _TIFF_PIXELS]
    directory = struct.pack(form.number, len(kept)) + b"".join(kept) + struct.pack(form.offset, 0)
    whole = data + bytes(len(data) % 2)
    bare = (
        whole[: form.start] + struct.pack(form.offset, len(whole)) + whole[form.start + struct.calcsize(form.offset) :]
    )
    orientation = _number(tags.get(_ORIENTATION), form.order)
    profile = None
    kind, count, value = tags.get(_PROFILE, (0, 0, b""))
    if kind in {_BYTE, _UNDEFINED} and len(value) < count <= MAX_PROFILE:
        (place,) = struct.unpack(form.offset, value)
        profile = data[place : place + count]
    return Bare(bare + directory, orientation if 1 <= orientation <= 8 else UPRIGHT, profile)


def _number(entry: tuple[int, int, bytes] | None, order: str) -> int:
    """The number in an entry of a TIFF's directory that holds one of 16 or 32 bits; 0 if there is none."""
    kind, count, value = entry or (0, 0, b"")
    form = {_SHORT: "H", _LONG: "I"}.get(kind)
    return int(struct.unpack_from(f"{order}{form}", value)[0]) if form is not None and count == 1 else 0


def bare_avif(data: bytes) -> Bare:
    """An AVIF without EXIF: what turns it is said elsewhere in the file, and only that counts (MIAF, 7.3.6.3)."""
    return Bare(_AVIF_EXIF.sub(rb"\1\2skip", data))


def ends_early(name: str, data: bytes) -> bool:
    """Whether a file that cannot be decoded is shorter than it says itself: so it was cut off.

    Args:
        name: its format, one of ``DECODED``.
        data: the file.
    """
    return _ENDS_EARLY[name](data)


def _jpeg_ends_early(data: bytes) -> bool:
    bare = bare_jpeg(data).data
    return bare.find(bytes((0xFF, _EOI)), max(bare.find(bytes((0xFF, _SOS))), 0)) < 0


def _png_ends_early(data: bytes) -> bool:
    place = len(_PNG_MAGIC)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if kind == b"IEND":
            break
    else:
        return True
    return place > len(data)


def _boxes_end_early(data: bytes) -> bool:
    """Of an ISO base media file: a box goes on beyond the end."""
    place = 0
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if size == 1 and place + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, place + 8)
        if size < 8:
            return False  # it goes on to the end, or is none
        place += size
    return place != len(data)


def _tiff_ends_early(data: bytes) -> bool:
    form = _TiffForm.of(data)
    tags: dict[int, tuple[int, ...]] = {}
    for tag, kind, count, value in form.directory(data) or ():
        if tag in _TIFF_PIXELS:
            numbers = form.numbers(data, kind, count, value)
            if numbers is None:
                return True
            tags[tag] = numbers
    pairs = ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES))
    parts = ((tags[places], tags[sizes]) for places, sizes in pairs if places in tags and sizes in tags)
    ends = [place + size for both in parts for place, size in zip(*both, strict=False)]
    return not tags or max(ends, default=0) > len(data)


_ENDS_EARLY = {
    JPEG: _jpeg_ends_early,
    PNG: _png_ends_early,
    WEBP: lambda data: len(data) < 8 + int.from_bytes(data[4:8], "little"),
    # Its pixels are in blocks whose lengths a damaged one says wrongly: the mark of the end is surer.
    GIF: lambda data: not data.rstrip(b"\0").endswith(b";"),
    BMP: lambda data: data[6:10] == bytes(4) and len(data) < int.from_bytes(data[2:6], "little"),
    TIFF: _tiff_ends_early,
    AVIF: _boxes_end_early,
    HEIC: _boxes_end_early,
}
