"""A user's table of signals, read once and sorted by its keys, in data/cache: a shard finds its rows in a moment."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.signals.columns import SignalsError, typed_batches
from dqe_resources import progress
from dqe_resources.errors import one_line
from dqe_resources.keyed_table import column_batches
from dqe_resources.sources.index import cached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dqe_assets.signals.settings import SignalTable

_FORM = "1"
_BATCH_ROWS = 1 << 18
_SORT_MEMORY = "1GB"
_ROWS = b"rows"

_DIGEST = {
    "uid": "md5_number_lower(lower(trim({key})))",
    "sha256": "md5_number_lower(lower(trim({key})))",
    "url": "md5_number_lower(trim({key}))",
    "image_name": "md5_number_lower({key})",
}
"""SQL of what two keys have in common that mean the same."""


@dataclass(frozen=True)
class SortedTable:
    """The rows of a table of signals by the digests of their keys, each key once. It is mapped, not read, into memory.

    Attributes:
        table: ``digest`` (uint64, ascending), ``table_row`` (int64, from 1), and the signals.
        rows: rows of the file, those without a key and repeated ones among them.
    """

    table: pa.Table
    rows: int

    @property
    def keys(self) -> int:
        """Different keys."""
        return self.table.num_rows

    def find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where the rows with these digests are in ``table``, int64 [n]; -1 if there is none.

        Args:
            digests: of keys, by ``key_digests``.
        """
        places = np.full(len(digests), -1, np.int64)
        start = 0
        order = np.argsort(digests, kind="stable")
        ordered = digests[order]
        for chunk in self.table["digest"].chunks:
            held = chunk.to_numpy()
            if len(held):
                first, last = np.searchsorted(ordered, held[0]), np.searchsorted(ordered, held[-1], "right")
                wanted = ordered[first:last]
                found = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
                places[order[first:last]] = np.where(held[found] == wanted, found + start, -1)
            start += len(held)
        return places


