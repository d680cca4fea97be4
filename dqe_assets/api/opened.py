"""What was made in a data folder, read from Python."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.api.rows import Rows
from dqe_resources.cache import data_folder
from dqe_resources.errors import DataQualityError, UsageError
from dqe_resources.printable import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.report.quality import Section


class OpenError(DataQualityError):
    """There is nothing to read in a folder: says what is missing and what to do."""


def open_data(folder: str | Path = "data") -> Data:
    """Open what ``dqe materialize`` has made in a data folder, to read it.

    Nothing of the process changes by it, nor has ``DQE_DATA`` to be set: any number can be open at once. Like the
    commands, it heeds ``DQE_*`` variables that override keys of dqe.yaml.

    Args:
        folder: the folder that dqe.yaml is in.

    Raises:
        OpenError: there is no such folder, no dqe.yaml in it, or no warehouse yet.
        SettingsError: dqe.yaml is wrong.
        WarehouseError: the warehouse cannot be read.
    """
    return Data(Path(folder))


class Data:
    """A data folder that is read. What it gives is as it is at each call: writers neither wait nor are waited for.

    Attributes:
        folder: the data folder.
        settings: what its dqe.yaml says.
    """

    def __init__(self, folder: Path) -> None:
        from dqe_assets.orchestration.settings import CONFIGURATION_FILE, load_settings
        from dqe_resources.warehouse import WarehouseMissingError

        self.folder = folder.expanduser().absolute()
        here = f"DQE_DATA={quoted(str(self.folder))}"
        if not (self.folder / CONFIGURATION_FILE).is_file():
            missing = f"no {CONFIGURATION_FILE} in it" if self.folder.is_dir() else "there is no such folder"
            raise OpenError(
                f"{self.folder}: {missing}; give the data folder of a project, or make one: "
                f"{here} dqe init /path/to/images, then {here} dqe materialize"
            )
        with self._here():
            self.settings: Settings = load_settings(sources_may_be_away=True)
            try:
                self.settings.warehouse.connect().close()
            except WarehouseMissingError as error:
                path = self.settings.warehouse.path
                raise OpenError(f"there is no warehouse at {path} yet: run: {here} dqe materialize") from error

    def __repr__(self) -> str:
        return f"dqe.open({str(self.folder)!r})"

    @contextmanager
    def _here(self) -> Iterator[None]:
        with data_folder(self.folder):
            yield

    def samples(self, where: str | None = None, columns: Sequence[str] | None = None) -> Rows:
        """A row for each row of the sources, with what was found of it: the warehouse's table ``samples``.

        Args:
            where: an SQL condition on it, such as ``"original_similarity < 0.2 AND NOT is_duplicate"``; as with ``dqe
                sql``, it reaches nothing but the warehouse, and keeps to the limits of ``warehouse`` in dqe.yaml.
            columns: those that are wanted; by default all.

        Raises:
            UsageError: the condition is wrong, or there is no such column; says which there are.
            QueryError: it goes beyond a limit, such as 512 MiB of rows: ask for fewer columns, or rows.
        """
        return self._read("samples", where, columns)

    def captions(self, where: str | None = None, columns: Sequence[str] | None = None) -> Rows:
        """A row for each caption of each source, with its score: the warehouse's ``captions``; as ``samples``."""
        return self._read("captions", where, columns)

    def _read(self, table: str, where: str | None, columns: Sequence[str] | None) -> Rows:
        from dqe_assets.report.condition import checked_condition

        with self._here(), self.settings.warehouse.session() as query:
            selected = _selected(query(f"SELECT * FROM {table} LIMIT 0").column_names, table, columns)  # noqa: S608
            if where is None:
                return Rows(query(f"SELECT {selected} FROM {table}"))  # noqa: S608
            try:
                checked_condition(query, where, table)
            except ValueError as error:
                raise UsageError(f"where: {error}") from error
            return Rows(query(f"SELECT {selected} FROM {table} WHERE ({where}\n)"))  # noqa: S608

    def search(self, text: str, k: int = 10, *, where: Sequence[str] = ()) -> Rows:
        """The samples whose images are nearest in meaning to a text, the best first, as ``dqe search`` finds them.

        Args:
            text: what to look for.
            k: how many at most.
            where: conditions such as ``source=sample`` or ``similarity_original>=0.3``, all of which hold.

        Returns:
            uid, score (cosine), image_name, caption, caption_source, similarity, language, source, shard, url, width
            and height.

        Raises:
            UsageError: a condition is wrong, or k is less than 1.
            VectorsError: there is no collection yet, or another process has it open for too long.
        """
        from dqe_assets.core.schema import IMAGE
        from dqe_assets.search.query import Query, hits_table, search_collection

        if k < 1:
            raise UsageError(f"k is {k}: at least 1 sample can be asked for")
        with self._here(), _as_usage():
            conditions = [where] if isinstance(where, str) else where
            return Rows(hits_table(search_collection(self.settings, Query(text), where=conditions, limit=k), IMAGE))

    def subset(self, name: str, columns: Sequence[str] | None = None) -> Rows:
        """The samples of a subset, by uid, with the columns of ``samples``.

        A sample that the subset has several times comes as often. Of one that the warehouse does not know, as of a
        pool that is no store, there is only the uid.

        Args:
            name: of a subset or a mixture of dqe.yaml, such as ``best``.
            columns: those that are wanted beside the uid; by default all.

        Raises:
            UsageError: there is no such subset, or it is not made yet, or there is no such column.
            SubsetError: its file cannot be read.
        """
        from dqe_assets.filtering.subset import format_uids, read_subset

        names = self.settings.subset_names
        if name not in names:
            raise UsageError(f"there is no subset {name}; there are: {', '.join(names) or 'none'}")
        with self._here(), self.settings.warehouse.connect() as connection:
            stored = self.settings.opened_store.get(f"subsets/{name}", None)
            if stored is None:
                raise UsageError(f"the subset {name} is not made yet: run: dqe materialize subsets/{name}")
            uids = format_uids(read_subset(self.folder / stored.stamp.facts["path"]))
            known = connection.sql("SELECT * FROM samples LIMIT 0").columns
            wanted = [one for one in _columns(columns) or known if one != "uid"]
            selected = _selected(known, "samples", ["uid", *wanted])
            connection.register("subset", pa.table({"uid": uids, "place": pa.array(range(len(uids)), pa.int64())}))
            return Rows(
                connection.sql(
                    f"SELECT {selected} FROM subset LEFT JOIN samples USING (uid) ORDER BY place"  # noqa: S608
                ).to_arrow_table()
            )

    def explain(self, uid: str) -> Rows:
        """All that is known of a sample, and the origin of every number, as ``dqe explain`` says it.

        Args:
            uid: its uid, or the source's own name of it.

        Returns:
            A row for each value: ``section`` and ``description`` say what it belongs to, ``row`` counts the rows of the
            section from 0, and ``field`` and ``value`` are its name and the value as text.

        Raises:
            UsageError: there is no such sample; says which names are near.
        """
        rows = [
            {
                "section": section.title,
                "description": section.description,
                "row": number,
                "field": field,
                "value": value if isinstance(value, str) else str(value),
            }
            for section in self.explanation(uid)
            for number, row in enumerate(section.table.to_pylist())
            for field, value in row.items()
            if value is not None
        ]
        return Rows(pa.Table.from_pylist(rows, _EXPLAINED))

    def explanation(self, uid: str) -> list[Section]:
        """The same as sections, each with a title, a description and an Arrow table."""
        from dqe_assets.orchestration.answers import explanation_of

        with self._here(), _as_usage():
            return explanation_of(self.settings, uid)

    def report(self) -> tuple[list[str], list[Section]]:
        """The quality report, as ``dqe report`` prints it: the lines of its summary, and the sections.

        Raises:
            WarehouseError: the warehouse cannot be read, or was made by another version.
        """
        from dqe_assets.orchestration.answers import report_of

        with self._here():
            found, sections = report_of(self.settings)
        return list(found.lines), [one for one in sections if not one.says_nothing]


_EXPLAINED = pa.schema(
    [
        *((name, pa.string()) for name in ("section", "description")),
        ("row", pa.int32()),
        *((name, pa.string()) for name in ("field", "value")),
    ]
)


def _columns(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else [columns] if isinstance(columns, str) else list(columns)


def _selected(known: Sequence[str], table: str, columns: Sequence[str] | None) -> str:
    """The columns as they stand in a query.

    Raises:
        UsageError: there is no such column.
    """
    wanted = _columns(columns)
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise UsageError(f"{table} has no column {unknown[0]}; it has: {', '.join(known)}")
    return ", ".join('"' + name.replace('"', '""') + '"' for name in (known if wanted is None else wanted))


@contextmanager
def _as_usage() -> Iterator[None]:
    """What a command says of a wrong request, as an error that tells so by its type."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
