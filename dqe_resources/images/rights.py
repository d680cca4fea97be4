"""What an image file says of who has the rights, and the file without all else that it says beside its pixels.

Fields are read in the order that the Metadata Working Group recommends: XMP, IPTC, EXIF.
"""

from __future__ import annotations

import io
import re
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from PIL import Image
from PIL.IptcImagePlugin import getiptcinfo

from dqe_resources.images.decoding import has_decoder
from dqe_resources.images.formats import DECODED, format_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

MAX_XMP = 1 << 20
"""Bytes that an XMP packet may have; a larger one is not read."""

_LONGEST_TEXT = 1000
_DC = "http://purl.org/dc/elements/1.1/"
_RIGHTS = "http://ns.adobe.com/xap/1.0/rights/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_PLUS = "http://ns.useplus.org/ldf/xmp/1.0/"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

_XMP = {
    "notice": ("dc", _DC, "rights"),
    "creator": ("dc", _DC, "creator"),
    "credit": ("photoshop", _PHOTOSHOP, "Credit"),
    "terms": ("xmpRights", _RIGHTS, "UsageTerms"),
    "web_statement": ("xmpRights", _RIGHTS, "WebStatement"),
    "data_mining": ("plus", _PLUS, "DataMining"),
    "source_type": ("Iptc4xmpExt", _IPTC, "DigitalSourceType"),
}
"""Prefix, namespace and name of the property that holds each field."""

_IIM = {"notice": (2, 116), "creator": (2, 80), "credit": (2, 110)}
_EXIF = {"notice": 0x8298, "creator": 0x013B}
_IIM_UTF_8 = b"\x1b%G"
_OF_A_VOCABULARY = ("data_mining", "source_type")

# The superbox of a manifest store, as every format embeds it (C2PA 2.1, 11.1.4.2).
_C2PA = re.compile(rb"jumb.{4}jumdc2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x008\x9bq", re.DOTALL)
_DATA_MINING = re.compile(rb"\bDMI-[A-Z-]+")


@dataclass(frozen=True, slots=True)
class ImageRights:
    """What a file says of its rights; None where it says nothing.

    Attributes:
        notice: the copyright notice.
        creator: who made it; several are separated by semicolons.
        credit: whom to name.
        terms: how it may be used, in words.
        web_statement: URL of a page that says so.
        data_mining: PLUS's statement on data mining, such as DMI-PROHIBITED-AIMLTRAINING.
        source_type: IPTC's digital source type, such as trainedAlgorithmicMedia.
    """

    notice: str | None = None
    creator: str | None = None
    credit: str | None = None
    terms: str | None = None
    web_statement: str | None = None
    data_mining: str | None = None
    source_type: str | None = None

    def __bool__(self) -> bool:
        return any(astuple(self))


def has_c2pa(data: bytes) -> bool:
    """Whether a file holds a C2PA manifest, valid or not."""
    return _C2PA.search(data) is not None


def data_mining(data: bytes) -> str | None:
    """PLUS's statement on data mining in a file; None if there is none. Most files are not opened for this."""
    return rights_of(data).data_mining if b"DataMining" in data else None


def rights_of(data: bytes) -> ImageRights:
    """What a file says of its rights. What cannot be read says nothing.

    Args:
        data: an image file of any format.
    """
    name = format_of(data)
    if name not in DECODED or not has_decoder(name):
        return ImageRights()
    try:
        with Image.open(io.BytesIO(data), formats=(DECODED[name],)) as image:
            read: tuple[Callable[[ImageFile], dict[str, str]], ...] = (_from_xmp, _from_iptc, _from_exif)
            found = [_guarded(one, image) for one in read]
    except Exception:  # noqa: BLE001 - Pillow raises errors of many kinds on hostile images
        return ImageRights()
    return ImageRights(
        **{
            one.name: next((said[one.name] for said in found if said.get(one.name)), None)
            for one in fields(ImageRights)
        }
    )