def key_digests(keys: pa.Array | pa.ChunkedArray, key: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The digests of keys, uint64 [n], and which of them there are, bool [n].

    Args:
        keys: texts [n]; null if a sample has none.
        key: what they are: uid, url, image_name or sha256. An uid and a sha256 may be in capitals.
    """
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.register("given", pa.table({"key": keys}))
        digest = _DIGEST[key].format(key="key")
        found = connection.sql(f"SELECT {digest} AS digest FROM given").to_arrow_table()["digest"]  # noqa: S608
    return pc.fill_null(found, 0).to_numpy().astype(np.uint64), np.asarray(pc.is_valid(found))


def sorted_table(settings: SignalTable) -> SortedTable:
    """The sorted table, from the cache, or else made in one pass over the file.

    Memory is bounded while it is made: what does not fit is sorted on the disk of data/cache, which then holds some 16
    bytes and the values of each row.

    Raises:
        SignalsError: the file cannot be read, a value is not of its column's type, or two rows have one key and
            different values: says the rows.
    """
    name = f"signals-{settings.name}"
    return _opened(cached(name, [_FORM, settings.signature()], lambda path: _write(settings, path), ".arrow"))


@lru_cache(maxsize=16)
def _opened(path: Path) -> SortedTable:
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            return SortedTable(reader.read_all(), int(reader.schema.metadata[_ROWS]))
    except (pa.ArrowException, OSError) as error:
        raise SignalsError(
            f"{path}: damaged ({one_line(error)}); delete it, and run the same command again, which makes it"
        ) from error


def _write(settings: SignalTable, path: Path) -> None:
    rows = 0
    failures: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        try:
            for batch in typed_batches(settings.path, settings.key_name, settings.signals):
                rows += batch.num_rows
                progress.report(progress.Step(f"signals of {settings.name}", None, rows, 0))
                yield batch
        except (SignalsError, pa.ArrowException, OSError, UnicodeError, KeyError) as error:
            # DuckDB would tell of it in words of its own.
            failures.append(error)
            raise

    # What a killed process left there is in nobody's way: who writes holds the lock of the cached file.
    scratch = path.with_name(f"{path.name}.sorting")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _sort(settings, batches(), lambda: rows, path, scratch)
    except Exception as error:
        if not failures:
            raise
        if isinstance(failures[0], SignalsError):
            raise failures[0] from None
        raise SignalsError(
            f"{settings.path}: cannot be read as {settings.path.suffix} ({one_line(failures[0])})"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress.report(progress.Step(f"signals of {settings.name}", None, rows, rows, f"{rows:,} rows read"))


def _sort(
    settings: SignalTable, batches: Iterator[pa.RecordBatch], rows: Callable[[], int], path: Path, scratch: Path
) -> None:
    import duckdb

    signals = [(name, kind) for name, (_, kind) in settings.signals.items()]
    read = pa.schema([("key", pa.string()), ("table_row", pa.int64()), *signals])
    written = pa.schema([("digest", pa.uint64()), ("table_row", pa.int64()), *signals])
    names = "".join(f', "{name}"' for name, _ in signals)
    digest = _DIGEST[settings.key].format(key="key")
    query = f"""
        SELECT {digest} AS digest, table_row{names} FROM given WHERE key IS NOT NULL ORDER BY digest, table_row
        """  # noqa: S608
    config = {"temp_directory": str(scratch), "memory_limit": _SORT_MEMORY}
    with duckdb.connect(":memory:", config=config) as connection:
        connection.register("given", pa.RecordBatchReader.from_batches(read, batches))
        in_order = connection.sql(query).to_arrow_reader(_BATCH_ROWS)
        distinct = _distinct(settings, (batch.cast(written) for batch in in_order), written)
        first = next(distinct, None)
        # All rows are read before the first of them is in its place.
        schema = written.with_metadata({_ROWS: str(rows())})
        with pa.ipc.new_file(path, schema) as writer:
            for batch in () if first is None else (first, *distinct):
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _distinct(settings: SignalTable, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches without rows that repeat the row before them.

    Raises:
        SignalsError: two rows have one key and different values.
    """
    last = schema.empty_table()
    names = [name for name in schema.names if name not in {"digest", "table_row"}]
    for batch in batches:
        both = pa.concat_tables([last, pa.table(batch)]).combine_chunks()
        digests = both["digest"].to_numpy()
        repeats = np.flatnonzero(digests[1:] == digests[:-1])
        if len(repeats):
            earlier, later = both.take(pa.array(repeats)), both.take(pa.array(repeats + 1))
            for name in names:
                differs = np.flatnonzero(~_equal(earlier[name], later[name]))
                if len(differs):
                    rows = earlier["table_row"][differs[0]].as_py(), later["table_row"][differs[0]].as_py()
                    raise _contradicting(settings, rows, name)
        keep = np.ones(both.num_rows, bool)
        keep[repeats + 1] = False
        keep[: last.num_rows] = False
        last = both.slice(both.num_rows - 1)
        yield from both.filter(pa.array(keep)).combine_chunks().to_batches()


def _equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where two columns have the same value, or both none."""
    return np.asarray(pc.fill_null(pc.equal(a, b), fill_value=False)) | np.asarray(pc.and_(a.is_null(), b.is_null()))


def _contradicting(settings: SignalTable, rows: tuple[int, int], name: str) -> SignalsError:
    (key,) = keys_at(settings, rows[:1])
    return SignalsError(
        f"{settings.path}: rows {rows[0]:,} and {rows[1]:,} have the same {settings.key_name} '{key:.200}' and "
        f"different values of {name}; leave one of them, or join by another key"
    )


def keys_at(settings: SignalTable, rows: Sequence[int]) -> list[str]:
    """The keys of some rows of the file.

    Args:
        settings: the table.
        rows: from 1, ascending.
    """
    found: list[str] = []
    first = 1
    for batch in column_batches(settings.path, {settings.key_name: pa.string()}):
        inside = [row - first for row in rows if first <= row < first + batch.num_rows]
        found += batch.column(0).cast(pa.string()).take(pa.array(inside, pa.int64())).to_pylist()
        first += batch.num_rows
        if first > max(rows, default=0):
            break
    return found
