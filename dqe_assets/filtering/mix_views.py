"""The table of mixed captions, and what it says of a sample."""

from __future__ import annotations

from dqe_assets.core.relations import Explanation, Read, Relations, Table, columns
from dqe_assets.filtering.tables import MIXED_CAPTIONS

RELATIONS = Relations(
    reads=(Read("mixed_captions/", MIXED_CAPTIONS, " ".join(MIXED_CAPTIONS.names), rest="mix"),),
    tables=(
        Table(
            "mixed_captions",
            "The caption of each sample in each mix of the key caption_mixes; null where it has none",
            {
                **columns(MIXED_CAPTIONS, uid="VARCHAR"),
                "mix": ("VARCHAR", "name of the mix in data/dqe.yaml"),
                **columns(MIXED_CAPTIONS, caption="VARCHAR", caption_source="VARCHAR", similarity="FLOAT"),
            },
            "SELECT uid, mix, caption, caption_source, similarity FROM stored_mixed_captions ORDER BY mix, uid",
            by_shard=True,
        ),
    ),
    explanations=(
        Explanation(
            "Mixed captions",
            ("mixed_captions/",),
            "SELECT mix, caption_source, caption, similarity FROM mixed_captions WHERE uid = ? ORDER BY mix",
            order=65,
        ),
    ),
)
