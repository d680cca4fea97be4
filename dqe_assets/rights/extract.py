"""The rights of rows, from what their source says and from their image files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.ingest.fetch.reasons import TAKEN_DOWN
from dqe_assets.rights.tables import RIGHTS, SAID_IN_FILE
from dqe_resources import images

if TYPE_CHECKING:
    from dqe_resources.sources.protocol import Source

COLUMNS = ["uid", "reason", "source_metadata", "image"]
"""What is read of ``raw_samples``."""


def rights(samples: pa.Table, source: Source) -> pa.Table:
    """One row of ``RIGHTS`` for each row of ``raw_samples``, in order; nothing is said of what is taken down.

    Args:
        samples: ``COLUMNS`` of ``raw_samples``.
        source: where they come from.
    """
    return pa.Table.from_pylist([_of_row(row, source) for row in samples.to_pylist()], RIGHTS)


def _of_row(row: dict[str, Any], source: Source) -> dict[str, Any]:
    if row["reason"] == TAKEN_DOWN:
        return {"uid": row["uid"]}
    said = json.loads(row["source_metadata"]) if row["source_metadata"] else {}
    of_source = {
        "uid": row["uid"],
        "license": _text(said, source.license_column) or source.license,
        "attribution": _text(said, source.attribution_column),
    }
    if row["image"] is None:
        return of_source
    data = row["image"]["bytes"]
    found = images.rights_of(data)
    return of_source | {name: getattr(found, name) for name in SAID_IN_FILE} | {"c2pa": images.has_c2pa(data)}


def _text(said: dict[str, Any], name: str | None) -> str | None:
    """A value of ``source_metadata`` as text; None if it is empty or not there."""
    value = said.get(name) if name else None
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip() or None
