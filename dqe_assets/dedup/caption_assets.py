"""Captions that several samples share, over all shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.caption.texts import shard_captions
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.stage import Stage, stage
from dqe_assets.dedup import kept_captions, metadata
from dqe_assets.dedup.caption_duplicates import caption_clusters, signature_table
from dqe_assets.dedup.checks import one_representative
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, CAPTION_SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.core.work import Work


def caption_signatures_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``caption_signatures``, of the captions of these stages."""

    @stage(
        kinds={"parquet", "python"},
        code_version="1",
        schema=CAPTION_SIGNATURES,
        inputs=["raw_samples", *(captions.name for captions in synthetic)],
        checks=[unique("uid", "caption_source"), complete(rows_each=1 + len(synthetic))],
        metadata=metadata.caption_signatures,
    )
    def caption_signatures(work: Work, captions: CaptionSources) -> pa.Table:
        """What tells of a shard's captions which are the same, and nearly the same, without reading them again."""
        return signature_table(work.read("raw_samples", ["uid"])["uid"], shard_captions(work, captions))

    return caption_signatures


def caption_duplicates_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``caption_duplicates``, over the captions of these stages."""

    @stage(
        kinds={"parquet", "python"},
        code_version=kept_captions.VERSION,
        schema=CAPTION_DUPLICATES,
        resources={"min_jaccard": "duplicates.min_jaccard"},
        inputs=["raw_samples", *(captions.name for captions in synthetic), "caption_signatures"],
        partitioned=False,
        checks=[
            unique("uid", "caption_source", "kind"),
            one_representative("caption_source", "kind", "cluster"),
            finite("similarity", 0, 1),
        ],
        metadata=metadata.caption_duplicates,
    )
    def caption_duplicates(work: Work, captions: CaptionSources, min_jaccard: float) -> pa.Table:
        """Captions that are given to several images in the same words, or nearly: what says little of any of them."""
        tables = [CAPTION_DUPLICATES.empty_table()]
        for source, found in kept_captions.kept_captions(work, captions.names).items():
            table, known = caption_clusters(source, found, min_jaccard, kept_captions.known_of(source))
            kept_captions.keep_known(source, known)
            tables.append(table)
        return pa.concat_tables(tables)

    return caption_duplicates
