"""The gallery: one HTML page of photos, captions and scores that needs nothing outside itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_assets.core.figures import DARK, LIGHT, data_uri, jpeg, thumbnail
from dqe_assets.core.pages import rendered
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.report.gallery_reader import GalleryReader, SampleSection
from dqe_resources.errors import one_line
from dqe_resources.warehouse import WarehouseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import duckdb

    from dqe_assets.core.relations import Relations

_FILTERS = {"count": lambda n: f"{n:,}", "score": lambda s: f"{s:.2f}", "signed": lambda s: f"{s:+.2f}"}

THUMBNAIL = 320
"""Longest side of a photo on the page, in pixels."""


@dataclass(frozen=True, slots=True)
class GalleryInputs:
    """What the page is made from.

    Attributes:
        connection: a connection to the warehouse.
        images: gives the image files of uids; one that it leaves out is shown as an empty frame. Only what the page
            shows is asked for, once.
        title: the page's heading.
        per_section: samples, groups or failures in a section, at most.
    """

    connection: duckdb.DuckDBPyConnection
    images: Callable[[list[str]], dict[str, bytes]]
    title: str = "Image-caption quality"
    per_section: int = 12


def render_gallery(inputs: GalleryInputs, relations: Sequence[Relations]) -> str:
    """One self-contained HTML page: key figures, plots, and samples by what there is to see in them.

    It loads nothing, runs no script, and shows captions as text whatever they contain. The same warehouse and images
    give the same bytes.

    Args:
        inputs: what the page is made from.
        relations: what the stages contribute.

    Raises:
        WarehouseError: the warehouse lacks a table or column that the page shows.
    """
    import duckdb

    try:
        return _rendered(inputs, relations)
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise WarehouseError(
            f"the warehouse was made by another version, or for other settings ({one_line(error)}); "
            "run: dqe materialize warehouse"
        ) from error


def _rendered(inputs: GalleryInputs, relations: Sequence[Relations]) -> str:
    reader = GalleryReader(inputs.connection, inputs.per_section)
    groups = reader.groups()
    grouped = reader.group_sections(relations)
    every = [*groups, *(group for section in grouped for group in section.groups)]
    members = [member.uid for group in every for member in group.members]
    return _page(
        inputs,
        reader,
        reader.sections(relations),
        members,
        figures=reader.key_figures(),
        plots=reader.plots(relations),
        groups=groups,
        grouped=grouped,
        failures=reader.failures(),
    )


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
    return _page(inputs, reader, filled, [], figures=[], plots=[], groups=[], grouped=[], failures=[])


def _page(
    inputs: GalleryInputs, reader: GalleryReader, sections: Sequence[SampleSection], others: Sequence[str], **parts: Any
) -> str:
    """The page with the pictures of the samples in its sections, and of others."""
    wanted = [sample.uid for section in sections for sample in section.samples if sample.status == "ok"]
    photos = photos_of(inputs.images(list(dict.fromkeys([*wanted, *others]))))
    return page(
        "gallery.html.j2",
        title=inputs.title,
        notes=reader.notes(),
        scorer=reader.scorer(),
        levels=reader.levels,
        shared=sorted(name for name, independent in reader.independent.items() if not independent),
        sections=sections,
        totals=reader.totals(),
        colours=css_colours(reader.sources),
        photos=photos,
        **parts,
    )


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
