"""Clusters of captions that are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.core.uids import packed_uids
from dqe_assets.dedup.caption_duplicates import SourceCaptions, caption_clusters, signature_table, signed_captions
from dqe_assets.dedup.tables import CAPTION_DUPLICATES

if TYPE_CHECKING:
    from collections.abc import Mapping


def clusters_of_captions(uids: pa.ChunkedArray, captions: Mapping[str, pa.Array], threshold: float) -> pa.Table:
    """The table ``caption_duplicates`` of these samples and their captions by caption source."""
    found = [
        caption_clusters(source, signed_source(uids, source, texts), threshold)[0] for source, texts in captions.items()
    ]
    return pa.concat_tables([CAPTION_DUPLICATES.empty_table(), *found]).combine_chunks()


def signed_source(uids: pa.ChunkedArray, source: str, texts: pa.Array) -> SourceCaptions:
    """The captions of a source."""
    rows, digests, signatures = signed_captions(signature_table(uids, {source: texts}))
    return SourceCaptions(
        digests,
        signatures,
        lambda wanted: texts.take(pa.array(rows[wanted])).to_pylist(),
        lambda wanted: packed_uids(uids.take(pa.array(rows[wanted]))),
    )
