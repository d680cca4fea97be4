"""The input and output of a stage: its work, its checks with their results, and what it returns."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_resources import progress
from dqe_resources.store import UNPARTITIONED, Checkpoint, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dqe_resources.store import Store, StoredPartition

_FACTS = b"facts"


@dataclass(frozen=True)
class Work:
    """The first argument of a stage's function: the partition to make, and its inputs.

    Attributes:
        asset: name of the asset.
        partition: the shard or training run; None for an asset over all shards.
        shards: that shard, or all shards whose inputs are there and passed their checks.
        store: where the inputs are.
        tables: the schemas of the tables that it may read, by the asset's name: its inputs, its own, and raw_samples.
        left_out: shards whose inputs are not there, or failed a check.
        runs: that training run; for an asset over all, those of which its inputs are there and passed their checks.
        runs_left_out: training runs whose inputs are not there, or failed a check.
        version: fingerprint of everything that goes into the partition.
        force: whether it is made again from the beginning, even if it is current.
        log: writes a line to the run's log.
    """

    asset: str
    partition: str | None
    shards: tuple[str, ...]
    store: Store
    tables: Mapping[str, pa.Schema]
    left_out: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    runs_left_out: tuple[str, ...] = ()
    version: str = ""
    force: bool = False
    log: Callable[[str], None] = field(default=lambda _: None)

    def of_shard(self, shard: str) -> Work:
        """The same work, reading from one shard: for an asset over all of them."""
        return replace(self, partition=shard)

    @property
    def over_all(self) -> Work:
        """The same work, reading from assets over all shards: for an asset of one of them."""
        return replace(self, partition=None)

    def read(self, asset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """This partition's table of an input.

        Raises:
            StorageError: it is not there, torn, or of another schema.
            LookupError: the asset is none of the stage's inputs, or has no such column.
        """
        return self.store.read(asset, self.partition, self._schema_of(asset), columns)

    def read_unpartitioned(self, asset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The table of an input over all shards; raises as ``read`` does."""
        return self.store.read(asset, None, self._schema_of(asset), columns)

    def batches(self, asset: str, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """This shard's table of an input, a number of rows at a time; raises as ``read`` does."""
        return self.store.batches(asset, self.partition, self._schema_of(asset), columns, rows)

    def read_rows(self, asset: str, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """These rows of this shard's table of an input; raises as ``read`` does."""
        return self.store.read_rows(asset, self.partition, self._schema_of(asset), rows, columns)

    def scan(self, asset: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The tables of an input, one shard at a time; raises as ``read`` does."""
        for shard in self.shards:
            yield self.store.read(asset, shard, self._schema_of(asset), columns)

    def scan_runs(self, asset: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The tables of an input of training runs, one run at a time; raises as ``read`` does."""
        for run in self.runs:
            yield self.store.read(asset, run, self._schema_of(asset), columns)

    def _schema_of(self, asset: str) -> pa.Schema:
        if asset not in self.tables:
            raise LookupError(
                f"{self.asset} reads {asset}, which is none of its inputs; name it in the stage's inputs, so that the "
                f"lineage and the fingerprint know of it. It has: {', '.join(self.tables)}"
            )
        return self.tables[asset]

    def version_of(self, asset: str) -> str:
        """Fingerprint of this shard's table of an input; it changes when the table changes."""
        return input_fingerprint(self, asset, self.partition)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where rows of this partition are kept while others are still being made; cleared once it is stored."""
        return Checkpoint(self.store, self.asset, self.partition or UNPARTITIONED, self.version)

    def meter(self, total: int) -> progress.Meter:
        """Reports how many of this partition's samples are done."""
        return progress.Meter(self.asset, self.partition, total, self.log)

    def track(self, items: Iterable[Any], total: int) -> Iterator[Any]:
        """Yield the items and report progress."""
        return progress.track(items, self.meter(total))


Batches = Generator[pa.RecordBatch, None, None]
"""A large table in parts. Closed before its end, it stops whatever it has set going."""


class StartOverError(Exception):
    """Raised between batches: those before it are wrong. The function is called again, and then knows better."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check: whether it passed, a sentence that says so, and the values behind it."""

    passed: bool
    description: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold for a partition: ``run(work, output)`` says whether it does.

    ``output`` is the table without images (or a ``Manifest``). After these two, ``run`` may take what the stage's
    function takes, by the same names. A blocking check that fails stops what is downstream.
    """

    name: str
    description: str
    run: Callable[..., CheckResult]
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Manifest:
    """The output of a stage that is not a table: facts about the result, and its number of rows."""

    rows: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def with_facts(table: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    """The output of a stage that is a table, with JSON-like facts that are to be in its stamp."""
    return table.replace_schema_metadata({_FACTS: json.dumps(facts)})


def facts_of(table: pa.Table) -> Mapping[str, Any]:
    """The facts that ``with_facts`` has added to a table."""
    return json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))


def input_fingerprint(work: Work, asset: str, partition: str | None) -> str:
    """Fingerprint of a partition that is read.

    Raises:
        StorageError: it is not there, or failed a check.
    """
    return stored_input(work, asset, partition).stamp.identity


def stored_input(work: Work, asset: str, partition: str | None) -> StoredPartition:
    """A partition that is read, as it is stored; raises as ``input_fingerprint`` does."""
    stored = work.store.get(asset, partition)
    where = f"{asset}, {'run' if partition in work.runs else 'shard'} {partition}" if partition else asset
    if stored is None:
        option = f" --{'run' if partition in work.runs else 'shard'} {partition}" if partition else ""
        again = f"dqe materialize {asset}{option}"
        raise StorageError(f"{work.asset} needs {where}, which is not there yet; run: {again}")
    if stored.stamp.failed_checks:
        raise StorageError(
            f"{work.asset} needs {where}, which failed {', '.join(stored.stamp.failed_checks)}: "
            "fix what the check names, then materialise it again"
        )
    return stored
