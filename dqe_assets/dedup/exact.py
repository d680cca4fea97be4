"""Duplicates whose digests are equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.hashing import mixed
from dqe_assets.core.uids import order_of_halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = 8

Measure = TypeVar("Measure", bound=np.generic)


class Pairs(NamedTuple, Generic[Measure]):
    """Rows that are duplicates in one way.

    Equal rows count as one: each is linked to the first of its value, and near pairs are between such firsts only. The
    connected components are those of all pairs, and k equal rows give k - 1 links.

    Attributes:
        equal: row numbers, int64 [m, 2]: the first row of a value, and a later one.
        near: row numbers, int64 [k, 2], the smaller first: first rows of values that differ.
        measure: how far apart or how alike those are [k].
    """

    equal: NDArray[np.int64]
    near: NDArray[np.int64]
    measure: NDArray[Measure]

    @property
    def all(self) -> NDArray[np.int64]:
        """Equal and near ones, int64 [m + k, 2]."""
        return np.concatenate([self.equal, self.near])


def grouped(digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by their digest.

    Args:
        digests: uint64 [n, 2].

    Returns:
        Which of the distinct digests each row has, counted in their order, int64 [n]; and the first row of each of
        them, int64 [k].
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    in_order = digests[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (in_order[1:] != in_order[:-1]).any(axis=1)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(begins) - 1
    return group, order[begins]


def exact_pairs(digests: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Links between rows of equal digest.

    Args:
        digests: any hashable Arrow type [n], such as the sha256 of files or of pixels; null takes no part.

    Returns:
        Row numbers, int64 [m, 2]: each row that has a digest seen before, after the first row of that digest. So a
        digest of k rows gives k - 1 links and not k * (k - 1) / 2 pairs, and each pair is connected.
    """
    column = digests.combine_chunks() if isinstance(digests, pa.ChunkedArray) else digests
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    valid = column.drop_null()
    # Most digests are those of one row alone, which a number tells sooner than their texts do.
    shared = _share_a_number(valid)
    codes = pc.dictionary_encode(valid.take(pa.array(shared))).indices.to_numpy()
    return rows[shared[links_to_first(codes)]]


def _share_a_number(digests: pa.Array) -> NDArray[np.int64]:
    """Row numbers, ascending: all rows whose digest another row has, and few others where all have one length."""
    if not pa.types.is_string(digests.type) or not len(digests):
        return np.arange(len(digests))
    offsets = np.frombuffer(digests.buffers()[1], np.int32)[digests.offset : digests.offset + len(digests) + 1]
    length = int(offsets[1] - offsets[0])
    if not length or length % _WORD or (np.diff(offsets) != length).any():
        return np.arange(len(digests))
    data = np.frombuffer(digests.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    words = data.view(np.uint64).reshape(len(digests), -1)
    numbers = words[:, 0].copy()
    for word in words.T[1:]:
        numbers = mixed(numbers) ^ word
    order = np.argsort(numbers)
    in_order = numbers[order]
    same = np.append(in_order[1:] == in_order[:-1], False)
    same[1:] |= same[:-1]
    return np.sort(order[same])


def links_to_first(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Links of every row to the first row of the same code.

    Args:
        codes: [n], of a type that can be sorted.

    Returns:
        Row numbers, int64 [m, 2], each the first of its code and a later one, in order of the later one.
    """
    return distinct_values(codes)[0]


def distinct_values(
    values: NDArray[Any], known: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Each value once, those without a known row before the others.

    Args:
        values: [n], of a type that can be sorted; or digests, uint64 [n, 2].
        known: bool [n]; None if no row is.

    Returns:
        Links of every row to the first of its value, int64 [m, 2]; the first row of each value, int64 [k], in the
        order of the values; and how many of them, at the beginning, have no known row.
    """
    order = order_of_halves(*values.T) if values.ndim == 2 else np.argsort(values, kind="stable")
    in_order = values[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = in_order[1:] != in_order[:-1] if values.ndim == 1 else _differ(in_order)
    first, later = order[begins], np.flatnonzero(~begins)
    equal = np.stack([first[np.cumsum(begins)[later] - 1], order[later]], axis=1).astype(np.int64)
    is_known = np.zeros(len(first), np.bool_)
    if known is not None and len(first):
        is_known = np.logical_or.reduceat(known[order], np.flatnonzero(begins))
    distinct = first[np.argsort(is_known, kind="stable")].astype(np.int64)
    return equal[np.argsort(equal[:, 1])], distinct, int((~is_known).sum())


def _differ(digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which digests, uint64 [n, 2], differ from the one before, bool [n - 1]."""
    high, low = digests.T
    return (high[1:] != high[:-1]) | (low[1:] != low[:-1])
