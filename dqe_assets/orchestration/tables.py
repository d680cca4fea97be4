"""The tables of all stages, by asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.concepts.tables import (
    CONCEPT_FREQUENCY,
    CONCEPT_HITS,
    CONCEPT_PERFORMANCE,
    CONCEPT_PLAN,
    CURRICULUM,
    MISALIGNMENT,
    RARE_CONCEPT_RETRIEVAL,
    REBALANCED_SUBSET,
)
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, DUPLICATE_CLUSTERS, DUPLICATE_PAIRS
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.improve.tables import BEST_CAPTIONS, CAPTION_JUDGEMENTS, REFINED_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, POOL_UTILITIES
from dqe_assets.score.tables import (
    CAPTION_PREFERENCE,
    CAPTION_SCORES,
    IMAGE_TEXT,
    JOINT_EMBEDDINGS,
    MASKED_SIMILARITY,
    TEXT_QUALITY,
)
from dqe_assets.search.tables import COLLECTION_MAP

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = {
    "raw_samples": RAW_SAMPLES,
    "image_features": IMAGE_FEATURES,
    "joint_embeddings": JOINT_EMBEDDINGS,
    "caption_scores": CAPTION_SCORES,
    "caption_preference": CAPTION_PREFERENCE,
    "best_captions": BEST_CAPTIONS,
    "caption_judgements": CAPTION_JUDGEMENTS,
    "text_quality": TEXT_QUALITY,
    "image_text": IMAGE_TEXT,
    "masked_similarity": MASKED_SIMILARITY,
    "duplicate_pairs": DUPLICATE_PAIRS,
    "duplicate_clusters": DUPLICATE_CLUSTERS,
    "collection_map": COLLECTION_MAP,
    "caption_duplicates": CAPTION_DUPLICATES,
    "pool_utilities": POOL_UTILITIES,
    "filter_recommendation": FILTER_RECOMMENDATION,
    "concept_hits": CONCEPT_HITS,
    "concept_frequency": CONCEPT_FREQUENCY,
    "misalignment": MISALIGNMENT,
    "concept_performance": CONCEPT_PERFORMANCE,
    "concept_plan": CONCEPT_PLAN,
    "rare_concept_retrieval": RARE_CONCEPT_RETRIEVAL,
    "rebalanced_subset": REBALANCED_SUBSET,
    "curriculum": CURRICULUM,
    "refined_captions": REFINED_CAPTIONS,
}


def schema_of(asset: str) -> pa.Schema:
    """The schema of an asset's table.

    Raises:
        KeyError: the asset is not a table.
    """
    return SYNTHETIC_CAPTIONS if asset.startswith(SYNTHETIC_CAPTIONS_PREFIX) else _TABLES[asset]
