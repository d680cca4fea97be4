"""The DuckDB warehouse: a rebuild is written next to the live file and replaces it; readers are never blocked."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from dqe_resources.cache import data_directory
from dqe_resources.configurable import Configurable
from dqe_resources.errors import DataQualityError, one_line
from dqe_resources.locks import LOCK, held, hold_open
from dqe_resources.processes import private_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import duckdb
    import pyarrow as pa

RESULT_LIMIT = 512 * 2**20
"""Bytes of a result that ``Warehouse.query`` gives back at most."""

BUILD_MEMORY = "1500MB"
"""What DuckDB holds in memory while it builds; the rest it spills next to the new file."""

READ_MEMORY = "1GB"
"""The same for what the quality report asks."""

CATALOG = "warehouse"
"""Name under which a connection of ours holds the database."""

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})")

Size = Annotated[str, Field(pattern=rf"^{_SIZE.pattern}$")]
"""A number of bytes: 500MB, 2GB, 1.5GiB."""

_WRITES = "_QUERY_NODE"
"""Ends DuckDB's name of a statement inside a SELECT that is none itself."""

_LOOK_EVERY_SECONDS = 0.05
_GRACE_SECONDS = 1.0
_YOUNG_SECONDS = 60.0
_COPIED_AT_ONCE = 1 << 30


class WarehouseError(DataQualityError):
    """The warehouse could not be written or read; one line that says what to do."""


class WarehouseMissingError(WarehouseError):
    """There is no warehouse yet."""


class QueryError(WarehouseError):
    """A person's SQL was refused or failed; one line."""


class UnstoppableQueryError(QueryError):
    """A statement was stopped within a function that DuckDB cannot leave: only the end of this process ends it."""


@contextmanager
def of_this_version() -> Iterator[None]:
    """Say so, if a query here asks for a table or column that the warehouse does not have.

    Raises:
        WarehouseError: it was made by another version, or for other settings.
    """
    import duckdb

    try:
        yield
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise WarehouseError(
            f"the warehouse was made by another version, or for other settings ({one_line(error)}); "
            "run: dqe materialize warehouse"
        ) from error


