"""What the users' tables of signals add to the warehouse and the report."""

from __future__ import annotations

from dqe_assets.core.relations import Read, Relations, ReportSection, Table, columns
from dqe_assets.signals.tables import SIGNAL_KEYS

_NAMES = "table file key rows keys unknown unknown_examples samples samples_found"

RELATIONS = Relations(
    reads=(Read("signal_keys", SIGNAL_KEYS, _NAMES),),
    tables=(
        Table(
            "signal_tables",
            "The users' tables of signals: how their keys and the samples fit",
            columns(
                SIGNAL_KEYS,
                table="VARCHAR",
                file="VARCHAR",
                key="VARCHAR",
                rows="BIGINT",
                keys="BIGINT",
                unknown="BIGINT",
                unknown_examples="VARCHAR[]",
                samples="BIGINT",
                samples_found="BIGINT",
            ),
            'SELECT * FROM stored_signal_keys ORDER BY "table"',
        ),
    ),
    report_sections=(
        ReportSection(
            "Tables of signals",
            "The tables that data/dqe.yaml names under signals. Column unknown: keys that no sample has.",
            'SELECT "table", key, "rows", keys, unknown, samples, samples_found AS found FROM signal_tables',
            order=93,
            only_with="signal_tables",
        ),
    ),
)
