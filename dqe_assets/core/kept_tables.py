"""Tables that are kept beside the store to save work, in files that can be mapped and that tell if they were damaged.

A file is written whole or not at all. What is read of it is what was written, or nothing: then it is made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_CHECKSUM_BYTES = 8


def keep_table(path: Path, table: pa.Table) -> None:
    """Write a table, with the metadata of its schema, in the place of what was there.

    Raises:
        StorageError: it cannot be written.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue()

    def write(target: BinaryIO) -> None:
        target.write(body)
        target.write(_checksum(body))

    replace_file(path, write)


def kept_table(path: Path, schema: pa.Schema | None = None) -> pa.Table | None:
    """The table of a file, mapped; None if the file is not there, is not as it was written, or has another schema."""
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        body = whole.slice(0, max(0, whole.size - _CHECKSUM_BYTES))
        if whole.slice(body.size).to_pybytes() != _checksum(body):
            return None
        table = pa.ipc.open_file(pa.BufferReader(body)).read_all()
    except (OSError, ValueError):
        return None
    return table if schema is None or table.schema.equals(schema) else None


def _checksum(body: pa.Buffer) -> bytes:
    """The sum of its numbers: what takes no longer than to look at it."""
    return np.frombuffer(body, np.uint64, body.size // 8).sum(dtype=np.uint64).tobytes()
