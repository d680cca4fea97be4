"""The graph of stages that the settings call for, and the resources that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.caption.assets import captions_of
from dqe_assets.concepts import assets as concepts
from dqe_assets.dedup.assets import caption_duplicates_of, duplicate_clusters_of, duplicate_pairs
from dqe_assets.features.assets import image_features
from dqe_assets.filtering.assets import filter_masks, subset_of
from dqe_assets.index.assets import caption_collection_of
from dqe_assets.index.map_assets import collection_map
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.report.assets import sample_gallery, warehouse_of
from dqe_assets.scaling.assets import filter_recommendation, pool_utilities
from dqe_assets.score.assets import caption_preference_of, caption_scores_of, joint_embeddings_of
from dqe_assets.stage import CAPTIONER_PREFIX, Stage

if TYPE_CHECKING:
    from dqe_assets.settings import Settings


def stages(settings: Settings) -> list[Stage]:
    """All stages, in an order in which each comes after its inputs."""
    sources = settings.caption_sources
    synthetic = [captions_of(captioner) for captioner in settings.captioners]
    subsets = [subset_of(subset) for subset in settings.subsets]
    return [
        raw_samples,
        image_features,
        *synthetic,
        joint_embeddings_of(sources, settings.scorer),
        caption_scores_of(sources),
        caption_preference_of(sources, settings.preference_imports),
        caption_collection_of(synthetic),
        duplicate_pairs,
        duplicate_clusters_of(settings.duplicates),
        caption_duplicates_of(synthetic),
        filter_masks,
        *subsets,
        concepts.concept_hits_of(sources, synthetic, settings.concepts.tagger),
        concepts.concept_frequency,
        concepts.misalignment,
        concepts.concept_performance,
        concepts.concept_plan,
        concepts.rare_concept_retrieval,
        concepts.rebalanced_subset,
        concepts.curriculum,
        collection_map,
        pool_utilities,
        filter_recommendation,
        warehouse_of(synthetic),
        sample_gallery,
    ]


def resources(settings: Settings) -> dict[str, Any]:
    """The resources, by key."""
    return {
        "settings": settings,
        "image_model": settings.image_model,
        "scorer": settings.scorer,
        "tagger": settings.concepts.tagger,
        "vectors": settings.vectors,
        "warehouse": settings.warehouse,
        **{f"{CAPTIONER_PREFIX}{captioner.name}": captioner for captioner in settings.captioners},
    }
