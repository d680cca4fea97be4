"""The gallery: small HTML pages of photos, captions and scores that need nothing but each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_assets.core.figures import DARK, LIGHT, data_uri, jpeg, thumbnail
from dqe_assets.core.pages import rendered
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.report.gallery_reader import GalleryReader, SampleSection
from dqe_resources.warehouse import of_this_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import duckdb

    from dqe_assets.core.relations import Relations

_FILTERS = {"count": lambda n: f"{n:,}", "score": lambda s: f"{s:.2f}", "signed": lambda s: f"{s:+.2f}"}

ENTRY, FOLDER = "gallery.html", "gallery"
"""The first page, and the folder beside it that has the others."""

PREVIEWS = 3
"""Pictures by which the first page tells of another."""

THUMBNAIL = 320
"""Longest side of a photo on the page, in pixels."""


@dataclass(frozen=True, slots=True)
class GalleryInputs:
    """What the page is made from.

    Attributes:
        connection: a connection to the warehouse.
        images: gives the image files of uids; one that it leaves out is shown as an empty frame. Only what a page
            shows is asked for, once for each page.
        title: the heading.
        per_section: samples, groups or failures in a section, at most.
    """

    connection: duckdb.DuckDBPyConnection
    images: Callable[[list[str]], dict[str, bytes]]
    title: str = "Image-caption quality"
    per_section: int = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """A page of the gallery, as its first page tells of it.

    Attributes:
        file: its name.
        title: its heading.
        description: what is to be seen there.
        previews: pictures of it, as data URIs with their width and height.
    """

    file: str
    title: str
    description: str
    previews: tuple[tuple[str, int, int], ...]


def render_gallery(inputs: GalleryInputs, relations: Sequence[Relations]) -> dict[str, str]:
    """The pages of the gallery by their paths, the first of which has the key figures and links to the others.

    They load nothing, run no script, and show captions as text whatever they contain. The same warehouse and images
    give the same bytes. Memory holds the pictures of one page.

    Args:
        inputs: what the pages are made from.
        relations: what the stages contribute.

    Raises:
        WarehouseError: the warehouse lacks a table or column that the pages show.
    """
    with of_this_version():
        return _rendered(inputs, relations)


def _rendered(inputs: GalleryInputs, relations: Sequence[Relations]) -> dict[str, str]:
    reader = GalleryReader(inputs.connection, inputs.per_section)
    contents = _contents(reader, relations)
    links = [("", "Overview"), *((one.anchor, one.title) for one in contents)]
    pages, entries = {}, []
    for one in contents:
        photos = photos_of(inputs.images(list(dict.fromkeys(one.uids)))) if one.uids else {}
        pages[f"{FOLDER}/{one.anchor}.html"] = _page(inputs, reader, photos, links, one.anchor, **one.parts)
        first = [photos[uid] for uid in one.uids if uid in photos][:PREVIEWS]
        entries.append(Entry(f"{FOLDER}/{one.anchor}.html", one.title, one.description, tuple(first)))
    figures = reader.key_figures()
    return {ENTRY: _page(inputs, reader, {}, links, "", figures=figures, entries=entries), **pages}


@dataclass(frozen=True, slots=True)
class _Content:
    """What a page shows: parts of the template, and the uids of the pictures in them."""

    anchor: str
    title: str
    description: str
    uids: list[str]
    parts: dict[str, Any]


def _contents(reader: GalleryReader, relations: Sequence[Relations]) -> list[_Content]:
    """What the pages show, in their order; nothing is left out but pages without anything."""
    found = [
        _Content(one.anchor, one.title, one.description, _pictured(one), {"sections": [one]})
        for one in reader.sections(relations)
    ]
    for group in [reader.duplicates(), *reader.group_sections(relations)]:
        uids = [member.uid for shown in group.groups for member in shown.members]
        if uids:
            found.append(_Content(group.anchor, group.title, group.description, uids, {"grouped": [group]}))
    if plots := reader.plots(relations):
        found.insert(0, _Content("figures", "Figures", "Plots over the whole store.", [], {"plots": plots}))
    if failures := reader.failures():
        said = "Samples without a readable image, with the reason."
        found.append(_Content("failures", "Failures", said, [], {"failures": failures}))
    return found


def _pictured(section: SampleSection) -> list[str]:
    return [sample.uid for sample in section.samples if sample.status == "ok"]


def render_samples(inputs: GalleryInputs, sections: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """A page of the gallery's cards alone.

    Args:
        inputs: what the gallery reads.
        sections: title, description and uids of each section; one without samples is left out.
    """
    reader = GalleryReader(inputs.connection, inputs.per_section)
    filled = [
        SampleSection(f"section-{place}", title, description, reader.samples(list(uids)))
        for place, (title, description, uids) in enumerate(sections)
        if uids
    ]
    uids = dict.fromkeys(uid for section in filled for uid in _pictured(section))
    return _page(inputs, reader, photos_of(inputs.images(list(uids))), [], "", sections=filled)


def _page(
    inputs: GalleryInputs,
    reader: GalleryReader,
    photos: Mapping[str, tuple[str, int, int]],
    links: Sequence[tuple[str, str]],
    here: str,
    **parts: Any,
) -> str:
    """A page with these pictures.

    Args:
        inputs: what the gallery reads.
        reader: reads it.
        photos: the pictures, by uid.
        links: anchor and title of all pages of the gallery; none for a page of its own.
        here: the anchor of this one.
        parts: what it shows.
    """
    nothing = dict.fromkeys(("figures", "entries", "plots", "sections", "grouped", "failures"), ())
    return page(
        "gallery.html.j2",
        title=inputs.title,
        notes=reader.notes(),
        scorer=reader.scorer(),
        levels=reader.levels,
        shared=sorted(name for name, independent in reader.independent.items() if not independent),
        totals=reader.totals(),
        colours=css_colours(reader.sources),
        photos=photos,
        links=[(_address(anchor, here), title, anchor == here) for anchor, title in links],
        here=here,
        **nothing | parts,
    )


def _address(anchor: str, here: str) -> str:
    """The address of a page of the gallery, seen from another."""
    if not anchor:
        return f"../{ENTRY}" if here else ENTRY
    return f"{anchor}.html" if here else f"{FOLDER}/{anchor}.html"


def page(template: str, **values: Any) -> str:
    """A page of one of the templates in this folder."""
    return rendered(Path(__file__).with_name(template), _FILTERS, **values)


def photos_of(images: dict[str, bytes]) -> dict[str, tuple[str, int, int]]:
    """A small copy of each image as a data URI, with its width and height."""
    photos = {}
    for uid, data in images.items():
        picture = thumbnail(data, (THUMBNAIL, THUMBNAIL))
        if picture is not None:
            photos[uid] = (data_uri(jpeg(picture)), picture.width, picture.height)
    return photos


def css_colours(sources: Iterable[str]) -> list[tuple[str, str, str]]:
    """The colours of caption sources in light and in dark, by name."""
    light, dark = (theme.colours(sources) for theme in (LIGHT, DARK))
    return [(name, light[name], dark[name]) for name in sorted({ORIGINAL, *sources})]
