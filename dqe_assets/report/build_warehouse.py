"""Builds the warehouse from what the stages contribute, in an order that follows from what each query reads."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.relations import OverAll, Table, Temporary, View, literal, signature_of, sql_of, stored
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import verified_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb
    import pyarrow.dataset as ds

    from dqe_assets.core.relations import Read, Relations
    from dqe_resources.store.place import Place

RAW = "raw_samples"

_MATERIALISED = "materialised"
_CONFIGURED = frozenset({"captioner_infos", "scorer"})
"""What queries read apart from the assets, and of when they were made: the same in each warehouse of one signature."""

_ROWS_AT_ONCE = 100_000
"""Samples whose shards are read at once."""

_FEW_BLOCKS = 64
_MOST_EMPTY = 0.3
"""From this share of empty blocks on, and so many, a warehouse is built anew, so that its file does not grow."""


@dataclass(frozen=True, slots=True)
class CaptionerInfo:
    """A captioner of the configuration.

    Attributes:
        name: the caption source that it writes.
        kind: its kind in data/dqe.yaml.
        model: name and version of its model.
        backbones: the image backbones inside.
        shares_backbone_with_scorer: whether the scorer has one of them too, so that its preference proves nothing.
        price_per_hour: what an hour of captioning costs; None if nobody said.
    """

    name: str
    kind: str
    model: str
    backbones: tuple[str, ...]
    shares_backbone_with_scorer: bool
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class WarehouseInputs:
    """What the warehouse is built from.

    Attributes:
        relations: what the stages contribute.
        assets: the Parquet files of each asset, one a partition. An asset that is absent, or has no files, counts as
            empty.
        place: of the store that the files are in; None for this machine.
        materialisations: what was written when, in the schema ``MATERIALISATIONS``.
        captioners: the captioners of the configuration.
        scorer: name and version of the scorer's model.
        manifests: the facts of the manifests over all shards that relations depend on, by the asset's name.
    """

    relations: Sequence[Relations]
    assets: Mapping[str, Sequence[Path | str]]
    materialisations: pa.Table
    captioners: Sequence[CaptionerInfo]
    scorer: str
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    place: Place | None = None


def build_warehouse(connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs) -> None:
    """Fill an empty database with the tables and views, every one and every column of them commented.

    Or bring a copy of an earlier one of the same ``signature`` up to date: of the tables by shard, only the rows of
    shards that changed are made again. Either way a few shards are read at a time, which bounds what is in memory.

    DuckDB takes from Arrow only the columns that are wanted, and spills to disk what does not fit. It could read the
    files itself, but for their checksums.

    Raises:
        ValueError: a uid stands in more than one row of ``raw_samples``, so that rows cannot be joined; or the
            relations contradict each other: two have one name, they read each other in a circle, a query is no SELECT,
            a table by shard reads what is not of a shard, or it is not clear what a view's column means.
        StorageError: a file cannot be opened, or lacks columns of its schema.
        duckdb.Error: a file is damaged, or a query reads something that does not exist.
    """
    build = _Build(connection, inputs)
    try:
        build.run()
    finally:
        build.clear()


def signature(inputs: WarehouseInputs) -> str:
    """Fingerprint of which tables and views there are and how they are made: a copy of the same can be updated."""
    return fingerprint([signature_of(_resolved(inputs)), *map(repr, inputs.captioners), inputs.scorer])


def can_update(connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs) -> bool:
    """Whether a copy of this warehouse is brought up to date sooner than a new one is built.

    Not if more than half of the shards changed, nor if much of its file is empty. Nor if samples have gone or were
    taken down: the file of a copy may keep the bytes of rows that are removed from it.

    Raises:
        StorageError: a file of ``raw_samples`` cannot be opened.
        duckdb.Error: the earlier warehouse, or such a file, is damaged.
    """
    ((free, total),) = connection.execute(
        "SELECT sum(free_blocks), sum(total_blocks) FROM pragma_database_size()"
    ).fetchall()
    before, now = _earlier_versions(connection, inputs), _versions(inputs)
    changed = [shard for shard, version in now.items() if before.get(shard) != version]
    return (
        free <= max(_FEW_BLOCKS, total * _MOST_EMPTY)
        and len(changed) <= len(now) / 2
        and before.keys() <= now.keys()
        and not _samples_went(connection, inputs, changed)
    )


def _samples_went(connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs, shards: Sequence[str]) -> bool:
    """Whether the earlier warehouse has samples of these shards that are not there any more, or were taken down."""
    paths = [str(path) for path in inputs.assets.get(RAW, ()) if PurePath(path).stem in shards]
    if not paths:
        return False
    connection.register("samples_now", verified_dataset(paths, RAW_SAMPLES, ["uid", "reason"], inputs.place))
    found = connection.execute(
        "SELECT 1 FROM samples s LEFT JOIN samples_now n USING (uid) "  # noqa: S608
        f"WHERE s.shard IN ({', '.join(map(literal, shards))}) AND s.reason <> '{TAKEN_DOWN}' "
        f"AND coalesce(n.reason, '{TAKEN_DOWN}') = '{TAKEN_DOWN}' LIMIT 1"
    ).fetchall()
    return bool(found)


class _Build:
    """Makes the tables and views of a database, or brings them up to date.

    Args:
        connection: the database.
        inputs: what it is made from.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs) -> None:
        self._connection, self._inputs = connection, inputs
        relations = _resolved(inputs)
        self._computed = [compute for one in relations for compute in one.computed]
        self._reads = {read.name: read for one in relations for read in one.reads}
        contributed: list[Temporary | Table | View] = []
        for one in relations:
            contributed += [*one.temporary, *one.tables, *one.views]
        named = {one.name: one for one in contributed}
        if len(named) < len(contributed):
            (name, times), *_ = Counter(one.name for one in contributed).most_common()
            message = f"{times} relations are called {name}: the stages must give each a name of its own"
            raise ValueError(message)
        self._queries = {name: sql_of(one.select) for name, one in named.items()}
        self._read_by = {name: _tables_in(connection, name, sql) - {name} for name, sql in self._queries.items()}
        order = _in_order({name: sorted(read & named.keys()) for name, read in self._read_by.items()})
        self._relations = {name: named[name] for name in order}
        self._versions = _versions(inputs)
        tables = [one for one in self._relations.values() if isinstance(one, Table)]
        self._by_shard = [one for one in tables if one.by_shard]
        self._over_all = [one for one in tables if not one.by_shard and self._is_over_all(one.name)]
        self._others = [one for one in tables if one not in self._by_shard and one not in self._over_all]
        read_by_shard = set[str]().union(*(self._all_read(one.name) for one in self._by_shard))
        self._placing = [one.name for one in self._over_all if "shard" in one.columns and one.name in read_by_shard]
        ((database,),) = connection.execute("SELECT current_database()").fetchall()
        self._live = f'"{database}".main'
        self._registered: set[str] = set()
        self._views: set[str] = set()

    def run(self) -> None:
        """Make what is not there yet, and make again what changed."""
        for table in self._by_shard:
            self._require_by_shard(table)
        for name, configured in _configured(self._inputs).items():
            self._register(name, configured)
        for name in self._reads:
            self._read(name, () if self._is_by_shard(name) else None)
        is_update = self._is_there("materialisations")
        changed = self._start_from_earlier() if is_update else self._start()
        added = sorted(changed & self._versions.keys())
        for shards in self._few_at_a_time(added):
            self._add(shards)
        self._require_unique_uids(added)
        if is_update:
            self._refresh()
        for name in self._stored_in(self._others):
            self._read(name, None)
        for compute in self._computed:
            for name, found in compute(self._connection).items():
                self._register(name, found)
        self._insert_all(self._others)
        if not is_update:
            self._create_views()

    def _start(self) -> set[str]:
        """Create the tables, and fill those over all shards; returns the shards whose rows are to be added."""
        for table in (*self._over_all, *self._by_shard, *self._others):
            self._create(table)
        self._insert_all(self._over_all)
        return {*self._versions}

    def _start_from_earlier(self) -> set[str]:
        """Fill the tables over all shards again, and remove the rows of shards that changed; returns those shards."""
        before, placed = _earlier_versions(self._connection, self._inputs), self._placed()
        for table in (*self._over_all, *self._others):
            self._connection.execute(f"DELETE FROM {table.name}")  # noqa: S608
        self._insert_all(self._over_all)
        now, placed_now = self._versions, self._placed()
        changed = {
            shard
            for shard in before.keys() | now.keys()
            if before.get(shard) != now.get(shard) or placed.get(shard) != placed_now.get(shard)
        }
        self._remove(sorted(changed & before.keys()))
        # What is free now is written to again, or the file would grow.
        self._connection.execute("CHECKPOINT")
        return changed

    def clear(self) -> None:
        """Take away what the database has only while it is made."""
        for name in self._views:
            self._connection.execute(f"DROP VIEW temp.{name}")
        for name in self._registered:
            self._connection.unregister(name)

    def _is_there(self, table: str) -> bool:
        return bool(self._connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]).fetchall())

    def _all_read(self, name: str) -> set[str]:
        """The names that a query reads from, those in the temporary views that it reads too."""
        found = self._read_by.get(name, set())
        views = [other for other in found if isinstance(self._relations.get(other), Temporary)]
        return found.union(*map(self._all_read, views))

    def _stored_in(self, tables: Sequence[Table]) -> set[str]:
        """What of the store these tables read."""
        return {name for table in tables for name in self._all_read(table.name)} & self._reads.keys()

    def _is_by_shard(self, name: str) -> bool:
        """Whether what is read so of the store has a version for each shard."""
        read = self._reads[name]
        files = _files(read, self._inputs.assets)
        partitions = {PurePath(path).stem for paths in files.values() for path in paths}
        has_manifest = any(f"{read.asset}{rest}" in self._inputs.manifests for rest in files)
        return partitions <= self._versions.keys() and not has_manifest

    def _is_over_all(self, name: str) -> bool:
        """Whether a table reads nothing but what there is of assets over all shards."""
        for other in self._all_read(name):
            relation = self._relations.get(other)
            if isinstance(relation, Table):
                if relation.by_shard or not self._is_over_all(other):
                    return False
            elif other in self._reads:
                if self._is_by_shard(other) and _files(self._reads[other], self._inputs.assets):
                    return False
            elif relation is None and other not in {*_CONFIGURED, _MATERIALISED}:
                return False
        return True

    def _require_by_shard(self, table: Table) -> None:
        over_all = table.over_all or OverAll({}, "")
        columns = ", ".join(over_all.columns.values()) or "NULL"
        joined = _tables_in(self._connection, table.name, f"SELECT {columns} FROM {table.name} t {over_all.joins}")  # noqa: S608
        for other in self._others:
            if other.name in joined:
                message = f"table {table.name} is by shard and joins {other.name}, which is made after it"
                raise ValueError(message)
        for name in self._all_read(table.name):
            relation = self._relations.get(name)
            is_of_shard = (
                relation.by_shard or name in self._placing
                if isinstance(relation, Table)
                else self._is_by_shard(name)
                if name in self._reads
                else isinstance(relation, Temporary) or name in _CONFIGURED
            )
            if not is_of_shard:
                message = f"table {table.name} is by shard and reads {name}, which is not of a shard alone"
                raise ValueError(message)
        if not {"uid", "shard"} & table.columns.keys():
            message = f"table {table.name} is by shard: it needs a column uid or shard, by which its rows are found"
            raise ValueError(message)

    def _placed(self) -> dict[str, tuple[str, ...]]:
        """For each shard, the rows that it has in the tables over all shards that tables by shard read."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self._placing:
            rows = self._connection.execute(
                f"SELECT shard, list(t::VARCHAR ORDER BY t::VARCHAR)::VARCHAR FROM {name} t GROUP BY shard"  # noqa: S608
            ).fetchall()
            for shard, text in rows:
                found[shard] = (*found.get(shard, ()), name, text)
        return found

    def _few_at_a_time(self, shards: Sequence[str]) -> Iterator[list[str]]:
        """The shards, so many at a time that they have about ``_ROWS_AT_ONCE`` rows."""
        stored = self._inputs.materialisations.filter(pc.field("asset") == RAW)
        rows = dict(zip(stored["partition"].to_pylist(), stored["rows"].to_pylist(), strict=True))
        few: list[str] = []
        for shard in shards:
            few.append(shard)
            if sum(rows.get(one, _ROWS_AT_ONCE / 10) for one in few) >= _ROWS_AT_ONCE:
                yield few
                few = []
        if few:
            yield few

    def _register(self, name: str, table: pa.Table | ds.Dataset) -> None:
        self._connection.register(name, table)
        self._registered.add(name)

    def _read(self, name: str, shards: Sequence[str] | None) -> None:
        """Let queries read what is stored of these shards; None for all that there is."""
        read = self._reads[name]
        tables = {}
        for number, (rest, paths) in enumerate(_files(read, self._inputs.assets).items()):
            wanted = paths if shards is None else [path for path in paths if PurePath(path).stem in shards]
            if wanted:
                tables[rest] = f"files_{number}_of_{name}"
                found = verified_dataset(wanted, read.schema, read.columns.split(), self._inputs.place)
                self._register(tables[rest], found)
        if not tables:
            tables[""] = f"no_{name}"
            self._register(tables[""], pa.schema(map(read.schema.field, read.columns.split())).empty_table())
        self._define(name, _read(read, tables))

    def _define(self, name: str, sql: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
        self._views.add(name)

    def _insert(self, table: Table, into: str) -> None:
        """Insert a table's rows, by the temporary views that its query reads."""
        read = self._all_read(table.name)
        for name, relation in self._relations.items():
            if isinstance(relation, Temporary) and name in read and name not in self._views:
                self._define(name, self._queries[name])
        self._connection.execute(f"INSERT INTO {into} {self._queries[table.name]}")

    def _insert_all(self, tables: Sequence[Table]) -> None:
        for table in tables:
            self._insert(table, table.name)

    def _create(self, table: Table) -> None:
        self._connection.execute(f"CREATE TABLE {table.name} ({_columns(table)})")
        _comment(self._connection, "TABLE", table.name, table.comment, _meanings(table))

    def _remove(self, shards: Sequence[str]) -> None:
        """Remove the rows of shards."""
        if not shards:
            return
        listed = ", ".join(map(literal, shards))
        self._connection.execute(
            f"CREATE TEMP TABLE removed AS SELECT uid FROM samples WHERE shard IN ({listed})"  # noqa: S608
        )
        for table in self._by_shard:
            which = f"shard IN ({listed})" if "shard" in table.columns else "uid IN (FROM removed)"
            self._connection.execute(f"DELETE FROM {table.name} WHERE {which}")  # noqa: S608
        self._connection.execute("DROP TABLE removed")

    def _add(self, shards: Sequence[str]) -> None:
        """Add the rows of shards: while they are made, queries find in each table those alone."""
        for name in self._stored_in(self._by_shard):
            self._read(name, shards)
        self._require_no_row(f"SELECT uid, count(*) FROM {stored(RAW)} GROUP BY uid HAVING count(*) > 1")  # noqa: S608
        for table in self._by_shard:
            self._connection.execute(f"CREATE TEMP TABLE {table.name} ({_columns(table)})")
            self._insert(table, f"temp.{table.name}")
        for table in self._by_shard:
            over_all = table.over_all or OverAll({}, "")
            named = ", ".join(f"{sql} AS {name}" for name, sql in over_all.columns.items())
            replaced = f"t.* REPLACE ({named})" if named else "t.*"
            self._connection.execute(
                f"INSERT INTO {self._live}.{table.name} SELECT {replaced} FROM temp.{table.name} t {over_all.joins}"  # noqa: S608
            )
        for table in self._by_shard:
            self._connection.execute(f"DROP TABLE temp.{table.name}")

    def _refresh(self) -> None:
        """Bring the columns up to date that come of assets over all shards."""
        for table in self._by_shard:
            if table.over_all is None:
                continue
            columns = table.over_all.columns
            found = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
            changed = " OR ".join(f"t.{name} IS DISTINCT FROM ({sql})" for name, sql in columns.items())
            self._connection.execute(
                f"CREATE TEMP TABLE changed AS SELECT t.rowid AS place, {found} "  # noqa: S608
                f"FROM {table.name} t {table.over_all.joins} WHERE {changed}"
            )
            self._connection.execute(
                f"UPDATE {table.name} t SET {', '.join(f'{name} = c.{name}' for name in columns)} "  # noqa: S608
                "FROM changed c WHERE t.rowid = c.place"
            )
            self._connection.execute("DROP TABLE changed")

    def _require_unique_uids(self, added: Sequence[str]) -> None:
        """Compare those that were added with all."""
        shards = ", ".join(map(literal, added)) or "NULL"
        self._require_no_row(
            f"SELECT uid, count(*) FROM samples WHERE uid IN (SELECT uid FROM samples WHERE shard IN ({shards})) "  # noqa: S608
            "GROUP BY uid HAVING count(*) > 1"
        )

    def _require_no_row(self, repeated: str) -> None:
        for uid, times in self._connection.execute(f"{repeated} ORDER BY uid LIMIT 1").fetchall():
            message = f"raw_samples holds the uid {uid} {times} times: uids must be unique across all shards"
            raise ValueError(message)

    def _create_views(self) -> None:
        meanings: dict[str, dict[str, str]] = {}
        for name, relation in self._relations.items():
            if isinstance(relation, Table):
                meanings[name] = _meanings(relation)
            elif isinstance(relation, View):
                read = [meanings[other] for other in sorted(self._read_by[name]) if other in meanings]
                meanings[name] = _create_view(self._connection, relation, self._queries[name], read)


