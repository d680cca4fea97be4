"""Whether the compressed pixels of a JPEG are whole: what libjpeg warns of, which Pillow keeps silent about."""

from __future__ import annotations

import re

import simplejpeg

_EOI = b"\xff\xd9"
_SOS = b"\xff\xda"
# libjpeg's warnings (jerror.h) that say that it had to make up pixels.
_MADE_UP = re.compile("Corrupt JPEG data|Premature end of JPEG|Inconsistent progression")
_PADDED = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def scan_complaint(data: bytes) -> str | None:
    """What libjpeg says against a JPEG of which it reads all pixels: a warning or an error; None for nothing.

    Bytes of one value before the end mark are padding, which some cameras write.

    Args:
        data: a JPEG of ``containers.bare_jpeg``.
    """
    complaint = _complaint(data)
    if complaint is not None and (padded := _PADDED.search(complaint)):
        end = data.find(_EOI, data.find(_SOS))
        padding = data[max(end - int(padded[1]), 0) : end]
        return complaint if len(set(padding)) > 1 else None
    return complaint


def is_garbled(complaint: str) -> bool:
    """Whether a complaint says that pixels had to be made up, and not that such a JPEG is not read."""
    return _MADE_UP.search(complaint) is not None


def with_end(data: bytes) -> bytes:
    """The JPEG with the mark of its end, if nothing but that is missing."""
    start = data.find(_SOS)
    if start < 0 or data.find(_EOI, start) >= 0:
        return data
    ended = data + _EOI
    return data if _complaint(ended) else ended


def _complaint(data: bytes) -> str | None:
    try:
        # At an eighth of its size: all of it is read, and hardly anything is computed.
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        return str(error)
    return None
