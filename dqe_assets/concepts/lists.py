"""Columns of lists of numbers, as the flat arrays that NumPy computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

Lists: TypeAlias = pa.ListArray | pa.ChunkedArray


def flat(lists: Lists) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row and the value of each member of each list, in order: two int64 arrays. A null list has no members."""
    array = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = array.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    return np.repeat(np.arange(len(array)), lengths), values


def as_lists(rows: NDArray[np.int64], values: NDArray[np.generic], total: int) -> pa.ListArray:
    """The reverse of ``flat``: a list for each of ``total`` rows.

    Args:
        rows: int64 [m], ascending, each below ``total``.
        values: [m]; whole numbers become int32, others keep their type.
        total: number of lists.
    """
    offsets = np.zeros(total + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=total), out=offsets[1:])
    kept = values.astype(np.int32) if np.issubdtype(values.dtype, np.integer) else values
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(kept))


def gather(
    offsets: NDArray[np.int64], values: NDArray[np.int64], which: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The members of some of the lists, one list after another.

    Args:
        offsets: int64 [lists + 1], where each list begins in ``values``.
        values: members of all lists.
        which: int64 [m], the lists wanted, in any order and any number of times.

    Returns:
        For each member, which of ``which`` it came with, and the member.
    """
    lengths = np.diff(offsets)[which]
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[which] - ends + lengths, lengths)
    return np.repeat(np.arange(len(which)), lengths), values[places]
