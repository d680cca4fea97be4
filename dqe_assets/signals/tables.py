"""The tables of signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema

if TYPE_CHECKING:
    from dqe_assets.signals.settings import SignalTable


def signals_schema(table: SignalTable) -> pa.Schema:
    """The schema of ``signals/<name>``: a row for each row of ``raw_samples``, in their order."""
    return table_schema(
        [
            UID,
            Column("table_row", pa.int64(), "row of the user's table that it is from, from 1; null if there is none"),
            *(
                Column(name, kind, f"column {column} of {table.path.name}")
                for name, (column, kind) in table.signals.items()
            ),
        ]
    )


SIGNAL_KEYS = table_schema(
    [
        Column("table", pa.string(), "name of the table in data/dqe.yaml", nullable=False),
        Column("file", pa.string(), "the file", nullable=False),
        Column("key", pa.string(), "column of raw_samples that it is joined by", nullable=False),
        Column("rows", pa.int64(), "rows of the file", nullable=False),
        Column("keys", pa.int64(), "different keys in it", nullable=False),
        Column("unknown", pa.int64(), "keys that no sample has", nullable=False),
        Column("unknown_examples", pa.list_(pa.string()), "the first of them", nullable=False),
        Column("samples", pa.int64(), "samples, failed ones too", nullable=False),
        Column("samples_found", pa.int64(), "samples that have a row in the table", nullable=False),
    ]
)
"""Schema of ``signal_keys``: how the keys of each table and the samples fit."""
