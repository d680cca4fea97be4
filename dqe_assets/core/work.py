"""What a stage is given and gives back: its work, its checks and their results."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.orchestration.settings import Settings
from dqe_assets.orchestration.tables import schema_of
from dqe_resources import progress
from dqe_resources.store import UNPARTITIONED, Checkpoint, StorageError, Store

_FACTS = b"facts"


@dataclass(frozen=True)
class Work:
    """What a stage's function is given: the partition to make, and the inputs to make it from.

    Attributes:
        asset: name of the asset.
        partition: the shard; None for an asset over all shards.
        shards: that shard, or all shards whose inputs are there and passed their checks.
        settings: the settings.
        left_out: shards whose inputs are not there, or failed a check.
        version: fingerprint of everything that goes into the partition.
        force: whether it is made again though it may be current: from the beginning, without what was made before.
        log: writes a line to the run's log.
    """

    asset: str
    partition: str | None
    shards: tuple[str, ...]
    settings: Settings
    left_out: tuple[str, ...] = ()
    version: str = ""
    force: bool = False
    log: Callable[[str], None] = field(default=lambda _: None)

    @property
    def store(self) -> Store:
        """The store."""
        return self.settings.opened_store

    def of_shard(self, shard: str) -> "Work":
        """The same work, reading from one shard: for an asset over all of them."""
        return replace(self, partition=shard)

    def read(self, asset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """This shard's table of an input."""
        return self.store.read(asset, self.partition, schema_of(asset), columns)

    def version_of(self, asset: str) -> str:
        """Fingerprint of this shard's table of an input: another table has another one."""
        return input_fingerprint(self, asset, self.partition)

    def captions(self) -> dict[str, pa.Array]:
        """This shard's captions by caption source, in the order of the samples: what is embedded and searched."""
        original = self.read("raw_samples", ["caption"])["caption"].combine_chunks()
        synthetic = {
            name: self.read(SYNTHETIC_CAPTIONS_PREFIX + name, ["caption"])["caption"].combine_chunks()
            for name in self.settings.captioner_names
        }
        return {ORIGINAL: normalise_captions(original), **synthetic}

    def scan(self, asset: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The tables of an input, one shard at a time."""
        for shard in self.shards:
            yield self.store.read(asset, shard, schema_of(asset), columns)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where rows of this partition are kept while others are still being made; cleared once it is stored."""
        return Checkpoint(self.store, self.asset, self.partition or UNPARTITIONED, self.version)

    def meter(self, total: int) -> progress.Meter:
        """What tells how far this partition is, of so many samples."""
        return progress.Meter(self.asset, self.partition, total, self.log)

    def track(self, items: Iterable[Any], total: int) -> Iterator[Any]:
        """Yield the items and report progress."""
        return progress.track(items, self.meter(total))


Batches = Generator[pa.RecordBatch, None, None]
"""A large table in parts. Closed before its end, it stops whatever it has set going."""


class StartOverError(Exception):
    """Raised among batches: those before it do not hold. The function is called again, and knows better then."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: whether it holds, in words, with the values that say so."""

    passed: bool
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold for a partition: ``run(work, output)`` gives the verdict.

    ``output`` is the table without images (or the facts of a manifest). A blocking check that fails stops what is
    downstream.
    """

    name: str
    description: str
    run: Callable[[Work, Any], Verdict]
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """The output of a stage that is not a table: what was made, and how many of it."""

    rows: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def with_facts(table: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    """The output of a stage that is a table, with JSON-like facts that are to be in its stamp."""
    return table.replace_schema_metadata({_FACTS: json.dumps(facts)})


def facts_of(table: pa.Table) -> Mapping[str, Any]:
    """The facts that ``with_facts`` has put beside a table."""
    return json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))


def input_fingerprint(work: Work, asset: str, partition: str | None) -> str:
    """Fingerprint of a partition that is read.

    Raises:
        StorageError: it is not there, or failed a check.
    """
    stored = work.store.get(asset, partition)
    where = f"{asset}, shard {partition}" if partition else asset
    if stored is None:
        again = f"dqe materialize {asset}" + (f" --shard {partition}" if partition else "")
        raise StorageError(f"{work.asset} needs {where}, which is not there; run: {again}")
    if stored.stamp.failed_checks:
        raise StorageError(
            f"{work.asset} needs {where}, which failed {', '.join(stored.stamp.failed_checks)}: "
            "mend what the check names and materialise it again"
        )
    return stored.stamp.identity
