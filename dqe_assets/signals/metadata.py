"""The metadata of signals in the UI: how many samples have a value, how the values are spread, and which keys fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.figures import histograms
from dqe_assets.core.metadata import Metadata, markdown_table, picture, preview, ranking
from dqe_assets.core.work import facts_of
from dqe_assets.signals.settings import TABLE_ROW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dqe_assets.core.work import Work


def signals(_: Work, table: pa.Table) -> Metadata:
    """How many samples have a row and how many values each signal has, with a plot of the numbers."""
    facts = facts_of(table)
    return {
        **{name: value for name, value in facts.items() if name != "columns_left_out"},
        **_values(table.filter(table[TABLE_ROW].is_valid()).drop_columns([TABLE_ROW])),
        **_left_out(facts["columns_left_out"]),
    }


def source_metadata(_: Work, table: pa.Table) -> Metadata:
    """How many values each column has, how many were of another type, and a plot of the numbers."""
    facts = facts_of(table)
    wrong = [[name, count, facts["first"][name]] for name, count in facts["wrong"].items()]
    return {
        **_values(table),
        **({"of_another_type": markdown_table(["column", "values", "first"], wrong)} if wrong else {}),
        **_left_out(facts["columns_left_out"]),
    }


def _values(table: pa.Table) -> Metadata:
    """The values of signals: how many, how they are spread, and the first rows."""
    names = [name for name in table.column_names if name != "uid"]
    numbers = {
        name: table[name].drop_null().to_numpy()
        for name in names
        if pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type)
    }
    return {
        "values": markdown_table(
            ["signal", "type", "samples with a value"],
            [[name, str(table[name].type), len(table) - table[name].null_count] for name in names],
        ),
        **({"spread": picture(histograms(numbers), "how the signals are spread")} if numbers else {}),
        **{name: ranking(table[name], name) for name in names if name not in numbers},
        "preview": preview(table, ["uid", *names]),
    }


def _left_out(columns: Mapping[str, str]) -> Metadata:
    """Columns that are no signals, and why."""
    rows = [list(one) for one in columns.items()]
    return {"columns_left_out": markdown_table(["column", "why"], rows)} if rows else {}


def signal_keys(_: Work, table: pa.Table) -> Metadata:
    """A row for each table: keys that no sample has, and samples that have a row."""
    return {
        "tables": markdown_table(
            ["table", "key", "rows", "keys", "keys of no sample", "such as", "samples", "samples with a row"],
            [
                [
                    row["table"],
                    row["key"],
                    row["rows"],
                    row["keys"],
                    row["unknown"],
                    row["unknown_examples"],
                    row["samples"],
                    row["samples_found"],
                ]
                for row in table.to_pylist()
            ],
        )
    }
