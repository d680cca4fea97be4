"""What a stage adds to the warehouse, the quality report, the gallery and the explanations.

The module ``views.py`` of a stage puts all of this into one ``Relations``. ``report`` builds the warehouse from the
``Relations`` of all stages, and derives the order from the tables that each query reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import duckdb
    import pyarrow as pa

    from dqe_assets.core.figures import Theme
    from dqe_resources.store import Store

    Query = str | Callable[[], str]
    """SQL of a SELECT, or what gives it: see ``sql_file``."""

    Drawing = tuple[str, Callable[[Theme], bytes]]
    """What a plot shows, in words, and what draws it as PNG."""

_Ordered = TypeVar("_Ordered", "ReportSection", "GallerySection", "GalleryGroups", "GalleryPlots", "Explanation")


@dataclass(frozen=True, slots=True)
class Read:
    """Columns of an asset that queries read as ``stored_<asset>`` while the warehouse is built.

    Times have no zone there: they are UTC.

    Attributes:
        asset: the asset's name. One that ends in / stands for all assets that begin so.
        schema: the asset's schema.
        columns: names of the columns, separated by spaces: only what is needed, never image bytes nor embeddings.
        rest: where ``asset`` ends in /, the column that holds the rest of each asset's name.
    """

    asset: str
    schema: pa.Schema
    columns: str
    rest: str = ""

    @property
    def name(self) -> str:
        """What queries call the rows: no table or view of the warehouse is called so."""
        return stored(self.asset)


def stored(asset: str) -> str:
    """What queries call the rows of an asset."""
    return f"stored_{asset.removesuffix('/').replace('/', '_')}"


@dataclass(frozen=True, slots=True)
class Temporary:
    """Rows that several queries read, and that the warehouse does not keep."""

    name: str
    select: Query


@dataclass(frozen=True, slots=True)
class OverAll:
    """Columns of a table by shard that come of what there is over all shards.

    Attributes:
        columns: SQL of each, where ``t`` is the table's row; the table's query has null for it.
        joins: SQL of joins that they need, of at most one row for each of the table.
    """

    columns: dict[str, str]
    joins: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the warehouse.

    Attributes:
        name: its name.
        comment: what its rows are.
        columns: SQL type and meaning of each column.
        select: the rows, columns in the order of ``columns``.
        by_shard: whether each row is of one shard, which its column ``shard`` names, or the sample ``uid``, and comes
            of what is read of that shard alone: then only the rows of shards that changed are made again. It may also
            read a table of what assets over all shards say, if that has a column ``shard``: a shard whose rows there
            changed has changed.
        over_all: of a table by shard, the columns that are not.
    """

    name: str
    comment: str
    columns: dict[str, tuple[str, str]]
    select: Query
    by_shard: bool = False
    over_all: OverAll | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A view of the warehouse."""

    name: str
    comment: str
    select: Query
    columns: dict[str, str] = field(default_factory=dict)
    """Meaning of the columns for which the tables and views that it reads give none, or several."""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A table of the quality report.

    Attributes:
        title: its heading.
        description: what it says, in a sentence or two; or a function that writes them from the warehouse.
        query: its rows.
        order: its place: lower numbers first; equal numbers in the order of the stages.
        only_with: a table or view; if it has no rows, the section is left out.
    """

    title: str
    description: str | Callable[[duckdb.DuckDBPyConnection], str]
    query: Query
    order: int = 500
    only_with: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What may be wrong with samples: the summary of the report names what is wrong with the largest share.

    Attributes:
        what: what they are or have, after "so many of so many".
        query: one row: how many, of how many, and a word on them or null.
        shown_by: the query that shows them, as a person types it.
    """

    what: str
    query: Query
    shown_by: str


@dataclass(frozen=True, slots=True)
class GallerySection:
    """Samples that the gallery shows with all their captions; left out if there are none.

    Attributes:
        anchor: its name in the page's address.
        title: its heading.
        description: what is to be seen, in a sentence.
        query: the uids of the samples, those first that are worth most to see.
        order: as that of ``ReportSection``.
    """

    anchor: str
    title: str
    description: str
    query: Query
    order: int = 500


@dataclass(frozen=True, slots=True)
class Member:
    """A picture of a group.

    Attributes:
        picture: the sample's uid; or the name of a picture that is no sample's, which one of ``pictures`` of the
            relations gives.
        is_marked: whether it stands out.
        tag: what is said of it.
        name: of a picture that is no sample's, its name.
        caption: of such a picture, its caption.
    """

    picture: str
    is_marked: bool
    tag: str
    name: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that belong together, such as samples of which one is kept.

    Attributes:
        heading: what they are.
        members: those that are shown.
    """

    heading: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class GalleryGroups:
    """Groups of pictures that the gallery shows, side by side; left out if there are none.

    Attributes:
        anchor: its name in the page's address.
        title: its heading.
        description: what is to be seen, in a sentence.
        read: gives the groups from the warehouse. Its second argument is how many are shown at most.
        order: as that of ``ReportSection``.
    """

    anchor: str
    title: str
    description: str
    read: Callable[[duckdb.DuckDBPyConnection, int], Iterable[Group]]
    order: int = 500