def _versions(inputs: WarehouseInputs) -> dict[str, frozenset[tuple[str, str]]]:
    """Of each shard, what changes whenever that does which is read of it."""
    shards = [PurePath(path).stem for path in inputs.assets.get(RAW, ())]
    return _versions_of(shards, inputs.materialisations, inputs)


def _earlier_versions(
    connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs
) -> dict[str, frozenset[tuple[str, str]]]:
    """The same of what the rows of a warehouse were made from."""
    earlier = connection.sql("FROM materialisations").to_arrow_table()
    shards = earlier.filter(pc.field("asset") == RAW)["partition"].to_pylist()
    return _versions_of(shards, earlier, inputs)


def _versions_of(
    shards: Sequence[str], materialisations: pa.Table, inputs: WarehouseInputs
) -> dict[str, frozenset[tuple[str, str]]]:
    reads = {read.asset for one in _resolved(inputs) for read in one.reads}
    begins = tuple(name for name in reads if name.endswith("/"))
    found: dict[str, set[tuple[str, str]]] = {shard: set() for shard in shards}
    columns = (materialisations[name].to_pylist() for name in ("asset", "partition", "fingerprint"))
    for asset, partition, version in zip(*columns, strict=True):
        if partition in found and (asset in reads or asset.startswith(begins)):
            found[partition].add((asset, version))
    return {shard: frozenset(versions) for shard, versions in found.items()}


