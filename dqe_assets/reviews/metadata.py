"""The metadata of decisions in the UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc

from dqe_assets.core.metadata import Metadata, preview, valid_values
from dqe_assets.reviews.decide import counts

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work


def reviews(_: Work, table: pa.Table) -> Metadata:
    """How many samples people keep, drop, tag, and have given a caption, with some of them."""
    decided = table.filter(pc.is_valid(table["decided_at"]))
    return {**counts([table]), "preview": preview(decided, ["review", "review_tags", "caption", "decided_by", "why"])}


def reviewed_caption_scores(_: Work, table: pa.Table) -> Metadata:
    """How many captions there are, and how well they fit."""
    values = valid_values(table["similarity"])
    return {"captions": len(table), **({"mean_similarity": float(values.mean())} if len(values) else {})}
