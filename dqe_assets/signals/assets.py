"""Signals: values of samples that users bring, as an asset for each of their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import complete, unique
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Work, facts_of, with_facts
from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.signals import metadata
from dqe_assets.signals.sorted_table import key_digests, keys_at, sorted_table
from dqe_assets.signals.source_metadata import SOURCE_METADATA, source_metadata_schema, typed_metadata
from dqe_assets.signals.tables import SIGNAL_KEYS, signals_schema
from dqe_assets.signals.views import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.signals.settings import SignalTable
    from dqe_assets.signals.source_metadata import MetadataSignals

PREFIX = "signals/"
_EXAMPLES = 5


def signals_of_table(table: SignalTable) -> Stage:
    """The asset ``signals/<name>`` of a table of the user."""
    schema = signals_schema(table)

    @stage(
        name=f"{PREFIX}{table.name}",
        kinds={"parquet", table.path.suffix.lower().removeprefix(".")},
        code_version="1",
        schema=schema,
        inputs=["raw_samples"],
        checks=[unique("uid"), complete()],
        metadata=metadata.signals,
        signature=lambda _: table.signature(),
        signals={name: name for name in table.signals},
    )
    def signals(work: Work) -> pa.Table:
        """Values of samples from a table of the user: expressions, the warehouse and the gallery know them by name.

        The table is read and sorted once, for all shards. A sample that has no row in it has no value.
        """
        samples = work.read("raw_samples", list(dict.fromkeys(["uid", table.key, "reason"])))
        sorted_rows = sorted_table(table)
        digests, has_key = key_digests(samples[table.key], table.key)
        # Nothing is kept of what is taken down, whoever says it.
        has_key &= np.asarray(pc.not_equal(samples["reason"], TAKEN_DOWN))
        places = np.where(has_key, sorted_rows.find(digests), -1)
        is_found = places >= 0
        found = sorted_rows.table.take(pa.array(places, pa.int64(), mask=~is_found)).drop_columns(["digest"])
        made = found.add_column(0, "uid", samples["uid"]).select(schema.names).cast(schema)
        facts = {
            "file": str(table.path),
            "key": table.key,
            "table_rows": sorted_rows.rows,
            "samples_without_key": int((~has_key).sum()),
            "samples_found": int(is_found.sum()),
            "columns_left_out": table.left_out,
        }
        return with_facts(made, facts)

    return signals


def source_metadata_of(signals: MetadataSignals) -> Stage:
    """The asset ``signals/source_metadata``."""

    @stage(
        name=SOURCE_METADATA,
        kinds={"parquet"},
        code_version="1",
        schema=source_metadata_schema(signals.types),
        inputs=["raw_samples"],
        checks=[
            unique("uid"),
            complete(),
            Check("values_typed", "Every value is of its column's type.", _values_typed, blocking=False),
        ],
        metadata=metadata.source_metadata,
        signals={name: name for name in signals.types},
    )
    def source_metadata(work: Work) -> pa.Table:
        """What the sources say of their rows, in columns: those that metadata_columns and metadata_types name.

        A value that is not of its column's type is null here, and counted.
        """
        return typed_metadata(work.read("raw_samples", ["uid", "source_metadata"]), signals)

    return source_metadata


def _values_typed(_: Work, table: pa.Table) -> CheckResult:
    facts = facts_of(table)
    said = [
        f"{name}: {count:,} values are no {facts['types'][name]}, first {facts['first'][name]}"
        for name, count in facts["wrong"].items()
    ]
    return CheckResult(not said, "; ".join(said) or "every value is of its column's type", facts["wrong"])


def signal_keys_of(tables: Sequence[SignalTable]) -> Stage:
    """The asset ``signal_keys``, over all tables of signals."""

    @stage(
        kinds={"parquet"},
        code_version="1",
        schema=SIGNAL_KEYS,
        inputs=[f"{PREFIX}{table.name}" for table in tables],
        partitioned=False,
        checks=[
            Check("keys_known", "Every key of every table is a sample's.", _keys_known, blocking=False),
            Check("samples_found", "Every table has a row for some sample.", _samples_found, blocking=False),
        ],
        metadata=metadata.signal_keys,
        relations=RELATIONS,
    )
    def signal_keys(work: Work) -> pa.Table:
        """How the users' tables of signals and the samples fit: keys that no sample has, and samples without a row."""
        return pa.Table.from_pylist([_fit(work, table) for table in tables], SIGNAL_KEYS)

    return signal_keys


def _fit(work: Work, table: SignalTable) -> dict[str, object]:
    sorted_rows = sorted_table(table)
    is_known = np.zeros(sorted_rows.rows + 1, bool)
    samples = found = 0
    for shard in work.track(work.scan(f"{PREFIX}{table.name}", ["table_row"]), len(work.shards)):
        rows = shard["table_row"].drop_null().to_numpy()
        is_known[rows] = True
        samples += shard.num_rows
        found += len(rows)
    rows = np.sort(sorted_rows.table["table_row"].to_numpy())
    unknown = rows[~is_known[rows]]
    return {
        "table": table.name,
        "file": str(table.path),
        "key": table.key,
        "rows": sorted_rows.rows,
        "keys": sorted_rows.keys,
        "unknown": len(unknown),
        "unknown_examples": keys_at(table, unknown[:_EXAMPLES].tolist()),
        "samples": samples,
        "samples_found": found,
    }


def _keys_known(_: Work, table: pa.Table) -> CheckResult:
    said = [
        f"{row['table']}: {row['unknown']:,} of {row['keys']:,} keys are no sample's {row['key']}"
        + (f", such as {row['unknown_examples'][0]:.200}" if row["unknown"] else "")
        for row in table.to_pylist()
    ]
    return CheckResult(
        not pc.any(pc.greater(table["unknown"], 0)).as_py(),
        "; ".join(said) or "no tables",
        {row["table"]: row["unknown"] for row in table.to_pylist()},
    )


def _samples_found(_: Work, table: pa.Table) -> CheckResult:
    said = [
        f"{row['table']}: {row['samples_found']:,} of {row['samples']:,} samples have a row"
        + ("" if row["samples_found"] else f"; is {row['key']} the right key?")
        for row in table.to_pylist()
    ]
    is_empty = pc.and_(pc.equal(table["samples_found"], 0), pc.greater(table["samples"], 0))
    return CheckResult(
        not pc.any(is_empty).as_py(),
        "; ".join(said) or "no tables",
        {row["table"]: row["samples_found"] for row in table.to_pylist()},
    )