def xmp_packet(rights: ImageRights) -> bytes:
    """An XMP packet that says this and nothing else."""
    said = {name: text for name, text in zip(_XMP, _in_order(rights), strict=True) if text}
    namespaces = {prefix: uri for name, (prefix, uri, _) in _XMP.items() if name in said}
    properties = "".join(_property(name, text) for name, text in said.items())
    declared = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in namespaces.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""{declared}>{properties}</rdf:Description></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()


def _in_order(rights: ImageRights) -> list[str | None]:
    return [getattr(rights, name) for name in _XMP]


def _property(name: str, text: str) -> str:
    prefix, _, local = _XMP[name]
    value = escape(text)
    if name in {"notice", "terms"}:
        value = f'<rdf:Alt><rdf:li xml:lang="x-default">{value}</rdf:li></rdf:Alt>'
    elif name == "creator":
        value = f"<rdf:Seq><rdf:li>{value}</rdf:li></rdf:Seq>"
    return f"<{prefix}:{local}>{value}</{prefix}:{local}>"


def _guarded(read: Callable[[ImageFile], dict[str, str]], image: ImageFile) -> dict[str, str]:
    try:
        return read(image)
    except Exception:  # noqa: BLE001 - a block that is garbled must not hide the others
        return {}


def _from_xmp(image: ImageFile) -> dict[str, str]:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    if not packet and hasattr(image, "tag_v2"):
        packet = image.tag_v2.get(700, b"")
    data = packet.encode() if isinstance(packet, str) else bytes(packet)
    if not data or len(data) > MAX_XMP or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        return {}
    try:
        root = ET.fromstring(data.strip(b"\0 \t\r\n"))  # noqa: S314 - it declares no entities
    except ET.ParseError:
        # A refusal counts also where the rest cannot be read.
        found = _DATA_MINING.search(data)
        return {"data_mining": found[0].decode()} if found else {}
    said: dict[str, str] = {}
    for name, (_, uri, local) in _XMP.items():
        tag = f"{{{uri}}}{local}"
        text = next((text for element in root.iter() if (text := _value(element, tag))), None)
        if text:
            said[name] = text.rstrip("/").rpartition("/")[2] if name in _OF_A_VOCABULARY else text
    return said


def _value(element: ET.Element, tag: str) -> str | None:
    """The value of a property: of an attribute, of an element, or of the items of a list."""
    if text := element.get(tag):
        return _text(text)
    if element.tag != tag:
        return None
    if resource := element.get(f"{{{_RDF}}}resource"):
        return _text(resource)
    items = [item.text or "" for item in element.iter(f"{{{_RDF}}}li")]
    if element.find(f"{{{_RDF}}}Alt") is not None:
        items = items[:1]
    return _text("; ".join(filter(None, items)) or element.text or "")


def _from_iptc(image: ImageFile) -> dict[str, str]:
    found = getiptcinfo(image) or {}
    is_utf_8 = found.get((1, 90)) == _IIM_UTF_8
    said = {}
    for name, key in _IIM.items():
        values = found.get(key) or []
        texts = [_decoded(value, is_utf_8=is_utf_8) for value in (values if isinstance(values, list) else [values])]
        if text := _text("; ".join(filter(None, texts))):
            said[name] = text
    return said


def _decoded(value: bytes, *, is_utf_8: bool) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode(errors="replace") if is_utf_8 else value.decode("latin-1")


def _from_exif(image: ImageFile) -> dict[str, str]:
    exif = image.getexif()
    said = {name: _text(_exif_text(exif.get(tag))) for name, tag in _EXIF.items()}
    return {name: text for name, text in said.items() if text}


def _exif_text(value: Any) -> str:
    if isinstance(value, str):
        # Pillow takes each byte for a letter, while many a program writes UTF-8.
        value = value.encode("latin-1", "replace")
    if isinstance(value, bytes):
        value = _decoded(value, is_utf_8=False)
    # Of a photographer's and an editor's notice, separated by a zero, the first counts.
    return str(value or "").strip("\0 ").partition("\0")[0]


def _text(text: str) -> str | None:
    """A text as it is kept: on one line, without what no text may hold, of bounded length."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.split())[:_LONGEST_TEXT] or None
