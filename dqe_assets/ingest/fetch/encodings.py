"""What a server calls the encoding of a body, and what the body is."""

from __future__ import annotations

import zlib

from dqe_resources.images import ImageError

_GZIP = b"\x1f\x8b"
_GZIP_OR_ZLIB, _BARE_DEFLATE = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
_MOST_LAYERS = 3
_NO_ENCODING = {"", "identity"}


def is_encoded(encoding: str | None) -> bool:
    """Whether a Content-Encoding says that the body is encoded."""
    return (encoding or "").strip().lower() not in _NO_ENCODING


def decompressed(data: bytes, encoding: str | None, max_bytes: int) -> bytes:
    """A body whose server says that it is encoded, without gzip, zlib or deflate around it; without these, as it is.

    No image begins as gzip and zlib do. Servers say ``utf-8``, ``none`` or ``aws-chunked`` of plain images, and
    ``gzip`` of images that nobody has compressed.

    Args:
        data: the body.
        encoding: the header Content-Encoding.
        max_bytes: no more than this is decompressed.

    Raises:
        ImageError: too_large.
    """
    if not is_encoded(encoding):
        return data
    for _ in range(_MOST_LAYERS):
        if _is_gzip_or_zlib(data):
            inner = _inflated(data, _GZIP_OR_ZLIB, max_bytes)
        elif "deflate" in (encoding or "").lower():
            inner = _inflated(data, _BARE_DEFLATE, max_bytes)
        else:
            return data
        if inner is None:
            return data
        data = inner
    return data


def _is_gzip_or_zlib(data: bytes) -> bool:
    begin = data[:2]
    return begin == _GZIP or (len(begin) == 2 and begin[0] & 15 == 8 and int.from_bytes(begin, "big") % 31 == 0)


def _inflated(data: bytes, window: int, max_bytes: int) -> bytes | None:
    """What was compressed; None if that is not what the data is, or not all of it."""
    inner = b""
    while True:
        inflater = zlib.decompressobj(window)
        try:
            inner += inflater.decompress(data, max_bytes + 1 - len(inner))
        except zlib.error:
            return None
        if len(inner) > max_bytes:
            raise ImageError("too_large", f"decompressed, more bytes than the {max_bytes:,} that are allowed")
        if not inflater.eof:
            return None
        # A gzip file can have several members, one after the other (RFC 1952, 2.2).
        data = inflater.unused_data
        if not data.startswith(_GZIP):
            return inner
