"""The metadata of signals in the UI: how many samples have a value, how the values are spread, and which keys fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.figures import histograms
from dqe_assets.core.metadata import Metadata, markdown_table, picture, preview, ranking
from dqe_assets.core.work import facts_of
from dqe_assets.signals.settings import TABLE_ROW

if TYPE_CHECKING:
    from dqe_assets.core.work import Work


def signals(_: Work, table: pa.Table) -> Metadata:
    """How many samples have a row and how many values each signal has, with a plot of the numbers."""
    facts = facts_of(table)
    names = [name for name in table.column_names if name not in {"uid", TABLE_ROW}]
    found = table.filter(table["table_row"].is_valid())
    numbers = {
        name: found[name].drop_null().to_numpy()
        for name in names
        if pa.types.is_floating(found[name].type) or pa.types.is_integer(found[name].type)
    }
    return {
        **{name: value for name, value in facts.items() if name != "columns_left_out"},
        "values": markdown_table(
            ["signal", "type", "samples with a value"],
            [[name, str(table[name].type), len(table) - table[name].null_count] for name in names],
        ),
        **({"spread": picture(histograms(numbers), "how the signals are spread")} if numbers else {}),
        **{name: ranking(found[name], name) for name in names if name not in numbers},
        **(
            {
                "columns_left_out": markdown_table(
                    ["column", "why"], [list(one) for one in facts["columns_left_out"].items()]
                )
            }
            if facts["columns_left_out"]
            else {}
        ),
        "preview": preview(found, ["uid", *names]),
    }


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
