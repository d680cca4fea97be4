"""Subsets as DataComp's resharder takes them: sorted 128-bit uids in a .npy, and a manifest next to it.

A uid is an element of dtype ``u8,u8``: its first 16 hexadecimal digits and its last 16. As in DataComp, a sample that
stands in a pool several times, and is kept, stands in the subset as often, and the resharder then writes it as often.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.hashing import mixed, unit_interval
from dqe_assets.core.uids import order_of_halves, places_of_halves
from dqe_resources.errors import DataQualityError
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

UID_TYPE = np.dtype("u8,u8")
"""First and last 64 bits of a uid, little-endian on disk."""

_DIGITS = 32


class SubsetError(DataQualityError):
    """A file of a subset cannot be read: says which, what was found and what to do."""


class UidError(ValueError):
    """A uid is not 32 hexadecimal digits.

    Attributes:
        row: where it stands, from 0.
        found: what stands there.
    """

    def __init__(self, row: int, found: str | None) -> None:
        super().__init__(f"row {row}: uid is {found!r}; expected 32 hexadecimal digits")
        self.row = row
        self.found = found


def parse_uids(column: pa.Array | pa.ChunkedArray) -> NDArray[np.void]:
    """Uids as pairs of 64-bit numbers.

    Args:
        column: strings [n] of 32 hexadecimal digits, in lower or upper case.

    Returns:
        ``UID_TYPE`` [n], in the same order.

    Raises:
        UidError: one is null or something else.
    """
    if not len(column):
        return np.empty(0, UID_TYPE)
    # Chunks of strings cannot be more than 2 GiB together.
    found = column.cast(pa.large_string())
    digits = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    offsets = np.frombuffer(digits.buffers()[1], np.int64)[digits.offset : digits.offset + len(digits) + 1]
    if digits.null_count or (np.diff(offsets) != _DIGITS).any():
        raise _first_fault(digits)
    try:
        data = binascii.unhexlify(memoryview(digits.buffers()[2])[offsets[0] : offsets[-1]])
    except binascii.Error:
        raise _first_fault(digits) from None
    halves = np.frombuffer(data, ">u8").reshape(-1, 2)
    uids = np.empty(len(digits), UID_TYPE)
    uids["f0"], uids["f1"] = halves[:, 0], halves[:, 1]
    return uids


def _first_fault(digits: pa.Array) -> UidError:
    for row, uid in enumerate(digits.to_pylist()):
        try:
            if uid is None or len(binascii.unhexlify(uid)) * 2 != _DIGITS:
                return UidError(row, uid)
        except ValueError:
            return UidError(row, uid)
    raise AssertionError("every uid can be read by itself")


def format_uids(uids: NDArray[np.void]) -> pa.Array:
    """The reverse of ``parse_uids``, in lower case: strings [n]."""
    halves = np.empty((len(uids), 2), ">u8")
    halves[:, 0], halves[:, 1] = uids["f0"], uids["f1"]
    digits = binascii.hexlify(halves.tobytes())
    offsets = np.arange(len(uids) + 1, dtype=np.int64) * _DIGITS
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(uids), buffers).cast(pa.string())


def uniform_draws(uids: NDArray[np.void], seed: int, salt: int = 0) -> NDArray[np.float64]:
    """A number for each uid, the same wherever it stands, as if drawn evenly from 0 to below 1: float64 [n].

    Args:
        uids: ``UID_TYPE`` [n].
        seed: another one gives other numbers, 0 to 2**64 - 1.
        salt: likewise: rules that are joined must not draw the same numbers.
    """
    start = mixed(np.array([seed], np.uint64)) ^ np.uint64(salt)
    return unit_interval(mixed(uids["f1"] ^ mixed(uids["f0"] ^ start)))


def order_of(uids: NDArray[np.void]) -> NDArray[np.int64]:
    """The stable order in which uids are sorted: [n] positions; of equal ones the earlier comes first."""
    return order_of_halves(uids["f0"], uids["f1"])


def union(subsets: Sequence[NDArray[np.void]]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """One subset of several, each from a pool of its own.

    A uid of several pools is one sample: it is kept as it stands in the first pool that has it, and those of later
    pools fall away. What stands several times in one pool stays so.

    Args:
        subsets: ``UID_TYPE`` [n] each, in any order.

    Returns:
        The uids, sorted, ``UID_TYPE`` [m], and for each the position of its pool, [m].
    """
    uids = np.concatenate([np.empty(0, UID_TYPE), *subsets])
    pools = np.repeat(np.arange(len(subsets)), [len(subset) for subset in subsets])
    order = order_of(uids)
    uids, pools = uids[order], pools[order]
    owner = pools[run_starts(uids)]
    kept = pools == owner
    return uids[kept], pools[kept]


def contains(sorted_uids: NDArray[np.void], uids: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of some uids stand in a subset: bool [n].

    Args:
        sorted_uids: of the subset, sorted.
        uids: to look for, [n].
    """
    return places_of(sorted_uids, uids) >= 0


