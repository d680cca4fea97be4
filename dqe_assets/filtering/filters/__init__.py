"""The filters, each registered by its name."""

from __future__ import annotations

from dqe_assets.filtering.filters.balanced import Balanced
from dqe_assets.filtering.filters.basic import BasicFilter
from dqe_assets.filtering.filters.caption_quality import CaptionQuality
from dqe_assets.filtering.filters.clip_score import ClipScore
from dqe_assets.filtering.filters.cluster_share import KmeansEmbeddings, Random, ScoreTop, Tldr
from dqe_assets.filtering.filters.contaminated import Contaminated
from dqe_assets.filtering.filters.cover import Cover
from dqe_assets.filtering.filters.deduplicated import Deduplicated
from dqe_assets.filtering.filters.image_based import ImageBased
from dqe_assets.filtering.filters.laion2b import Laion2b
from dqe_assets.filtering.filters.no_filter import NoFilter
from dqe_assets.filtering.filters.protocol import Filter, FilterError, Mask
from dqe_assets.filtering.filters.random_subset import RandomSubset
from dqe_assets.filtering.filters.soft_cap import SoftCap
from dqe_assets.filtering.filters.sql import Sql
from dqe_assets.filtering.filters.tagged import Tagged
from dqe_assets.filtering.filters.text_based import TextBased
from dqe_assets.filtering.filters.tmars import Tmars
from dqe_assets.filtering.filters.unique import Unique

__all__ = ["FILTERS", "FILTERS_VERSION", "Filter", "FilterError", "Mask"]

FILTERS: dict[str, type[Filter]] = {
    cls.name: cls
    for cls in (
        NoFilter,
        RandomSubset,
        BasicFilter,
        ClipScore,
        Laion2b,
        TextBased,
        ImageBased,
        Tmars,
        Deduplicated,
        Contaminated,
        CaptionQuality,
        Tldr,
        KmeansEmbeddings,
        Random,
        ScoreTop,
        Balanced,
        Unique,
        SoftCap,
        Cover,
        Tagged,
        Sql,
    )
}
"""Every filter, by the name that expressions call it by."""

FILTERS_VERSION = "1"
"""Raised whenever a filter comes to keep other samples than before."""
