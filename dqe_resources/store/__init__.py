"""The store: where the tables of all assets are kept, each partition with a stamp of what it was made from."""

from __future__ import annotations

from dqe_resources.store.atomic import (
    ReplacedError,
    StorageError,
    StoreAwayError,
    TornError,
    remove_abandoned,
    replace_file,
)
from dqe_resources.store.checkpoint import Checkpoint
from dqe_resources.store.parquet_tables import verified_dataset
from dqe_resources.store.remote import storage_errors
from dqe_resources.store.stamp import Stamp
from dqe_resources.store.storage import ROW_GROUP_BYTES, UNPARTITIONED, Store, StoredPartition
from dqe_resources.store.written import is_as_written, what_is_written

__all__ = [
    "ROW_GROUP_BYTES",
    "UNPARTITIONED",
    "Checkpoint",
    "ReplacedError",
    "Stamp",
    "StorageError",
    "Store",
    "StoreAwayError",
    "StoredPartition",
    "TornError",
    "is_as_written",
    "remove_abandoned",
    "replace_file",
    "storage_errors",
    "verified_dataset",
    "what_is_written",
]