def reads_of(inputs: WarehouseInputs) -> list[tuple[str, list[str]]]:
    """The assets that are read, each with the columns that are."""
    reads = [read for one in _resolved(inputs) for read in one.reads]
    return [(f"{read.asset}{rest}", read.columns.split()) for read in reads for rest in _files(read, inputs.assets)]


def _resolved(inputs: WarehouseInputs) -> list[Relations]:
    """The relations, and those that depend on manifests."""
    resolved = []
    for one in inputs.relations:
        dependent = [of(inputs.manifests.get(asset, {})) for asset, of in one.by_manifest.items()]
        resolved += [one, *dependent]
    return resolved


def _configured(inputs: WarehouseInputs) -> dict[str, pa.Table]:
    """What queries read apart from the assets, by name."""
    utc = inputs.materialisations.cast(MATERIALISATIONS)
    position = utc.schema.get_field_index("materialised_at")
    infos = inputs.captioners
    return {
        "captioner_infos": pa.table(
            {
                "name": pa.array([info.name for info in infos], pa.string()),
                "kind": pa.array([info.kind for info in infos], pa.string()),
                "model": pa.array([info.model for info in infos], pa.string()),
                "backbones": pa.array([", ".join(sorted(info.backbones)) for info in infos], pa.string()),
                "shares_backbone_with_scorer": pa.array(
                    [info.shares_backbone_with_scorer for info in infos], pa.bool_()
                ),
                "price_per_hour": pa.array([info.price_per_hour for info in infos], pa.float64()),
            }
        ),
        _MATERIALISED: utc.set_column(position, "materialised_at", utc["materialised_at"].cast(pa.timestamp("us"))),
        "scorer": pa.table({"scorer": pa.array([inputs.scorer], pa.string())}),
    }


