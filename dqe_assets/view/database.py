"""The samples of the view in a DuckDB database of the server's own: what the page asks of it, and what it exports.

Embedding Atlas has such a database too, which holds all that is exported in memory several times over.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.view.samples import quoted
from dqe_resources.errors import DataQualityError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

MEMORY = "1500MB"
"""What DuckDB holds of the samples in memory; the rest it spills."""

FORMATS = ("parquet", "json", "jsonl", "csv")
"""What samples are exported as."""

_ROWS = 10_000
"""Rows that are exported at once."""


class ViewQueryError(DataQualityError):
    """The page has asked what cannot be answered; one line."""


class Samples:
    """The samples as the table ``dataset``. Nothing that is asked of it can read or write a file.

    Args:
        samples: what there is of each.
        spill: a folder for what does not fit in memory; it is made if it is needed.
    """

    def __init__(self, samples: pa.RecordBatchReader, spill: Path) -> None:
        import duckdb

        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
        }
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.register("samples", samples)
        self._connection.execute("CREATE TABLE dataset AS FROM samples")
        self._connection.unregister("samples")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def answer(self, kind: str, sql: str) -> bytes:
        """What a statement gives: as a stream of Arrow, as JSON, or nothing but that it was done.

        Args:
            kind: ``arrow``, ``json`` or ``exec``.
            sql: the statement.

        Raises:
            ViewQueryError: it is wrong, or gives no rows that are asked for.
        """
        with self._connection.cursor() as cursor:
            found = _run(cursor, sql)
            if kind == "exec":
                return b"{}"
            if found is None:
                raise ViewQueryError("the statement gives no rows")
            if kind == "json":
                return json.dumps(found.to_arrow_table().to_pylist(), default=str).encode()
            out = pa.BufferOutputStream()
            reader = found.to_arrow_reader(_ROWS)
            with pa.ipc.new_stream(out, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
            return out.getvalue().to_pybytes()

    def exported(self, predicate: str | None, kind: str) -> Iterator[bytes]:
        """The samples that fulfil a condition as a file, piece by piece.

        Args:
            predicate: SQL over their columns; None for all.
            kind: one of ``FORMATS``.

        Raises:
            ViewQueryError: the condition or the format is wrong.
        """
        if kind not in FORMATS:
            raise ViewQueryError(f"the format is {kind!r}; it must be one of {', '.join(FORMATS)}")
        sql = f"SELECT * FROM dataset WHERE {predicate or 'true'}"  # noqa: S608 - asked by the page, of this table alone
        with self._connection.cursor() as cursor:
            if kind in {"json", "jsonl"}:
                yield from _as_json(_lines(cursor, sql), is_list=kind == "json")
            else:
                names = "COLUMNS(*)::VARCHAR" if kind == "csv" else "*"
                found = _run(cursor, f"SELECT {names} FROM ({sql})")  # noqa: S608
                if found is not None:
                    yield from _as_file(found.to_arrow_reader(_ROWS), is_csv=kind == "csv")


def _run(cursor: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation | None:
    import duckdb

    try:
        found: duckdb.DuckDBPyRelation | None = cursor.sql(sql)
    except duckdb.Error as error:
        raise ViewQueryError(one_line(error)) from error
    return found


def _lines(cursor: duckdb.DuckDBPyConnection, sql: str) -> Iterator[list[bytes]]:
    """The rows of a query as JSON, some at a time; a number that is none, or without end, is null."""
    described = _run(cursor, f"DESCRIBE {sql}")
    rows = described.fetchall() if described is not None else []
    floats = [quoted(name) for name, kind, *_ in rows if kind in {"FLOAT", "DOUBLE"}]
    finite = ", ".join(f"CASE WHEN isfinite({name}) THEN {name} END AS {name}" for name in floats)
    shown = f"* REPLACE ({finite})" if finite else "*"
    found = _run(cursor, f"SELECT to_json(d)::VARCHAR AS line FROM (SELECT {shown} FROM ({sql})) d")  # noqa: S608
    if found is not None:
        for batch in found.to_arrow_reader(_ROWS):
            yield [line.encode() for line in batch["line"].to_pylist()]


def _as_json(lines: Iterator[list[bytes]], *, is_list: bool) -> Iterator[bytes]:
    is_first = True
    for batch in lines:
        if is_list:
            yield (b"[\n" if is_first else b",\n") + b",\n".join(batch)
        else:
            yield b"\n".join(batch) + b"\n"
        is_first = False
    if is_list:
        yield b"[]\n" if is_first else b"\n]\n"


def _as_file(reader: pa.RecordBatchReader, *, is_csv: bool) -> Iterator[bytes]:
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    out = _Pieces()
    made = pa_csv.CSVWriter(out, reader.schema) if is_csv else pq.ParquetWriter(out, reader.schema, compression="zstd")
    with made as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield from out.taken()
    yield from out.taken()


class _Pieces(io.RawIOBase):
    """A file of which what was written is taken away meanwhile."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._written

    def taken(self) -> Iterator[bytes]:
        """What was written since the last call."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            yield b"".join(pieces)
