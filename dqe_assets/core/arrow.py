"""Arrow columns to NumPy arrays and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence


def to_matrix(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists of one length as a matrix.

    Returns:
        The positions of the rows that are not null, int64 [m], and their values, float32 [m, d].

    Raises:
        ValueError: the lists differ in length.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return rows, np.empty((0, 0), np.float32)
    values = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if len(values) % len(rows) or len(set(array.value_lengths().drop_null().to_numpy().tolist())) != 1:
        msg = "the lists of an embedding column differ in length"
        raise ValueError(msg)
    return rows, values.reshape(len(rows), -1)


def from_matrix(matrix: np.ndarray, rows: np.ndarray, total: int, value_type: pa.DataType) -> pa.ListArray:
    """The reverse of ``to_matrix``: a column of ``total`` lists, null except at ``rows``.

    Args:
        matrix: [m, d].
        rows: int64 [m], ascending.
        total: length of the column.
        value_type: Arrow type of the values.
    """
    lengths = np.zeros(total + 1, np.int32)
    lengths[np.asarray(rows) + 1] = matrix.shape[1] if matrix.size else 0
    offsets = np.cumsum(lengths, dtype=np.int32)
    valid = np.zeros(total, bool)
    valid[rows] = True
    values = pa.array(matrix.astype(value_type.to_pandas_dtype(), copy=False).ravel(), value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~valid))


def take_strings(column: pa.ChunkedArray, rows: np.ndarray) -> list[str]:
    """The strings at some rows."""
    return column.take(pa.array(rows)).to_pylist()


def scatter(values: Sequence[Any] | np.ndarray, rows: np.ndarray, total: int, value_type: pa.DataType) -> pa.Array:
    """A column of ``total`` values, null except at ``rows``."""
    indices = np.full(total, -1, np.int64)
    indices[rows] = np.arange(len(rows))
    return pa.array(values, value_type).take(pa.array(indices, mask=indices < 0))
