"""The graph of stages that the settings call for, and the resources that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.caption.assets import captions_of
from dqe_assets.concepts import assets as concepts
from dqe_assets.core.stage import CAPTIONER_PREFIX, Stage
from dqe_assets.dedup.assets import caption_duplicates_of, duplicate_clusters_of, duplicate_pairs
from dqe_assets.features.assets import image_features
from dqe_assets.filtering.assets import filter_masks_of, subset_of
from dqe_assets.improve.best_assets import best_captions_of
from dqe_assets.improve.judging_assets import caption_judgements_of
from dqe_assets.improve.refining_assets import refined_captions_of
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.report.assets import sample_gallery, warehouse_of
from dqe_assets.scaling.assets import filter_recommendation, pool_utilities
from dqe_assets.score.assets import (
    caption_preference_of,
    caption_scores_of,
    image_text,
    joint_embeddings_of,
    masked_similarity_of,
    text_quality_of,
)
from dqe_assets.search.assets import caption_collection_of
from dqe_assets.search.map_assets import collection_map
from dqe_resources.captioners.protocol import VisionCaptioner

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


def stages(settings: Settings) -> list[Stage]:
    """All stages, in an order in which each comes after its inputs."""
    sources = settings.caption_sources
    synthetic = [captions_of(captioner) for captioner in settings.captioners]
    judged = [caption_judgements_of(synthetic, settings.judging)] if settings.judging else []
    text = [image_text] if settings.image_text else []
    masked = [masked_similarity_of(settings.scorer)] if settings.image_text else []
    signals = [stage.name for stage in masked]
    refined = [
        refined_captions_of(settings.refining, captioner, [stage.name for stage in text])
        for captioner in settings.captioners
        if isinstance(captioner, VisionCaptioner)
        and settings.refining
        and captioner.name == settings.refining.captioner
    ]
    return [
        raw_samples,
        image_features,
        *synthetic,
        joint_embeddings_of(sources, settings.scorer),
        caption_scores_of(sources),
        caption_preference_of(sources, settings.preference_imports),
        text_quality_of(sources),
        *text,
        *masked,
        *judged,
        *refined,
        best_captions_of(synthetic, ["text_quality", *(stage.name for stage in (*judged, *refined))]),
        caption_collection_of(synthetic),
        duplicate_pairs,
        duplicate_clusters_of(settings.duplicates),
        caption_duplicates_of(synthetic),
        filter_masks_of(signals),
        *(subset_of(subset, signals) for subset in settings.subsets),
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
        warehouse_of([*synthetic, *text, *masked, *judged, *refined]),
        sample_gallery,
    ]


def resources(settings: Settings) -> dict[str, Any]:
    """The resources, by key."""
    return {
        "settings": settings,
        "image_model": settings.image_model,
        "scorer": settings.scorer,
        **({"text_detector": settings.image_text} if settings.image_text else {}),
        "tagger": settings.concepts.tagger,
        "vectors": settings.vectors,
        "warehouse": settings.warehouse,
        **({"judge": settings.judging.judge} if settings.judging else {}),
        **{f"{CAPTIONER_PREFIX}{captioner.name}": captioner for captioner in settings.captioners},
    }