@dataclass(frozen=True, slots=True)
class GalleryPlots:
    """Plots of the gallery.

    Attributes:
        read: gives the plots from the warehouse. Its second argument is how many things, as caption sources, the page
            shows of a kind at most.
        order: as that of ``ReportSection``.
    """

    read: Callable[[duckdb.DuckDBPyConnection, int], Iterable[Drawing]]
    order: int = 500


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``dqe explain`` says of a sample; left out if there are no rows.

    Attributes:
        title: its heading.
        assets: what its numbers are from; one that ends in / stands for all assets that begin so.
        query: its rows, with ``?`` for the sample's uid.
        order: as that of ``ReportSection``.
        upright: whether a row is shown as a field in each line, those that are null left out.
        glance: whether ``dqe get`` shows it too.
    """

    title: str
    assets: tuple[str, ...]
    query: Query
    order: int = 500
    upright: bool = False
    glance: bool = False


@dataclass(frozen=True, slots=True)
class Relations:
    """All that a stage adds to the warehouse, report, gallery and explanations.

    Attributes:
        reads: what is read of assets.
        computed: functions of a database, in which the tables by shard and what ``reads`` has of assets over all
            shards can be read, that compute in Python tables which other queries read, by name.
        temporary: what several queries read, and the warehouse does not keep.
        tables: tables of the warehouse.
        views: views of the warehouse.
        report_sections: tables of the quality report.
        problems: what the summary of the report looks for.
        gallery_sections: samples that the gallery shows.
        gallery_groups: groups of pictures that the gallery shows.
        pictures: functions that give the image files of pictures that are no samples, of the store and the names.
        gallery_plots: plots of the gallery.
        explanations: what ``dqe explain`` says of a sample.
        by_manifest: functions that say what depends on the manifest of an asset over all shards, by the asset's name.
            Each is given the facts of that manifest; none if the asset is not materialised.
    """

    reads: tuple[Read, ...] = ()
    computed: tuple[Callable[[duckdb.DuckDBPyConnection], Mapping[str, pa.Table]], ...] = ()
    temporary: tuple[Temporary, ...] = ()
    tables: tuple[Table, ...] = ()
    views: tuple[View, ...] = ()
    report_sections: tuple[ReportSection, ...] = ()
    problems: tuple[Problem, ...] = ()
    gallery_sections: tuple[GallerySection, ...] = ()
    gallery_groups: tuple[GalleryGroups, ...] = ()
    pictures: tuple[Callable[[Store, Sequence[str]], Mapping[str, bytes]], ...] = ()
    gallery_plots: tuple[GalleryPlots, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    by_manifest: Mapping[str, Callable[[Mapping[str, Any]], Relations]] = field(default_factory=dict)


def in_order(things: Iterable[_Ordered]) -> list[_Ordered]:
    """What several stages contribute, in the order of the page."""
    return sorted(things, key=attrgetter("order"))


def sql_file(module: str, name: str, **values: str) -> Callable[[], str]:
    """The query in ``sql/<name>.sql`` next to a module, read when it is needed.

    Args:
        module: the ``__file__`` of the module.
        name: name of the file, without its suffix.
        values: what takes the place of each ``$name`` in the file.
    """
    path = Path(module).parent / "sql" / f"{name}.sql"
    return lambda: Template(path.read_text(encoding="utf-8")).substitute(values)


def sql_of(query: Query) -> str:
    """The SQL of a query."""
    return query if isinstance(query, str) else query()


def signature_of(relations: Iterable[Relations]) -> list[Any]:
    """Everything that decides what the warehouse is built to hold, as JSON-like values."""
    return [
        [
            [[read.asset, read.columns, read.rest] for read in one.reads],
            [[made.name, sql_of(made.select)] for made in one.temporary],
            [
                [
                    *(table.name, table.comment, table.columns, sql_of(table.select), table.by_shard),
                    *((table.over_all.columns, table.over_all.joins) if table.over_all else ()),
                ]
                for table in one.tables
            ],
            [[view.name, view.comment, view.columns, sql_of(view.select)] for view in one.views],
            signature_of(of({}) for of in one.by_manifest.values()),
        ]
        for one in relations
    ]


def meaning(schema: pa.Schema, name: str) -> str:
    """What a column of the store means, with its unit."""
    metadata: dict[bytes, bytes] = schema.field(name).metadata
    unit = metadata.get(b"unit")
    return metadata[b"description"].decode() + (f" [{unit.decode()}]" if unit else "")


def columns(schema: pa.Schema, **types: str) -> dict[str, tuple[str, str]]:
    """Columns that mean what they mean in the store."""
    return {name: (sql_type, meaning(schema, name)) for name, sql_type in types.items()}


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def meaning_of(value: str, meanings: Mapping[str, str]) -> str:
    """SQL of what a value means, by the meanings of all that it can be."""
    return f"MAP {{{', '.join(f'{literal(name)}: {literal(means)}' for name, means in meanings.items())}}}[{value}]"


def occurrences(table: str, lists: str, name: str, meanings: Mapping[str, str]) -> str:
    """SQL of how many captions of each source have each value of a column of lists: its meaning, share and an example.

    Args:
        table: table or view with ``uid``, ``caption_source`` and the column.
        lists: the column; null if there is nothing to count.
        name: what one of its values is called.
        meanings: the meaning of each value.
    """
    return f"""
        SELECT o.caption_source, o.{name}, {meaning_of(f"o.{name}", meanings)} AS meaning, count(*) AS captions,
            count(*) / any_value(t.total) AS share, arg_min(c.caption, o.uid) AS example
        FROM (SELECT uid, caption_source, unnest({lists}) AS {name} FROM {table}) o
        JOIN (SELECT caption_source, count({lists}) AS total FROM {table} GROUP BY ALL) t USING (caption_source)
        JOIN captions c USING (uid, caption_source)
        GROUP BY o.caption_source, o.{name}
        ORDER BY o.caption_source <> 'original', o.caption_source, captions DESC, o.{name}
        """  # noqa: S608