def _files(read: Read, assets: Mapping[str, Sequence[Path | str]]) -> dict[str, list[str]]:
    """The files to read: of each asset that begins so, by the rest of its name; or of the one asset."""
    if not read.asset.endswith("/"):
        files = assets.get(read.asset, ())
        return {"": [*map(str, files)]} if files else {}
    return {
        asset.removeprefix(read.asset): [*map(str, files)]
        for asset, files in sorted(assets.items())
        if asset.startswith(read.asset) and files
    }


def _read(read: Read, tables: Mapping[str, str]) -> str:
    """SQL that reads it from these tables, by the rest of the asset's name."""
    columns = [_column(read.schema.field(name)) for name in read.columns.split()]
    selects = []
    for rest, table in tables.items():
        named = [f"{literal(rest)} AS {read.rest}"] if read.rest else []
        selects.append(f"SELECT {', '.join([*named, *columns])} FROM {table}")  # noqa: S608
    return " UNION ALL ".join(selects)


def _column(field: pa.Field) -> str:
    """SQL of a column, a time with a zone as one in UTC without."""
    if pa.types.is_timestamp(field.type) and field.type.tz:
        return f'make_timestamp(epoch_us("{field.name}")) AS "{field.name}"'
    return f'"{field.name}"'


def _tables_in(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> set[str]:
    """The tables and views that a query reads from."""
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        message = f"{name}: {parsed['error_message']}"
        raise ValueError(message)
    read, defined = set(), set()
    pending = [parsed]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if node.get("type") == "BASE_TABLE":
                read.add(node["table_name"])
            defined |= {one["key"] for one in node.get("cte_map", {}).get("map", ())}
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return read - defined


def _in_order(read_by: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, each after those that it reads."""
    try:
        return list(TopologicalSorter(read_by).static_order())
    except CycleError as error:
        message = f"queries read each other in a circle: {' <- '.join(error.args[1])}"
        raise ValueError(message) from error


def _columns(table: Table) -> str:
    return ", ".join(f'"{name}" {sql_type}' for name, (sql_type, _) in table.columns.items())


def _meanings(table: Table) -> dict[str, str]:
    return {name: meaning for name, (_, meaning) in table.columns.items()}


def _create_view(
    connection: duckdb.DuckDBPyConnection, view: View, sql: str, read: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Create a view; returns what its columns mean, by the meanings of the columns of what it reads."""
    connection.execute(f"CREATE VIEW {view.name} AS {sql}")
    meanings = {}
    for name, *_ in connection.execute(f"DESCRIBE {view.name}").fetchall():
        found = {view.columns[name]} if name in view.columns else {of[name] for of in read if name in of}
        if len(found) != 1:
            message = (
                f"view {view.name}: say in its columns what {name} means; what it reads gives {len(found)} meanings"
            )
            raise ValueError(message)
        (meanings[name],) = found
    _comment(connection, "VIEW", view.name, view.comment, meanings)
    return meanings


def _comment(
    connection: duckdb.DuckDBPyConnection, kind: str, name: str, comment: str, columns: Mapping[str, str]
) -> None:
    statements = [f"COMMENT ON {kind} {name} IS {literal(comment)}"]
    statements += [f'COMMENT ON COLUMN {name}."{column}" IS {literal(means)}' for column, means in columns.items()]
    # Each would be a transaction of its own, and most of the time that a small warehouse takes.
    connection.execute(f"BEGIN; {'; '.join(statements)}; COMMIT")
