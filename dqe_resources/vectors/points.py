"""Arrow tables as points: identity, named vectors and payload, checked before any of them reaches a collection."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_UID = re.compile(r"[0-9a-f]{32}")
_NORM_EPSILON = 1e-6
_SHORT_FLOATS = (pa.float16(), pa.float32())


@dataclass(frozen=True, slots=True)
class Point:
    """A sample in a collection.

    It has those of the collection's named vectors that it could have: float32 [d], of unit length to within 1e-4, each
    number one that float16 has, so that every kind of collection keeps the same.
    """

    uid: str
    payload: dict[str, Any]
    vectors: dict[str, np.ndarray]


def uid_of(identifier: object) -> str:
    """The uid that an engine's point id, a UUID in some form, stands for."""
    return uuid.UUID(str(identifier)).hex


def stored_point(record: Any) -> Point:
    """A point as an engine gives it back, a record with ``id``, ``payload`` and named vectors."""
    vectors = {name: np.asarray(vector, np.float32) for name, vector in (record.vector or {}).items()}
    return Point(uid_of(record.id), record.payload or {}, vectors)


def points_of(batch: pa.RecordBatch, shard: str, vectors: Mapping[str, int]) -> Iterator[Point]:
    """The rows of a batch as points of a shard.

    Args:
        batch: column ``uid`` (32 hex digits), one column for each named vector (list of floats, null if the sample
            has none; a column may be absent), and the payload (text, numbers, truth values and lists of these).
        shard: the shard, also put into the payload.
        vectors: the collection's named vectors with their dimensions.

    Raises:
        ValueError: a column or a row that cannot be a point, named.
    """
    if "uid" not in batch.schema.names:
        raise ValueError("the points have no column 'uid'")
    uids = batch.column("uid").to_pylist()
    for uid in uids:
        if not isinstance(uid, str) or not _UID.fullmatch(uid):
            raise ValueError(f"uid {uid!r} is not 32 hex digits")
    payload = batch.select([name for name in batch.schema.names if name != "uid" and name not in vectors])
    for name, column in zip(payload.schema.names, payload.columns, strict=True):
        _check_payload(name, column, uids)
        if column.type in _SHORT_FLOATS:
            payload = payload.set_column(payload.schema.get_field_index(name), name, _shortest(column))
    if "shard" in payload.schema.names and set(payload.column("shard").to_pylist()) - {shard}:
        raise ValueError(f"the points of shard '{shard}' have another shard in their column 'shard'")
    columns = {
        name: _vectors(name, batch.column(name), size, uids)
        for name, size in vectors.items()
        if name in batch.schema.names
    }
    for row, (uid, fields) in enumerate(zip(uids, payload.to_pylist(), strict=True)):
        present = {name: column[row] for name, column in columns.items()}
        yield Point(
            uid,
            {name: value for name, value in fields.items() if value is not None} | {"shard": shard},
            {name: vector for name, vector in present.items() if vector is not None},
        )


def _shortest(column: pa.Array) -> pa.Array:
    """The fewest digits that stand for each number: 0.98, which every engine keeps exactly, not 0.9800000190734863."""
    return column.cast(pa.string()).cast(pa.float64())


def _check_payload(name: str, column: pa.Array, uids: list[str]) -> None:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if pa.types.is_floating(kind.value_type):
            raise ValueError(f"column '{name}' holds vectors, but the collection has no vector of that name")
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_floating(kind):
        finite = pc.fill_null(pc.is_finite(column), True).to_numpy(zero_copy_only=False)
        if not finite.all():
            raise ValueError(f"column '{name}' of {uids[int(np.argmin(finite))]} is not a finite number")
        return
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    ):
        raise ValueError(f"column '{name}' of type {column.type} cannot be payload: text, numbers, truth values, lists")


def _vectors(name: str, column: pa.Array, size: int, uids: list[str]) -> list[np.ndarray | None]:
    kind = column.type
    if pa.types.is_null(kind):
        return [None] * len(column)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"column '{name}' is a named vector, but of type {kind} instead of a list of floats")
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    present = column.drop_null()
    lengths = pc.list_value_length(present).to_numpy(zero_copy_only=False)
    if (lengths != size).any():
        row = int(np.argmax(lengths != size))
        raise ValueError(f"vector '{name}' of {uids[rows[row]]} has {lengths[row]} dimensions instead of {size}")
    matrix = present.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, size)
    norms = np.linalg.norm(matrix, axis=1)
    usable = np.isfinite(norms) & (norms > _NORM_EPSILON)
    if not usable.all():
        row = int(np.argmin(usable))
        raise ValueError(f"vector '{name}' of {uids[rows[row]]} has no direction: its length is {norms[row]}")
    matrix = (matrix / norms[:, None]).astype(np.float16).astype(np.float32)
    vectors: list[np.ndarray | None] = [None] * len(column)
    for position, vector in zip(rows.tolist(), matrix, strict=True):
        vectors[position] = vector
    return vectors