def places_of(sorted_uids: NDArray[np.void], uids: NDArray[np.void]) -> NDArray[np.int64]:
    """Where each of some uids first stands among sorted ones, -1 if it does not: [n]; arguments as ``contains``."""
    return places_of_halves(sorted_uids["f0"], sorted_uids["f1"], uids["f0"], uids["f1"])


def unique_uids(uids: NDArray[np.void]) -> NDArray[np.void]:
    """Each uid once, sorted: ``UID_TYPE`` [m]."""
    in_order = uids[order_of(uids)]
    return in_order[run_starts(in_order) == np.arange(len(in_order))]


def distinct(uids: NDArray[np.void]) -> int:
    """How many different uids there are among sorted ones."""
    return int(np.count_nonzero(run_starts(uids) == np.arange(len(uids))))


def run_starts(uids: NDArray[np.void]) -> NDArray[np.int64]:
    """For each of sorted uids, where the first equal one stands: [n]."""
    high, low = uids["f0"], uids["f1"]
    starts = np.arange(len(uids))
    repeats = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1])) + 1
    starts[repeats] = 0
    return np.maximum.accumulate(starts)


def manifest_path(path: Path) -> Path:
    """Path of the manifest of a subset."""
    return path.with_suffix(".json")


def write_subset(path: Path, uids: NDArray[np.void], manifest: Mapping[str, Any]) -> None:
    """Write a subset, and then its manifest with the subset's own digest.

    Args:
        path: where, ending in .npy.
        uids: ``UID_TYPE`` [n], sorted.
        manifest: what it says about the subset.

    Raises:
        SubsetError: the path does not end in .npy.
        StorageError: it cannot be written.
    """
    if path.suffix != ".npy":
        raise SubsetError(f"{path}: a subset ends in .npy")
    replace_file(path, lambda target: np.save(target, uids))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    said = {**manifest, "subset": {"file": path.name, "uids": len(uids), "dtype": "u8,u8", "sha256": digest}}
    encoded = json.dumps(said, indent=1, ensure_ascii=False).encode()
    replace_file(manifest_path(path), lambda target: target.write(encoded + b"\n"))


def read_subset(path: Path) -> NDArray[np.void]:
    """The uids of a subset, mapped from its file: ``UID_TYPE`` [n], sorted.

    Raises:
        SubsetError: it is not such a file, or not sorted.
    """
    return _checked(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def fetch_subset(url: str) -> NDArray[np.void]:
    """The uids of a subset at an fsspec URL, in memory: as ``read_subset``, which has what it raises."""
    import fsspec

    def load() -> NDArray[np.void]:
        with fsspec.open(url, "rb") as file:
            return np.load(file, allow_pickle=False)

    return _checked(url, load)


def _checked(path: Path | str, load: Callable[[], NDArray[np.void]]) -> NDArray[np.void]:
    try:
        uids = load()
    except (OSError, ValueError, EOFError) as error:
        raise SubsetError(f"{path}: cannot be read as a subset ({error}); make it with: dqe filter") from error
    if uids.dtype != UID_TYPE or uids.ndim != 1:
        raise SubsetError(f"{path}: holds {uids.dtype} {list(uids.shape)}; a subset is u8,u8 [n]")
    high, low = uids["f0"], uids["f1"]
    falls = (high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] < low[:-1]))
    if falls.any():
        raise SubsetError(f"{path}: not sorted, first at element {int(np.argmax(falls)) + 1}; sort it with numpy.sort")
    return uids
