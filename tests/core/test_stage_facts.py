"""What a stage says of its table is there for its checks and metadata, also where the table is current."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.schema import Column, table_schema
from dqe_assets.core.stage import stage
from dqe_assets.core.work import Check, CheckResult, Work, facts_of, with_facts
from dqe_resources.store import Store

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = table_schema([Column("number", pa.int64(), "a number", nullable=False)])


def _counted(_: Work, table: pa.Table) -> CheckResult:
    return CheckResult(facts_of(table)["numbers"] == table.num_rows, "as many as were counted")


@stage(
    kinds={"parquet"},
    code_version="1",
    schema=NUMBERS,
    partitioned=False,
    checks=[Check("counted", "There are as many numbers as were counted.", _counted)],
    metadata=lambda _, table: {"numbers": facts_of(table)["numbers"]},
)
def numbers(_: Work) -> pa.Table:
    """Three numbers."""
    return with_facts(pa.table({"number": [1, 2, 3]}, schema=NUMBERS), {"numbers": 3})


def test_facts_of_a_table_that_is_current_reach_checks_and_metadata(tmp_path: Path) -> None:
    made = replace(numbers, tables={"numbers": NUMBERS})
    work = made.work(Store(str(tmp_path)), None, ())
    for reused in (False, True):
        _, metadata, results = made.make(work, {})
        assert (metadata["reused"], metadata["numbers"], results["counted"].passed) == (reused, 3, True)
