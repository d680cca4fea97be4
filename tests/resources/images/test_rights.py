"""What image files say of their rights, and files without all else that they say."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dqe_resources.images import ImageRights, cleaned, decode, has_c2pa, inspect, rights_of, with_rights
from dqe_resources.images.cleaning import NotCleanError
from dqe_resources.images.rights import data_mining, xmp_packet

SECRET = "/home/alice/private"
RIGHTS = ImageRights(
    notice="© 2024 Ada & Söhne <all rights>",
    creator="Ada; Bob",
    credit="Agency",
    terms="No training",
    web_statement="https://example.org/terms",
    data_mining="DMI-PROHIBITED-AIMLTRAINING",
    source_type="trainedAlgorithmicMedia",
)
# What an editor writes: a path among the rest, an attribute, a list of creators, a resource.
XMP = f"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"
 xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:stRef="http://ns.adobe.com/xap/1.0/sType/ResourceRef#"
 stRef:filePath="{SECRET}/a.psd" photoshop:Credit="Agency"
 plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"
 xmpRights:WebStatement="https://example.org/terms">
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© 2024 Ada &amp; Söhne &lt;all rights&gt;</rdf:li>
<rdf:li xml:lang="de">Alle Rechte</rdf:li></rdf:Alt></dc:rights>
<dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>
<xmpRights:UsageTerms><rdf:Alt><rdf:li xml:lang="x-default">No
training</rdf:li></rdf:Alt></xmpRights:UsageTerms>
<e:DigitalSourceType rdf:resource="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def picture(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(1).integers(0, 255, (30, 40, len(mode)), np.uint8)
    return Image.fromarray(values.squeeze(), mode if mode != "L" else None)


def encoded(kind: str, mode: str = "RGB", xmp: bytes | None = XMP, **options: object) -> bytes:
    out, image = io.BytesIO(), picture(mode)
    exif = Image.Exif()
    exif[0x010E], exif[0x8298], exif[0x013B] = f"made in {SECRET}", "EXIF notice\0editor", "EXIF artist"
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", SECRET)
        if xmp:
            texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(out, kind, pnginfo=texts, exif=exif, **options)
    else:
        image.save(out, kind, exif=exif, **({"xmp": xmp} if xmp else {}), **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_rights_are_read_from_xmp_before_exif(kind: str) -> None:
    if kind == "TIFF":
        out = io.BytesIO()
        picture().save(out, "TIFF", tiffinfo={700: XMP, 0x8298: "EXIF notice"})
        data = out.getvalue()
    else:
        data = encoded(kind)
    assert rights_of(data) == RIGHTS
    assert data_mining(data) == RIGHTS.data_mining


def test_rights_are_read_from_iptc_and_exif() -> None:
    data = encoded("JPEG", xmp=None)
    assert rights_of(data.replace(b"EXIF no", "©©xno".encode())).notice == "©©xnotice"
    assert rights_of(data) == ImageRights(notice="EXIF notice", creator="EXIF artist")
    assert data_mining(data) is None

    def field(number: int, text: bytes) -> bytes:
        return b"\x1c\x02" + bytes((number,)) + len(text).to_bytes(2, "big") + text

    block = field(80, "Søren".encode("latin-1")) + field(80, b"Bo") + field(116, b"IPTC notice") + field(110, b"Wire")
    content = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(block).to_bytes(4, "big") + block + bytes(len(block) % 2)
    segment = b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
    assert rights_of(data[:2] + segment + data[2:]) == ImageRights("IPTC notice", "Søren; Bo", "Wire")


@pytest.mark.parametrize(
    "xmp",
    [
        b"not XML DMI-PROHIBITED plus:DataMining",
        XMP.replace(b"</dc:rights>", b""),
        b"<x>" * 100_000,
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + XMP,
        XMP.replace(b"Ada", b"&unknown;"),
    ],
)
def test_garbled_packets_hide_no_refusal_and_break_nothing(xmp: bytes) -> None:
    data = encoded("WEBP", xmp=xmp)
    found = rights_of(data)
    refuses = b"DMI-" in xmp and b"DOCTYPE" not in xmp
    assert (found.data_mining or "").startswith("DMI-PROHIBITED") == refuses
    assert found.notice == "EXIF notice", "another block is read all the same"
    assert rights_of(data[:200]) == rights_of(b"") == rights_of(b"<svg>") == ImageRights()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 1, "icc_profile": b"a profile" * 9000}),
        ("PNG", {"icc_profile": b"a profile"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"icc_profile": b"a profile"}),
    ],
)
def test_a_cleaned_file_has_the_same_pixels_and_rights_and_nothing_else(kind: str, options: dict[str, object]) -> None:
    data = encoded(kind, **options)
    trailed = data + b"trailer of " + SECRET.encode()
    assert SECRET.encode() in data
    for one in (data, trailed):
        clean = cleaned(one)
        assert SECRET.encode() not in clean
        assert rights_of(clean) == RIGHTS
        assert np.array_equal(decode(clean), decode(data))
        assert inspect(clean, max_bytes=10**7, max_pixels=10**7).format == kind.lower()
        with Image.open(io.BytesIO(clean)) as image:
            assert image.info.get("icc_profile") == options.get("icc_profile")
            assert not image.getexif()
        assert cleaned(clean) == clean


@pytest.mark.parametrize(("kind", "mode"), product(["JPEG", "PNG", "WEBP"], ["L", "RGB", "RGBA"]))
def test_a_file_that_says_nothing_stays_as_it_is(kind: str, mode: str) -> None:
    if kind == "JPEG" and mode == "RGBA":
        return
    out = io.BytesIO()
    picture(mode).save(out, kind)
    assert cleaned(out.getvalue()) == out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_is_not_built_as_its_format_has_it_is_refused(kind: str) -> None:
    data = encoded(kind)
    for place in (3, 12, 20, 40, len(data) // 2, len(data) - 3):
        with pytest.raises(NotCleanError):
            cleaned(data[:place])
    with pytest.raises(NotCleanError):
        cleaned(encoded("TIFF", xmp=None))


def test_rights_go_into_a_file_and_come_out_again() -> None:
    out = io.BytesIO()
    picture().save(out, "JPEG")
    assert rights_of(with_rights(out.getvalue(), RIGHTS)) == RIGHTS
    assert b"plus" not in xmp_packet(ImageRights(notice="n"))


def test_a_manifest_is_found_wherever_a_format_has_it() -> None:
    store = b"\0\0\1\0jumb\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\x008\x9bq\x03c2pa\0" + bytes(64)
    jpeg, png = encoded("JPEG"), encoded("PNG")
    content = b"JP\0\1\0\0\0\1" + store
    segment = b"\xff\xeb" + (len(content) + 2).to_bytes(2, "big") + content
    chunk = struct.pack(">I4s", len(store), b"caBX") + store + zlib.crc32(store, zlib.crc32(b"caBX")).to_bytes(4, "big")
    with_manifest = (jpeg[:2] + segment + jpeg[2:], png[:33] + chunk + png[33:])
    assert not has_c2pa(jpeg)
    assert not has_c2pa(b"a text about jumbf and c2pa")
    for data in with_manifest:
        assert has_c2pa(data)
        assert not has_c2pa(cleaned(data)), "a manifest is of a file as it was signed"
