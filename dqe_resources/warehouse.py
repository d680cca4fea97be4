"""The DuckDB warehouse: a rebuild is written next to the live file and replaces it; readers are never blocked."""

from __future__ import annotations

import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dqe_resources.cache import data_directory
from dqe_resources.configurable import Configurable
from dqe_resources.errors import DataQualityError
from dqe_resources.locks import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import duckdb
    import pyarrow as pa

RESULT_LIMIT = 512 * 2**20
"""Bytes of a result that ``Warehouse.query`` gives back at most."""

BUILD_MEMORY = "2GB"
"""What DuckDB holds in memory while it builds; the rest it spills next to the new file."""

CATALOG = "warehouse"
"""Name under which a connection of ours holds the database."""


class WarehouseError(DataQualityError):
    """The warehouse could not be written or read; one line that says what to do."""


class WarehouseMissingError(WarehouseError):
    """There is no warehouse yet."""


class QueryError(WarehouseError):
    """A person's SQL was refused or failed; one line."""


class Warehouse(Configurable):
    """A DuckDB database in one file that is only ever replaced as a whole.

    A reader holds the file that it opened: a rebuild neither waits for it nor changes what it sees, and the next
    ``connect`` sees the new one.

    Attributes:
        path: Path of the DuckDB file; by default ``warehouse.duckdb`` in the data folder.
        statement_timeout: Seconds that one statement of a person may run.
    """

    kind: ClassVar[str] = "duckdb"

    path: Path = Field(default_factory=lambda: data_directory() / "warehouse.duckdb")
    statement_timeout: float = Field(default=300.0, gt=0)

    def signature(self) -> dict[str, Any]:
        """Only the kind: the place and the time limit of queries do not change its content."""
        return {"kind": self.kind}

    def rebuild(self, build: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Build a new database and put it in the place of the live one, atomically.

        Rebuilds of one file take turns. A kill at any moment leaves the live file as it was; what the killed one left
        behind is removed by the next.

        Args:
            build: fills the empty database that the connection holds.

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
                    with closing(duckdb.connect(str(new), config={"memory_limit": BUILD_MEMORY})) as connection:
                        build(connection)
                        connection.execute("CHECKPOINT")
                    self._swap_in(new)
                finally:
                    self._remove_leftovers()
        except (OSError, duckdb.IOException) as error:
            message = f"cannot write the warehouse {self.path}: {_one_line(error)}"
            raise WarehouseError(message) from error

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A read-only connection to the live file, for queries of our own.

        Raises:
            WarehouseMissingError: there is no warehouse yet.
            WarehouseError: the file is not a DuckDB database that this version reads.
        """
        return self._open({})

    def query(self, sql: str) -> pa.Table:
        """Run one SELECT (or DESCRIBE, SUMMARIZE, SHOW TABLES) that a person wrote.

        Nothing but the warehouse can be read and nothing can be written: no files, network, extensions or settings.

        Raises:
            QueryError: the SQL is wrong, is not one SELECT, reaches for something else, ran longer than
                ``statement_timeout``, or gives more than ``RESULT_LIMIT`` bytes.
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
        with closing(self._confined()) as connection:
            yield lambda sql: self._run(connection, sql)

    def _run(self, connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
        _require_one_select(connection, sql)
        # In a thread of its own, for Python handles Ctrl-C only between two calls into DuckDB.
        with ThreadPoolExecutor(max_workers=1) as pool:
            result = pool.submit(_fetch, connection, sql)
            try:
                return result.result(timeout=self.statement_timeout)
            except TimeoutError as error:
                message = f"stopped after {self.statement_timeout:g} s (statement_timeout)"
                raise QueryError(message) from error
            finally:
                while not result.done():
                    connection.interrupt()
                    wait([result], timeout=0.1)

    def _confined(self) -> duckdb.DuckDBPyConnection:
        connection = self._open(
            {
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "python_enable_replacements": "false",
                "temp_directory": "",
            }
        )
        # enable_external_access alone leaves an attached database's own files open to COPY, which can stand inside
        # a SELECT (WITH x AS (COPY ...)) and would overwrite the warehouse: so the file system goes too. The
        # database reads through the handle that it already has.
        connection.execute("SET enable_external_access = false")
        connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
        connection.execute("SET lock_configuration = true")
        return connection

    def _open(self, config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
        import duckdb

        if not self.path.is_file():
            message = f"there is no warehouse at {self.path}: run: dqe materialize"
            raise WarehouseMissingError(message)
        # Attached rather than opened: DuckDB shares one instance among the connections of a process to one path, and
        # a process that still holds the file from before a rebuild would be given that one again.
        connection = duckdb.connect(":memory:", config=config)
        try:
            literal = str(self.path).replace("'", "''")
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
