"""Duplicates whose digests are equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray


def exact_pairs(digests: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Links between rows of equal digest.

    Args:
        digests: any hashable Arrow type [n], such as the sha256 of files or of pixels; null takes no part.

    Returns:
        Row numbers, int64 [m, 2]: each row that has a digest seen before, after the first row of that digest. So a
        digest of k rows gives k - 1 links and not k * (k - 1) / 2 pairs, and each pair is connected.
    """
    encoded = pc.dictionary_encode(digests)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    rows = np.flatnonzero(encoded.is_valid().to_numpy(zero_copy_only=False))
    codes = encoded.indices.drop_null().to_numpy()
    return rows[links_to_first(codes)]


def links_to_first(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Links of every row to the first row of the same code.

    Args:
        codes: [n], of a type that can be sorted.

    Returns:
        Row numbers, int64 [m, 2], each the first of its code and a later one, in order of the later one.
    """
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    firsts = first[inverse]
    later = np.flatnonzero(firsts != np.arange(len(codes)))
    return np.stack([firsts[later], later], axis=1).astype(np.int64)
