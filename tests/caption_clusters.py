"""Clusters of captions that are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.dedup.caption_duplicates import SourceCaptions, caption_clusters, signature_table, worded_captions
from dqe_assets.dedup.tables import CAPTION_DUPLICATES

if TYPE_CHECKING:
    from collections.abc import Mapping


def clusters_of_captions(uids: pa.ChunkedArray, captions: Mapping[str, pa.Array], threshold: float) -> pa.Table:
    """The table ``caption_duplicates`` of these samples and their captions by caption source."""
    found = [caption_clusters(source, captions_of(uids, texts), threshold)[0] for source, texts in captions.items()]
    return pa.concat_tables([CAPTION_DUPLICATES.empty_table(), *found]).combine_chunks()


def captions_of(uids: pa.ChunkedArray, texts: pa.Array) -> SourceCaptions:
    """The captions of a source, in one shard."""
    return SourceCaptions([worded_captions(signature_table(uids, {"original": texts}), texts)])