class Warehouse(Configurable):
    """A DuckDB database in one file that is only ever replaced as a whole.

    A reader holds the file that it opened: a rebuild neither waits for it nor changes what it sees, and the next
    ``connect`` sees the new one.

    Attributes:
        path: Path of the DuckDB file; by default ``warehouse.duckdb`` in the data folder.
        statement_timeout: Seconds that one statement of a person may run.
        memory_limit: Memory that one statement of a person may take, such as 500MB or 2GB. Sorting, joining and
            grouping go on on disk, next to the file; a statement that takes 512 MiB more than this all the same is
            stopped.
        spill_limit: Space on disk that one statement of a person may take.
    """

    kind: ClassVar[str] = "duckdb"

    path: Path = Field(default_factory=lambda: data_directory() / "warehouse.duckdb")
    statement_timeout: float = Field(default=300.0, gt=0)
    memory_limit: Size = "2GB"
    spill_limit: Size = "20GB"

    def signature(self) -> dict[str, Any]:
        """Only the kind: the place and the limits of queries do not change its content."""
        return {"kind": self.kind}

    def rebuild(
        self,
        build: Callable[[duckdb.DuckDBPyConnection], None],
        keep: Callable[[duckdb.DuckDBPyConnection], bool] | None = None,
    ) -> None:
        """Build a new database and put it in the place of the live one, atomically.

        Rebuilds of one file take turns. A kill at any moment leaves the live file as it was; what the killed one left
        behind is removed by the next.

        Args:
            build: fills the empty database that the connection holds; or changes it, if it is a copy of the live one.
            keep: whether to begin with a copy, by a connection to the live one, if there is one; by default, never. If
                DuckDB fails on the copy, an empty one is filled all the same.

        Raises:
            WarehouseError: the directory cannot be written, or the disk is full. The live file is untouched.
        """
        import duckdb

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with held(self.path.with_name(f".{self.path.name}.lock")):
                self._remove_leftovers()
                new = self.path.with_name(f"{self._prefix}{secrets.token_hex(8)}")
                try:
                    if keep is None or not self._is_made_of_copy(new, build, keep):
                        self._fill(new, build)
                    self._swap_in(new)
                finally:
                    self._remove_leftovers()
        except (OSError, duckdb.IOException) as error:
            message = f"cannot write the warehouse {self.path}: {_one_line(error)}"
            raise WarehouseError(message) from error

    def _is_made_of_copy(
        self,
        new: Path,
        build: Callable[[duckdb.DuckDBPyConnection], None],
        keep: Callable[[duckdb.DuckDBPyConnection], bool],
    ) -> bool:
        """Make the new file of a copy of the live one; returns whether that was wanted and could be done."""
        import duckdb

        try:
            with closing(self.connect()) as connection:
                if not keep(connection):
                    return False
            _copy(self.path, new)
            self._fill(new, build)
        except (WarehouseError, duckdb.Error):
            # There is none, or it is damaged, perhaps where only the changes look.
            self._remove_leftovers()
            return False
        return True

    def _fill(self, new: Path, build: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        import duckdb

        with closing(duckdb.connect(str(new), config={"memory_limit": BUILD_MEMORY})) as connection:
            build(connection)
            connection.execute("CHECKPOINT")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A read-only connection to the live file, for queries of our own.

        Raises:
            WarehouseMissingError: there is no warehouse yet.
            WarehouseError: the file is not a DuckDB database that this version reads.
        """
        return self._open(self.path, {})

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The same, for queries that join and sort all captions: what is beyond ``READ_MEMORY`` is spilt to the disk.

        Raises:
            WarehouseError: as for ``connect``.
        """
        with self._spill_folder() as folder:
            spill = "" if folder is None else str(folder / "temporary")
            with closing(self._open(self.path, {"memory_limit": READ_MEMORY, "temp_directory": spill})) as connection:
                yield connection

    def query(self, sql: str) -> pa.Table:
        """Run one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES) that a person wrote.

        Nothing but the warehouse can be read and nothing can be written: no files, network, extensions or settings.

        Raises:
            QueryError: the SQL is wrong, is not one SELECT, reaches for something else, goes beyond a limit of the
                settings, or gives more than ``RESULT_LIMIT`` bytes.
            UnstoppableQueryError: it goes beyond a limit, and does not end.
            WarehouseError: as for ``connect``.
            KeyboardInterrupt: Ctrl-C stopped it.
        """
        with self.session() as query:
            return query(sql)

    @contextmanager
    def session(self) -> Iterator[Callable[[str], pa.Table]]:
        """A function that runs queries as ``query`` does, all on the warehouse as it is now.

        Raises:
            WarehouseError: as for ``connect``.
        """
        with self._private_folder() as folder:
            connection = self._confined(folder)
            running: list[Future[pa.Table]] = []
            try:
                yield lambda sql: self._run(connection, sql, running)
            finally:
                # To close it would wait for what cannot be stopped.
                if all(one.done() for one in running):
                    connection.close()

    def _run(self, connection: duckdb.DuckDBPyConnection, sql: str, running: list[Future[pa.Table]]) -> pa.Table:
        _require_one_select(connection, sql)
        result: Future[pa.Table] = Future()
        running[:] = [result]
        started, before, most = time.monotonic(), private_bytes(), _bytes(self.memory_limit) + RESULT_LIMIT
        # In a thread of its own, for Python handles Ctrl-C only between two calls into DuckDB; and one that does not
        # keep the process, for DuckDB stops only between two pieces of work, and one function can take very long.
        threading.Thread(target=_fetch_into, args=(result, connection, sql), name="query", daemon=True).start()
        passed = None
        try:
            while passed is None and not wait([result], timeout=_LOOK_EVERY_SECONDS).done:
                if time.monotonic() - started > self.statement_timeout:
                    passed = f"stopped after {self.statement_timeout:g} s (statement_timeout)"
                elif private_bytes() - before > most:
                    passed = (
                        f"stopped at {most / 1e9:.1f} GB of memory (memory_limit {self.memory_limit}, and what a "
                        "result may take); ask for less at once, or raise the limit"
                    )
        finally:
            has_ended = _stopped(connection, result)
        if passed is not None:
            raise QueryError(passed) if has_ended else UnstoppableQueryError(passed)
        return result.result()

    @contextmanager
    def _private_folder(self) -> Iterator[Path | None]:
        """A folder for one session, with a name of its own for the warehouse in it; None if there can be none."""
        with self._spill_folder() as folder:
            yield folder if folder is not None and self._is_linked(folder / CATALOG) else None

    def _is_linked(self, path: Path) -> bool:
        try:
            path.hardlink_to(self.path)
        except OSError:
            return False
        return True

    @contextmanager
    def _spill_folder(self) -> Iterator[Path | None]:
        """A folder for what is spilt; None if there can be none.

        A killed process leaves its folder to the next one, which removes it.
        """
        self._remove_folders_of_the_dead()
        folder = None
        try:
            # Next to the file, for a second name of it can only be on the same file system.
            folder = Path(tempfile.mkdtemp(prefix=self._spill_prefix, dir=self.path.parent))
            lock = (folder / LOCK).open("wb")
            hold_open(lock)
        except OSError:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            yield None
            return
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()

    def _remove_folders_of_the_dead(self) -> None:
        for folder in self.path.parent.glob(f"{self._spill_prefix}*"):
            with suppress(OSError):
                # One that is being made has no lock yet.
                if time.time() - folder.stat().st_mtime > _YOUNG_SECONDS:
                    with (folder / LOCK).open("ab") as lock:
                        if hold_open(lock):
                            shutil.rmtree(folder, ignore_errors=True)

    def _confined(self, folder: Path | None) -> duckdb.DuckDBPyConnection:
        spill = "" if folder is None else str(folder / "temporary")
        connection = self._open(
            self.path if folder is None else folder / CATALOG,
            {
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "python_enable_replacements": "false",
                "memory_limit": self.memory_limit,
                "temp_directory": spill,
            },
        )
        # As a setting of a new connection, DuckDB 2.0 takes it and does not keep to it.
        connection.execute(f"SET max_temp_directory_size = '{self.spill_limit}'")
        # enable_external_access alone leaves an attached database's own files open to COPY, which can stand inside
        # a SELECT (WITH x AS (COPY ...)) and would overwrite the warehouse. So it is attached by a name that nobody
        # has any more, and in whose place there are folders, which cannot be written; the database reads through the
        # handle that it already has. Without a folder nothing can be spilt, and the whole file system goes.
        connection.execute("SET enable_external_access = false")
        if folder is None:
            connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
        else:
            (folder / CATALOG).unlink()
            for name in (CATALOG, f"{CATALOG}.wal"):
                (folder / name).mkdir()
        connection.execute("SET lock_configuration = true")
        return connection

    def _open(self, path: Path, config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
        import duckdb

        if not self.path.is_file():
            message = f"there is no warehouse at {self.path}: run: dqe materialize"
            raise WarehouseMissingError(message)
        # Attached rather than opened: DuckDB shares one instance among the connections of a process to one path, and
        # a process that still holds the file from before a rebuild would be given that one again.
        connection = duckdb.connect(":memory:", config=config)
        try:
            literal = str(path).replace("'", "''")
            connection.execute(f"ATTACH '{literal}' AS {CATALOG} (TYPE duckdb, READ_ONLY)")
            connection.execute(f"USE {CATALOG}")
        except duckdb.Error as error:
            connection.close()
            message = (
                f"cannot read the warehouse {self.path}: {_one_line(error)}; make it again: dqe materialize warehouse"
            )
            raise WarehouseError(message) from error
        return connection

    @property
    def _prefix(self) -> str:
        return f".{self.path.name}.new-"

    @property
    def _spill_prefix(self) -> str:
        return f".{self.path.name}.spill-"

    def _remove_leftovers(self) -> None:
        for entry in sorted(self.path.parent.iterdir()):
            if entry.name.startswith(self._prefix):
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def _swap_in(self, new: Path) -> None:
        with new.open("rb") as file:
            os.fsync(file.fileno())
        # Someone who opened the live file for writing has left a log that must not be replayed into the new one.
        self.path.with_name(f"{self.path.name}.wal").unlink(missing_ok=True)
        new.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _copy(source: Path, target: Path) -> None:
    """Copy a file; a file system that can have two files share what is equal in them does that, and takes no time."""
    try:
        with source.open("rb") as read, target.open("wb") as written:
            while os.copy_file_range(read.fileno(), written.fileno(), _COPIED_AT_ONCE):
                pass
    except (AttributeError, OSError):
        # Not every system has it, nor does every file system.
        shutil.copyfile(source, target)


def _require_one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(_one_line(error)) from error
    if len(statements) != 1:
        message = f"one statement at a time, please: this has {len(statements)}"
        raise QueryError(message)
    if statements[0].type != duckdb.StatementType.SELECT:
        message = f"only SELECT is allowed, and the warehouse is read-only: this is {statements[0].type.name}"
        raise QueryError(message)
    if inner := _writing(connection, sql):
        message = f"only SELECT is allowed, and the warehouse is read-only: this has {inner} in it"
        raise QueryError(message)


def _writing(connection: duckdb.DuckDBPyConnection, sql: str) -> str | None:
    """The first of the statements inside a SELECT that write: COPY, INSERT, UPDATE ...; None without any.

    Of a statement that DuckDB cannot spell out (PIVOT) nothing is said: no file can be written in any case.
    """
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    pending: list[Any] = [json.loads(text)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and kind.endswith(_WRITES):
                return kind.removesuffix(_WRITES)
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return None


def _bytes(size: str) -> int:
    found = _SIZE.fullmatch(size)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0


def _stopped(connection: duckdb.DuckDBPyConnection, result: Future[pa.Table]) -> bool:
    """Stop a statement; returns whether it has ended."""
    end = time.monotonic() + _GRACE_SECONDS
    while not result.done() and time.monotonic() < end:
        connection.interrupt()
        wait([result], timeout=_LOOK_EVERY_SECONDS)
    return result.done()


def _fetch_into(result: Future[pa.Table], connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        result.set_result(_fetch(connection, sql))
    except BaseException as error:  # noqa: BLE001
        result.set_exception(error)


def _fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    import duckdb
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    size = 0
    try:
        relation = connection.sql(sql)
        with relation.to_arrow_reader() as reader:
            schema = reader.schema
            for batch in reader:
                size += batch.nbytes
                if size > RESULT_LIMIT:
                    message = f"the result is larger than {RESULT_LIMIT // 2**20} MiB: add a LIMIT, or aggregate"
                    raise QueryError(message)
                batches.append(batch)
    except duckdb.PermissionException as error:
        message = f"only the warehouse can be read, no files and no network: {_one_line(error)}"
        raise QueryError(message) from error
    except duckdb.OutOfMemoryException as error:
        message = f"{_one_line(error)}. Ask for less at once, or raise memory_limit or spill_limit of the warehouse"
        raise QueryError(message) from error
    except (duckdb.Error, pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise QueryError(damage_in_words(str(error)) or _one_line(error)) from error
    return pa.Table.from_batches(batches, schema)


def damage_in_words(message: str) -> str | None:
    """What to do about an error of DuckDB's that says that its file is damaged; None of any other.

    Every part of the file has a checksum, which is verified when that part is read.
    """
    if "Corrupt database file" not in message:
        return None
    return f"the warehouse is damaged ({' '.join(message.split())}); make it again: dqe materialize warehouse --force"


def _one_line(error: BaseException) -> str:
    """An error's message without DuckDB's excerpt of the statement, on one line."""
    lines = []
    for line in str(error).splitlines():
        if line.startswith("LINE "):
            break
        lines.append(line.strip())
    return " ".join(line for line in lines if line)
