"""Captions that several samples share: what is made of each shard's captions, and the clusters over all shards."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_assets.core.arrow import from_matrix, scatter
from dqe_assets.core.shard_rows import ShardArrays, ShardRows
from dqe_assets.core.uids import packed_uids
from dqe_assets.dedup.caption_text import HASHES, normalised_text, signatures, text_digest
from dqe_assets.dedup.clusters import cluster_table
from dqe_assets.dedup.near_texts import NO_LABELS, NOTHING_COMPARED, WORDS, Compared, near_components, sketches_of
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, CAPTION_SIGNATURES
from dqe_resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

WORDED_CAPTIONS = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_digest", pa.binary(16), nullable=False),
        pa.field("signature", pa.binary(HASHES), nullable=False),
        pa.field("sketch", pa.binary(8 * WORDS), nullable=False),
    ]
)
"""Captions that have words, and what they are compared by; ``text`` is the normalised text."""


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


def worded_captions(signed: pa.Table, captions: pa.Array) -> pa.Table:
    """Those captions of a shard and source that have words.

    Args:
        signed: the rows of that source in ``CAPTION_SIGNATURES`` [n].
        captions: strings [n].

    Returns:
        Table of ``WORDED_CAPTIONS``.
    """
    has_words = signed["text_digest"].is_valid().combine_chunks()
    worded = signed.filter(has_words).combine_chunks()
    texts = [normalised_text(caption) for caption in captions.filter(has_words).to_pylist()]
    numbers = worded["signature"].combine_chunks().flatten().to_numpy().view(np.uint8).reshape(-1, HASHES)
    columns = [worded["uid"], pa.array(texts, pa.string()), worded["text_digest"]]
    return pa.table([*columns, _of_bytes(numbers), _of_bytes(sketches_of(numbers))], schema=WORDED_CAPTIONS)


class SourceCaptions:
    """The captions of one source that have words, those of one shard after those of another.

    Args:
        tables: of each shard, of ``WORDED_CAPTIONS``; they may be mapped from files.
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        tables = [table.combine_chunks() for table in tables if len(table)]
        self._columns = {name: [table[name].chunk(0) for table in tables] for name in WORDED_CAPTIONS.names}
        self._numbers = ShardRows([len(table) for table in tables])
        self.digests = np.concatenate([np.empty((0, 2), np.uint64), *self._parts("text_digest", np.uint64)])
        """Of their texts, uint64 [n, 2]."""
        self.signatures = ShardArrays(self._parts("signature", np.uint8))
        """uint8 [n, ``HASHES``]."""
        self.sketches = ShardArrays(self._parts("sketch", np.uint64))
        """Of these, uint64 [n, ``WORDS``]."""

    def texts(self, rows: NDArray[np.int64]) -> pa.StringArray:
        """Those in some rows, int64 [k] ascending, at least one."""
        return pa.concat_arrays(self._taken("text", rows))

    def uids(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """The samples of some rows, int64 [k] ascending, as `dqe_assets.core.uids.packed_uids` has them."""
        return packed_uids(pa.chunked_array(self._taken("uid", rows), pa.string()))

    def _taken(self, name: str, rows: NDArray[np.int64]) -> list[pa.Array]:
        return [self._columns[name][shard].take(pa.array(own)) for shard, own in self._numbers.by_shard(rows)]

    def _parts(self, name: str, dtype: type[np.unsignedinteger[Any]]) -> list[NDArray[Any]]:
        return [_bytes_of(column, dtype) for column in self._columns[name]]


def _of_bytes(rows: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    """The bytes of each row of a matrix."""
    width = rows.shape[1] * rows.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])


def _bytes_of(column: pa.FixedSizeBinaryArray, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """The reverse of ``_of_bytes``, of one row or more."""
    width = column.type.byte_width
    found = np.frombuffer(column.buffers()[1], np.uint8, len(column) * width, column.offset * width)
    return found.view(dtype).reshape(len(column), -1)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of captions of a source from another time. It saves work, and changes nothing of what is found.

    Attributes:
        compared: what texts were compared (`dqe_assets.dedup.near_texts.Compared.asked`).
        texts: tells of which texts, in which order, the components are known, at which threshold.
        components: the number of each text's component, int64 [k].
    """

    compared: NDArray[np.uint64]
    texts: str
    components: NDArray[np.int64]


NOTHING_KNOWN = Known(NOTHING_COMPARED, "", NO_LABELS)


def caption_clusters(
    source: str, found: SourceCaptions, threshold: float, known: Known = NOTHING_KNOWN
) -> tuple[pa.Table, Known]:
    """All clusters of equal captions of a source, and of equal or nearly equal ones.

    In memory are some 150 bytes a caption, and the uids of what is in a cluster. If the captions are those of last time
    and some more at the end, only these are looked for.

    Args:
        source: its name.
        found: its captions.
        threshold: Jaccard similarity of their sets of four-letter runs from which two captions are nearly equal.
        known: what this gave beside the table for other captions.

    Returns:
        Table of ``CAPTION_DUPLICATES``, in which the first by uid of a cluster represents it; and what is known now.
    """
    text, first = _texts(found.digests)
    digests = found.digests[first]
    is_known = known.texts == _name(digests[: len(known.components)], threshold)
    compared = Compared(digests, lambda some: found.texts(first[some]), known.compared)
    labels = near_components(
        found.signatures, found.sketches, first, compared, threshold, known.components if is_known else NO_LABELS
    )
    near = labels[text]
    members = np.flatnonzero(np.bincount(near, minlength=1)[near] > 1)
    uids = found.uids(members)

    def alike(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        of_texts = text[members[pairs]]
        similarity = np.ones(len(pairs))
        differ = np.flatnonzero(of_texts[:, 0] != of_texts[:, 1])
        numbers, places = np.unique(of_texts[differ] @ [len(first), 1], return_inverse=True)
        similarity[differ] = compared.similarities(np.stack(np.divmod(numbers, len(first)), axis=1))[places]
        return similarity

    tables = [
        cluster_table(kind, uids, component, np.zeros(len(members)), alike)
        for kind, component in (("exact", text[members]), ("near", near[members]))
    ]
    table = pa.concat_tables(tables)
    table = table.append_column("caption_source", pa.repeat(source, table.num_rows))
    table = table.select(CAPTION_DUPLICATES.names).cast(CAPTION_DUPLICATES)
    # The links of known texts were not asked for again, but will be when one of these goes.
    pairs = compared.known_or_asked if is_known else compared.asked
    return table, Known(pairs, _name(digests, threshold), labels)


def _texts(digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the distinct digests each row has, counted as they come, int64 [n]; and the first row of each [k]."""
    text = _of_bytes(digests).dictionary_encode().indices.to_numpy().astype(np.int64)
    return text, np.flatnonzero(np.diff(np.maximum.accumulate(text), prepend=-1))


def _name(digests: NDArray[np.uint64], threshold: float) -> str:
    """Tells texts in their order, and the threshold at which they are near, from others."""
    return fingerprint(blake2b(digests.data).hexdigest(), threshold)
