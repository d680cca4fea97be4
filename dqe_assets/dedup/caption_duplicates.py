"""Captions that several samples share: what is kept of each shard's captions, and the clusters over all shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dqe_assets.core.arrow import from_matrix, scatter
from dqe_assets.dedup.caption_text import HASHES, normalised_text, signatures, text_digest
from dqe_assets.dedup.clusters import cluster_table
from dqe_assets.dedup.exact import grouped
from dqe_assets.dedup.near_texts import NOTHING_KNOWN, Compared, near_components
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, CAPTION_SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


def signature_table(uids: pa.ChunkedArray, captions: Mapping[str, pa.Array]) -> pa.Table:
    """What tells of a shard's captions which are the same, and which nearly so.

    Args:
        uids: strings [n].
        captions: the captions of each caption source, strings [n].

    Returns:
        Table of ``CAPTION_SIGNATURES``: the samples with the captions of one source, then those of the next.
    """
    tables = [CAPTION_SIGNATURES.empty_table()]
    for source, column in captions.items():
        texts = [normalised_text(text) if text else "" for text in column.to_pylist()]
        rows = np.flatnonzero([bool(text) for text in texts])
        worded = [texts[row] for row in rows]
        columns = {
            "uid": uids,
            "caption_source": pa.repeat(source, len(texts)),
            "text_digest": scatter([text_digest(text) for text in worded], rows, len(texts), pa.binary(16)),
            "signature": from_matrix(signatures(worded).view(np.uint64), rows, len(texts), pa.uint64()),
        }
        tables.append(pa.table(columns, CAPTION_SIGNATURES))
    return pa.concat_tables(tables).combine_chunks()


def signed_captions(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint8]]:
    """Of the rows of one caption source, in ``CAPTION_SIGNATURES``, those whose captions have words.

    Returns:
        Their positions, int64 [n]; their digests, uint64 [n, 2]; their signatures, uint8 [n, ``HASHES``].
    """
    digests, signed = (table[name].combine_chunks() for name in ("text_digest", "signature"))
    rows = np.flatnonzero(digests.is_valid().to_numpy(zero_copy_only=False))
    digests = digests.drop_null()
    words = np.frombuffer(digests.buffers()[1], np.uint64, 2 * len(digests), 16 * digests.offset)
    return rows, words.reshape(-1, 2), signed.flatten().to_numpy().view(np.uint8).reshape(-1, HASHES)


@dataclass(frozen=True, slots=True)
class SourceCaptions:
    """The captions of one source that have words.

    Attributes:
        digests: of their normalised texts, uint64 [n, 2].
        signatures: uint8 [n, ``HASHES``]; they may be mapped from a file.
        captions: gives the captions in some rows, int64 [k] ascending.
        uids: gives the samples of some rows, int64 [k] ascending, as `dqe_assets.core.uids.packed_uids` has them.
    """

    digests: NDArray[np.uint64]
    signatures: NDArray[np.uint8]
    captions: Callable[[NDArray[np.int64]], list[str]]
    uids: Callable[[NDArray[np.int64]], NDArray[np.bytes_]]


def caption_clusters(
    source: str, found: SourceCaptions, threshold: float, known: NDArray[np.uint64] = NOTHING_KNOWN
) -> tuple[pa.Table, NDArray[np.uint64]]:
    """All clusters of equal captions of a source, and of equal or nearly equal ones.

    In memory are some 100 bytes a caption, and the uids of what is in a cluster.

    Args:
        source: its name.
        found: its captions.
        threshold: Jaccard similarity of their sets of four-letter runs from which two captions are nearly equal.
        known: what this gave beside the table for other captions; it saves reading and comparing, and changes nothing.

    Returns:
        Table of ``CAPTION_DUPLICATES``, in which the first by uid of a cluster represents it; and what captions were
        compared (`dqe_assets.dedup.near_texts.Compared.asked`).
    """
    text, first = grouped(found.digests)

    def texts(distinct: NDArray[np.int64]) -> list[str]:
        rows, places = np.unique(first[distinct], return_inverse=True)
        read = [normalised_text(caption) for caption in found.captions(rows)]
        return [read[place] for place in places]

    compared = Compared(found.digests[first], texts, known)
    near = near_components(found.signatures, first, compared, threshold)[text]
    members = np.flatnonzero(np.bincount(near, minlength=1)[near] > 1)
    uids = found.uids(members)

    def alike(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        of_texts = text[members[pairs]]
        similarity = np.ones(len(pairs))
        differ = np.flatnonzero(of_texts[:, 0] != of_texts[:, 1])
        distinct, places = np.unique(of_texts[differ], axis=0, return_inverse=True)
        similarity[differ] = compared.similarities(distinct)[places.ravel()]
        return similarity

    tables = [
        cluster_table(kind, uids, component, np.zeros(len(members)), alike)
        for kind, component in (("exact", text[members]), ("near", near[members]))
    ]
    table = pa.concat_tables(tables)
    table = table.append_column("caption_source", pa.repeat(source, table.num_rows))
    return table.select(CAPTION_DUPLICATES.names).cast(CAPTION_DUPLICATES), compared.asked
