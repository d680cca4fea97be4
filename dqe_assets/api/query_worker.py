"""A query that an assistant wrote, in a process of its own: what DuckDB cannot stop ends with that process.

Run as a program, it reads a request from the standard input and writes the answer to the standard output, both JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from dqe_assets.api.answers import answer
from dqe_resources.errors import DataQualityError
from dqe_resources.warehouse import QueryError, Warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 30.0
"""That a query may run; fewer where statement_timeout of the warehouse is less."""

_GRACE_SECONDS = 30.0


def queried(warehouse: Warehouse, sql: str, most: int) -> Any:
    """What one SELECT gives, as ``answer`` has it: confined as ``Warehouse.query`` does it, and for ``SECONDS``.

    Args:
        warehouse: the warehouse.
        sql: the query.
        most: rows that are given.

    Raises:
        QueryError: it was refused, failed, or went beyond a limit.
    """
    limited = warehouse.model_copy(update={"statement_timeout": min(SECONDS, warehouse.statement_timeout)})
    request = {"warehouse": limited.model_dump(mode="json"), "sql": sql, "most": most}
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and nothing of the request among the arguments
            [sys.executable, "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=limited.statement_timeout + _GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise QueryError(f"stopped after {error.timeout:g} s") from error
    if done.returncode:
        raise QueryError("the query ended its process, perhaps for lack of memory; ask for less at once")
    found = json.loads(done.stdout)
    if "error" in found:
        raise QueryError(found["error"])
    return found


def _main() -> None:
    request: Mapping[str, Any] = from_json(sys.stdin.buffer.read())
    try:
        table = Warehouse.model_validate(request["warehouse"]).query(request["sql"])
        found = answer(table, request["most"])
    except DataQualityError as error:
        found = {"error": str(error)}
    sys.stdout.buffer.write(json.dumps(found).encode())
    sys.stdout.flush()
    # A query that cannot be stopped would keep the process.
    os._exit(0)


if __name__ == "__main__":
    _main()
