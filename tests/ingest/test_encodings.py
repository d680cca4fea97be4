"""Bodies whose servers say that they are encoded: the bytes decide."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.ingest.fetch.encodings import decompressed
from dqe_resources.images import ImageError
from tests.image_files import encoded, scene

IMAGE = encoded(scene(), "JPEG")
NAMES = ["none", "utf-8", "binary", "8bit", "aws-chunked", "gzip", "X-GZIP", "deflate", "br", "gzip, gzip", "", "\0"]


def bare_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_image_is_itself_whatever_its_encoding_is_called(name: str) -> None:
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        image = encoded(scene(), kind)
        assert decompressed(image, name, 10**6) == image


@pytest.mark.parametrize("name", [name for name in NAMES if name])
@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(IMAGE),
        gzip.compress(gzip.compress(IMAGE)),
        gzip.compress(IMAGE[:200]) + gzip.compress(IMAGE[200:]),
        gzip.compress(IMAGE) + b"junk",
        zlib.compress(IMAGE),
    ],
    ids=["gzip", "twice", "two members", "junk behind", "zlib"],
)
def test_what_is_compressed_is_decompressed_whatever_that_is_called(name: str, body: bytes) -> None:
    assert decompressed(body, name, 10**6) == IMAGE


def test_deflate_without_a_header_is_known_by_its_name_alone() -> None:
    assert decompressed(bare_deflate(IMAGE), "deflate", 10**6) == IMAGE
    assert decompressed(bare_deflate(IMAGE), "gzip", 10**6) == bare_deflate(IMAGE)


def test_what_is_cut_off_stays_as_it_is() -> None:
    cut = gzip.compress(IMAGE)[:-9]
    assert decompressed(cut, "gzip", 10**6) == cut
    half = gzip.compress(IMAGE[:200]) + gzip.compress(IMAGE[200:])[:-9]
    assert decompressed(half, "gzip", 10**6) == half


def test_no_more_is_decompressed_than_an_image_may_have() -> None:
    for bomb in (gzip.compress(bytes(10**6)), gzip.compress(bytes(600_000)) * 2):
        assert len(decompressed(bomb, "gzip", 1_200_000)) >= 10**6
        with pytest.raises(ImageError, match="too_large: decompressed, more bytes than the 999,999"):
            decompressed(bomb, "gzip", 999_999)


@given(st.binary(max_size=60), st.sampled_from(NAMES))
def test_whatever_comes_is_bytes(data: bytes, name: str) -> None:
    assert isinstance(decompressed(data, name, 1000), bytes)
