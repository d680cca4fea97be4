"""What is remembered of rows that were taken down, in the store: uids and digests, and nothing else of them.

It cannot be made again: what it is made of is gone. So files are only ever added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import Stamp, StorageError, TornError

if TYPE_CHECKING:
    from dqe_resources.store import Store

MEMORY = "taken_down"
"""The folder of the store that holds it."""

REMEMBERED = table_schema(
    [
        UID,
        Column("entry", pa.string(), "kind and digest of the entry that the row was taken down by", nullable=False),
        Column("is_copy", pa.bool_(), "whether it was taken down as a copy of what that entry names", nullable=False),
        Column("marks", pa.list_(pa.string()), "digests of the URLs and hosts that it was known by"),
        Column("sha256", pa.string(), "of its image file, if its bytes were there"),
        Column("pixel_digest", pa.string(), "of its pixels, likewise"),
        Column("perceptual_hash", pa.uint64(), "64-bit pHash, likewise; null if the picture is too flat to tell"),
    ]
)

_VERSION = "1"


def remember(store: Store, rows: pa.Table) -> None:
    """Add rows of ``REMEMBERED``; the same rows again change nothing.

    Raises:
        StorageError: they cannot be written.
    """
    identity = fingerprint(rows.to_pylist())
    store.write_table(MEMORY, identity, rows, REMEMBERED, Stamp(identity, _VERSION, rows.num_rows))


def remembered(store: Store) -> pa.Table:
    """All that is remembered, a table of ``REMEMBERED``.

    Raises:
        StorageError: a file of it cannot be read.
    """
    try:
        return pa.concat_tables(
            [
                REMEMBERED.empty_table(),
                *(store.read(MEMORY, key, REMEMBERED) for key in sorted(store.partitions(MEMORY))),
            ]
        )
    except TornError as error:
        raise StorageError(
            f"{error.fault}: it holds hashes of images that were taken down. Put it back from a copy; without one, "
            "remove it: the lists of takedowns hold on, but copies of those images are known no more"
        ) from error
