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


def uid_halves(uids: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the last 64 bits of uids of 32 hexadecimal digits, uint64 [n] each."""
    halves = packed_uids(uids).view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def unpacked_uids(packed: NDArray[np.bytes_]) -> pa.ChunkedArray:
    """The reverse of ``packed_uids``: strings [n], in chunks, as a single one cannot hold more than 2 GiB."""
    parts = range(0, len(packed), _STRINGS_AT_ONCE)
    return pa.chunked_array([_strings(packed[start : start + _STRINGS_AT_ONCE]) for start in parts], pa.string())


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
