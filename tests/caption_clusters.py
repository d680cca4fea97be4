"""Clusters of captions that are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.uids import packed_uids
from dqe_assets.dedup.caption_duplicates import SourceCaptions, caption_clusters, signature_table, signed_captions
from dqe_assets.dedup.tables import CAPTION_DUPLICATES

if TYPE_CHECKING:
    from collections.abc import Mapping


def clusters_of_captions(uids: pa.ChunkedArray, captions: Mapping[str, pa.Array], threshold: float) -> pa.Table:
    """The table ``caption_duplicates`` of these samples and their captions by caption source."""
    signed = signature_table(uids, captions)
    found = [CAPTION_DUPLICATES.empty_table()]
    for source, texts in captions.items():
        rows, digests, signatures = signed_captions(signed.filter(pc.equal(signed["caption_source"], source)))
        of_source = SourceCaptions(
            digests,
            signatures,
            lambda wanted, rows=rows, texts=texts: texts.take(pa.array(rows[wanted])).to_pylist(),
            lambda wanted, rows=rows: packed_uids(uids.take(pa.array(rows[wanted]))),
        )
        found.append(caption_clusters(source, of_source, threshold))
    return pa.concat_tables(found).combine_chunks()
