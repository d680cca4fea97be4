"""Tables as an assistant reads them: JSON of bounded size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_TEXT = 2_000
"""Characters of a text; of a longer one only the beginning is given."""

MOST_CHARACTERS = 200_000
"""Of all rows of a table; what is more is left out."""

_LONGEST_LIST = 100


def answer(table: pa.Table, most: int) -> dict[str, Any]:
    """A table as JSON: ``rows``, how many there are (``total``), and how many of them are ``left_out``.

    NaN and infinity are null, bytes base64, and a text too long ends with how much of it is left out.

    Args:
        table: the table.
        most: rows that are given.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    for batch in table.slice(0, most).to_batches(max_chunksize=100):
        for row in _plain(batch.to_pylist()):
            size += len(json.dumps(row))
            if size > MOST_CHARACTERS and rows:
                break
            rows.append(row)
        else:
            continue
        break
    return {"rows": rows, "total": table.num_rows, "left_out": table.num_rows - len(rows)}


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = to_json(rows, inf_nan_mode="null", bytes_mode="base64", timedelta_mode="float", fallback=str)
    return [{name: _shortened(value) for name, value in row.items()} for row in json.loads(text)]


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value) - LONGEST_TEXT:,} characters more)"
    if isinstance(value, list):
        more = [f"… ({len(value) - _LONGEST_LIST:,} more)"] if len(value) > _LONGEST_LIST else []
        return [*map(_shortened, value[:_LONGEST_LIST]), *more]
    if isinstance(value, dict):
        return {name: _shortened(one) for name, one in value.items()}
    return value
