"""Uids as bytes: half the memory of their hexadecimal digits, and no object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BYTES = 16
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_HEX = np.full(256, 255, np.uint8)
_HEX[_DIGITS] = np.arange(16)
_STRINGS_AT_ONCE = 1 << 20


def packed_uids(uids: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Uids as NumPy bytes, which sort as the uids do.

    Args:
        uids: strings [n], none null.

    Returns:
        [n], of 16 bytes each if all uids are 32 hexadecimal digits, else of their UTF-8.
    """
    chunks = uids.chunks if isinstance(uids, pa.ChunkedArray) else [uids]
    packed = [_packed(chunk) for chunk in chunks if len(chunk)]
    known = [part for part in packed if part is not None]
    if len(known) == len(packed):
        return np.concatenate([np.empty(0, f"S{_BYTES}"), *known])
    texts = [uid.encode() for uid in uids.to_pylist()]
    # Wider than 16 bytes, so that ``unpacked_uids`` can tell.
    return np.array(texts, f"S{max(_BYTES + 1, *map(len, texts))}")


def packed_alike(*columns: pa.Array | pa.ChunkedArray) -> list[NDArray[np.bytes_]]:
    """As ``packed_uids``, of several columns in one form, so that uids of one can be looked for in another."""
    chunks = [column.chunks if isinstance(column, pa.ChunkedArray) else [column] for column in columns]
    packed = packed_uids(pa.chunked_array([chunk for some in chunks for chunk in some], pa.string()))
    return np.split(packed, np.cumsum([len(column) for column in columns[:-1]]))


def order_of_uids(packed: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """The stable order in which packed uids are sorted: int64 [n]."""
    if packed.dtype.itemsize != _BYTES:
        return np.argsort(packed, kind="stable")
    return order_of_halves(*_halves(packed))


def places_of_uids(in_order: NDArray[np.bytes_], packed: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Where each uid first stands among sorted ones that are packed alike, -1 if it does not: int64 [n]."""
    if packed.dtype.itemsize == _BYTES:
        return places_of_halves(*_halves(in_order), *_halves(packed))
    places = np.searchsorted(in_order, packed)
    found = places < len(in_order)
    found[found] = in_order[places[found]] == packed[found]
    return np.where(found, places, -1)


def rows_of_uids(there: NDArray[np.bytes_], asked: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Where each of some uids [n] stands among many that are packed alike, in any order: int64 [n], -1 if nowhere.

    Each is there once at most.
    """
    order = order_of_uids(asked)
    places = places_of_uids(asked[order], there)
    rows = np.flatnonzero(places >= 0)
    found = np.full(len(asked), -1, np.int64)
    found[order[places[rows]]] = rows
    return found


def order_of_halves(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The stable order of numbers of 128 bits that are much like random ones, by their halves [n]: int64 [n]."""
    # They hardly ever share their first half: only those that do need a second look.
    order = np.argsort(high)
    shared = high[order[1:]] == high[order[:-1]]
    runs = np.flatnonzero(np.append(shared, False) | np.append(False, shared))
    among = order[runs]
    order[runs] = among[np.lexsort((among, low[among], high[among]))]
    return order


def places_of_halves(
    sorted_high: NDArray[np.uint64],
    sorted_low: NDArray[np.uint64],
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Where each of some numbers of 128 bits [n] first stands among sorted ones, -1 if it does not: int64 [n]."""
    if not len(sorted_high):
        return np.full(len(high), -1, np.int64)
    # Halves compare many times as fast as pairs of them, and in order they are found sooner.
    order = np.argsort(high)
    places = np.empty(len(high), np.int64)
    places[order] = np.searchsorted(sorted_high, high[order])
    nearest = np.minimum(places, len(sorted_high) - 1)
    shares = sorted_high[nearest] == high
    found = shares & (sorted_low[nearest] == low)
    for row in np.flatnonzero(shares & ~found).tolist():
        last = int(np.searchsorted(sorted_high, high[row], side="right"))
        places[row] += np.searchsorted(sorted_low[places[row] : last], low[row])
        found[row] = places[row] < last and sorted_low[places[row]] == low[row]
    return np.where(found, places, -1)


def uid_halves(uids: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the last 64 bits of uids of 32 hexadecimal digits, uint64 [n] each."""
    return _halves(packed_uids(uids))


def unpacked_uids(packed: NDArray[np.bytes_]) -> pa.ChunkedArray:
    """The reverse of ``packed_uids``: strings [n], in chunks, as a single one cannot hold more than 2 GiB."""
    parts = range(0, len(packed), _STRINGS_AT_ONCE)
    return pa.chunked_array([_strings(packed[start : start + _STRINGS_AT_ONCE]) for start in parts], pa.string())


def _halves(packed: NDArray[np.bytes_]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    halves = np.ascontiguousarray(packed).view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def _packed(uids: pa.StringArray) -> NDArray[np.bytes_] | None:
    """None if not all are of 32 hexadecimal digits."""
    offsets = np.frombuffer(uids.buffers()[1], np.int32)[uids.offset : uids.offset + len(uids) + 1]
    if (np.diff(offsets) != 2 * _BYTES).any():
        return None
    digits = _HEX[np.frombuffer(uids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, _BYTES, 2)]
    if digits.max() > 15:
        return None
    return (digits[..., 0] << 4 | digits[..., 1]).view(f"S{_BYTES}")[:, 0]


def _strings(packed: NDArray[np.bytes_]) -> pa.StringArray:
    if packed.dtype.itemsize != _BYTES:
        return pa.array([uid.decode() for uid in packed.tolist()], pa.string())
    values = np.ascontiguousarray(packed).view(np.uint8).reshape(-1, _BYTES)
    digits = _DIGITS[np.stack([values >> 4, values & 15], axis=2)]
    offsets = np.arange(0, digits.size + 1, 2 * _BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(len(packed), pa.py_buffer(offsets), pa.py_buffer(digits))
