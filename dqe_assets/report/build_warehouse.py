"""Builds the warehouse from what the stages contribute, in an order that follows from what each query reads."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.relations import Table, View, literal, sql_of
from dqe_assets.report.tables import MATERIALISATIONS
from dqe_resources.store import verified_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb
    import fsspec
    import pyarrow.dataset as ds

    from dqe_assets.core.relations import Read, Relations, Temporary


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
        filesystem: where the files are; None for this machine.
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
    filesystem: fsspec.AbstractFileSystem | None = None


def build_warehouse(connection: duckdb.DuckDBPyConnection, inputs: WarehouseInputs) -> None:
    """Fill an empty database with the tables and views, every one and every column of them commented.

    DuckDB takes from Arrow only the columns that are wanted, and spills to disk what does not fit. It could read the
    files itself, but for their checksums.

    Raises:
        ValueError: a uid stands in more than one row of ``raw_samples``, so that rows cannot be joined; or the
            relations contradict each other: two have one name, they read each other in a circle, a query is no SELECT,
            or it is not clear what a view's column means.
        StorageError: a file cannot be opened, or lacks columns of its schema.
        duckdb.Error: a file is damaged, or a query reads something that does not exist.
    """
    relations = _resolved(inputs)
    registered: list[str] = []

    def register(name: str, table: pa.Table | ds.Dataset) -> None:
        connection.register(name, table)
        registered.append(name)

    for name, table in _configured(inputs).items():
        register(name, table)
    for read in (read for one in relations for read in one.reads):
        files = _files(read, inputs.assets)
        tables = {}
        for number, (rest, paths) in enumerate(files.items()):
            tables[rest] = f"files_{number}_of_{read.name}"
            register(tables[rest], verified_dataset(paths, read.schema, read.columns.split(), inputs.filesystem))
        if not files:
            tables[""] = f"no_{read.name}"
            register(tables[""], pa.schema([read.schema.field(name) for name in read.columns.split()]).empty_table())
        connection.execute(f"CREATE TEMP VIEW {read.name} AS {_read(read, tables)}")
    _require_unique_uids(connection)
    for compute in (compute for one in relations for compute in one.computed):
        for name, table in compute(connection).items():
            register(name, table)
    _create_all(connection, relations)
    for name in registered:
        connection.unregister(name)


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
        "materialised": utc.set_column(position, "materialised_at", utc["materialised_at"].cast(pa.timestamp("us"))),
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


def _require_unique_uids(connection: duckdb.DuckDBPyConnection) -> None:
    repeated = connection.execute(
        "SELECT uid, count(*) FROM stored_raw_samples GROUP BY uid HAVING count(*) > 1 ORDER BY uid LIMIT 1"
    ).fetchone()
    if repeated:
        uid, times = repeated
        message = f"raw_samples holds the uid {uid} {times} times: uids must be unique across all shards"
        raise ValueError(message)


def _create_all(connection: duckdb.DuckDBPyConnection, relations: Sequence[Relations]) -> None:
    """Create what queries read, the tables and the views, each after those that it reads."""
    contributed: list[Temporary | Table | View] = []
    for one in relations:
        contributed += [*one.temporary, *one.tables, *one.views]
    by_name = {one.name: one for one in contributed}
    if len(by_name) < len(contributed):
        (name, times), *_ = Counter(one.name for one in contributed).most_common()
        message = f"{times} relations are called {name}: the stages must give each a name of its own"
        raise ValueError(message)
    queries = {name: sql_of(one.select) for name, one in by_name.items()}
    read_by = {
        name: sorted(_tables_in(connection, name, sql) & queries.keys() - {name}) for name, sql in queries.items()
    }
    meanings: dict[str, dict[str, str]] = {}
    for name in _in_order(read_by):
        relation = by_name[name]
        if isinstance(relation, Table):
            meanings[name] = _create_table(connection, relation, queries[name])
        elif isinstance(relation, View):
            read = [meanings[other] for other in read_by[name] if other in meanings]
            meanings[name] = _create_view(connection, relation, queries[name], read)
        else:
            connection.execute(f"CREATE TEMP VIEW {name} AS {queries[name]}")


def _tables_in(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> set[str]:
    """The names that a query reads from: tables and views, and what it defines itself by WITH."""
    (text,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone() or ("{}",)
    parsed = json.loads(text)
    if parsed["error"]:
        message = f"{name}: {parsed['error_message']}"
        raise ValueError(message)
    return set(_table_names(parsed))


def _table_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield node["table_name"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _table_names(part)


def _in_order(read_by: Mapping[str, Sequence[str]]) -> list[str]:
    """Names, each after those that it reads."""
    try:
        return list(TopologicalSorter(read_by).static_order())
    except CycleError as error:
        message = f"queries read each other in a circle: {' <- '.join(error.args[1])}"
        raise ValueError(message) from error


def _create_table(connection: duckdb.DuckDBPyConnection, table: Table, sql: str) -> dict[str, str]:
    """Create and fill a table; returns what its columns mean."""
    columns = ", ".join(f'"{name}" {sql_type}' for name, (sql_type, _) in table.columns.items())
    connection.execute(f"CREATE TABLE {table.name} ({columns})")
    connection.execute(f"INSERT INTO {table.name} {sql}")
    meanings = {name: meaning for name, (_, meaning) in table.columns.items()}
    _comment(connection, "TABLE", table.name, table.comment, meanings)
    return meanings


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
    connection.execute(f"COMMENT ON {kind} {name} IS {literal(comment)}")
    for column, means in columns.items():
        connection.execute(f'COMMENT ON COLUMN {name}."{column}" IS {literal(means)}')
