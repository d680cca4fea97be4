"""What is made of a partition while the rest of it is still being made, so that a kill loses little."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from dqe_resources.storage import rows_per_group, take_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_resources.storage import Store

_ROW_GROUP_BYTES = 4 << 20


@dataclass(frozen=True)
class Checkpoint:
    """Finished rows of a partition, in files beside the asset's tables, until the partition itself is written.

    Rows belong to one version, the fingerprint of what goes into the partition: those of another version are never
    mixed in. Several writers may append at once.

    Attributes:
        store: the store that the partition belongs to.
        asset: name of the asset.
        partition: the shard.
        version: fingerprint of everything that goes into the partition.
    """

    store: Store
    asset: str
    partition: str
    version: str

    def rows(self, schema: pa.Schema) -> pa.Table:
        """All rows that were appended, in no particular order; a file that cannot be read is left out."""
        tables = []
        for path in self.files():
            # A kill on a file system without atomic renames can leave a torn file; its rows are made again.
            with contextlib.suppress(pa.ArrowException, OSError):
                tables.append(self.read(path, schema))
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def files(self) -> list[str]:
        """The files that hold the rows, one for each time that some were appended."""
        self.store.filesystem.invalidate_cache()
        try:
            paths = self.store.filesystem.ls(f"{self._folder}/{self.version}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(path for path in paths if path.endswith(".parquet"))

    def read(self, path: str, schema: pa.Schema, rows: Sequence[int] | None = None) -> pa.Table:
        """The rows of one file: all, or those at some ascending positions; and of them the schema's columns.

        Raises:
            ArrowException, OSError: it is torn, or not there.
        """
        with self.store.filesystem.open(path, "rb") as handle, pq.ParquetFile(handle) as file:
            table = file.read(columns=schema.names) if rows is None else take_rows(file, rows, schema.names)
        return table.cast(schema)

    def append(self, rows: pa.Table) -> None:
        """Keep finished rows: once this returns, a kill does not lose them.

        Raises:
            StorageError: they cannot be written.
        """
        path = f"{self._folder}/{self.version}/{uuid4().hex}.parquet"
        # Written fast rather than small: it is soon read again and removed.
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        group = rows_per_group(rows, _ROW_GROUP_BYTES)
        self.store.write_file(path, lambda target: pq.write_table(rows, target, row_group_size=group, **options))

    def clear(self) -> None:
        """Remove the rows of every version."""
        with contextlib.suppress(FileNotFoundError):
            self.store.filesystem.rm(self._folder, recursive=True)

    @property
    def _folder(self) -> str:
        return self.store.path(self.asset, f".unfinished/{self.partition}", suffix="")
