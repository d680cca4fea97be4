"""The graph of stages that the settings call for, and the resources that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.caption.assets import captions_of
from dqe_assets.compression.assets import code_clusters, codebook, image_codes
from dqe_assets.concepts import assets as concepts
from dqe_assets.contamination.assets import contamination_of
from dqe_assets.core.schema import ORIGINAL, REFINED, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.signals import signals_of
from dqe_assets.core.stage import CAPTIONER_PREFIX, Stage, connected
from dqe_assets.dedup.assets import duplicate_clusters_of, duplicate_pairs
from dqe_assets.dedup.caption_assets import caption_duplicates_of, caption_signatures_of
from dqe_assets.evaluation.assets import (
    class_counts_of,
    concept_accuracies_of,
    evaluation,
    leaderboard,
    model_evaluation,
    training_curves,
)
from dqe_assets.evaluation.target_assets import targets_of
from dqe_assets.features.assets import image_features
from dqe_assets.filtering.assets import filter_masks_of, subset_of
from dqe_assets.filtering.mix_assets import MIXED_PREFIX, caption_mixes_of
from dqe_assets.filtering.mixture_assets import mixture_of
from dqe_assets.filtering.store_pool import STORE
from dqe_assets.grounding.assets import grounding_of
from dqe_assets.improve.best_assets import best_captions_of
from dqe_assets.improve.judging_assets import caption_judgements_of
from dqe_assets.improve.refining_assets import refined_captions_of
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.report.assets import relations_of, sample_gallery_of, warehouse_of
from dqe_assets.report.build_warehouse import CaptionerInfo
from dqe_assets.reviews.assets import reviewed_caption_scores_of, reviews
from dqe_assets.rights.assets import rights
from dqe_assets.scaling.assets import scaling_of
from dqe_assets.score.assets import (
    caption_preference_of,
    caption_scores_of,
    further_caption_scores_of,
    image_text,
    joint_embeddings_of,
    masked_similarity_of,
    text_quality_of,
)
from dqe_assets.score.sample_score_assets import SCORER_PREFIX, columns_of, embedding_assets, scores_of
from dqe_assets.score.scorer_settings import asking_scorer
from dqe_assets.score.vqa_assets import vqa_scores_of
from dqe_assets.search.assets import caption_collection_of
from dqe_assets.search.map_assets import collection_map
from dqe_assets.signals.assets import signal_keys_of, signals_of_table, source_metadata_of
from dqe_assets.training.assets import training_run_of
from dqe_assets.training.data_assets import DataPlan, training_data_of
from dqe_assets.training.settings import BEST
from dqe_assets.view.assets import sample_view_of, thumbnails
from dqe_resources.captioners.protocol import VisionCaptioner
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from dqe_assets.core.measurements import MeasurementSettings
    from dqe_assets.core.relations import Relations
    from dqe_assets.core.signals import Signal
    from dqe_assets.orchestration.settings import Settings

_NOT_HANDED = frozenset({"images", "fetching", "takedowns", "concurrency", "cluster"})
"""What no stage is handed by its name: the first three are parts of ``ingest``, the others say how stages are run."""


def stages(settings: Settings) -> list[Stage]:
    """All stages, in an order in which each comes after its inputs."""
    captions, sources = settings.captions, settings.caption_sources
    synthetic = [captions_of(captioner, settings.captioners) for captioner in settings.captioners]
    judged = [caption_judgements_of(captions, settings.judging)] if settings.judging else []
    grounded = [grounding_of(sources)] if settings.grounding else []
    text = [image_text] if settings.image_text else []
    masked = [masked_similarity_of(settings.scorer)] if settings.image_text else []
    compressed = [codebook, image_codes, code_clusters] if settings.compression else []
    contaminated = contamination_of([one.name for one in settings.reference_sets], [stage.name for stage in text])
    refined = [
        refined_captions_of(
            settings.refining,
            captioner,
            [stage.name for stage in text],
            [stage.name for stage in grounded],
            independent=REFINED not in captions.shared,
        )
        for captioner in settings.captioners
        if isinstance(captioner, VisionCaptioner)
        and settings.refining
        and captioner.name == settings.refining.captioner
    ]
    said = settings.metadata_signals
    of_users = [
        *([source_metadata_of(said)] if said.types else []),
        *map(signals_of_table, settings.signals),
        *([signal_keys_of(settings.signals)] if settings.signals else []),
    ]
    scored = scores_of(settings.scorers, settings.scorer)
    asked = asking_scorer(settings.scorers)
    true = vqa_scores_of(sources, asked) if asked else []
    embeddings = embedding_assets(settings.scorers, settings.scorer)
    signals = signals_of([*scored, *true, *of_users]) | columns_of(settings.scorers, settings.scorer)
    plans = data_plans(settings)
    of_runs = (
        [
            training_run_of(plan.name for plan in plans),
            evaluation,
            leaderboard,
            training_curves,
            *(class_counts_of(plan) for plan in plans),
            concept_accuracies_of(plan.name for plan in plans),
        ]
        if plans
        else []
    )
    made = [
        raw_samples,
        image_features,
        rights,
        reviews,
        *synthetic,
        joint_embeddings_of(sources, settings.scorer),
        reviewed_caption_scores_of(settings.scorer),
        caption_scores_of(sources),
        further_caption_scores_of(settings.scorer),
        caption_preference_of(captions, settings.scorer, settings.preference_imports, settings.sharing_backbones),
        text_quality_of(sources),
        *scored,
        *true,
        concepts.concept_hits_of(sources, synthetic, settings.concepts.tagger),
        *grounded,
        *text,
        *masked,
        *judged,
        *refined,
        best_captions_of(synthetic, ["text_quality", *(stage.name for stage in (*grounded, *judged, *refined))], true),
        caption_collection_of(synthetic),
        duplicate_pairs,
        duplicate_clusters_of(settings.duplicates),
        caption_signatures_of(synthetic),
        caption_duplicates_of(synthetic),
        *compressed,
        *of_users,
        *contaminated,
        concepts.concept_frequency,
        *(targets_of(one, settings.evaluation, embeddings, settings.images.max_bytes) for one in settings.targets),
        filter_masks_of(settings.filters, signals),
        *(subset_of(subset, settings.filters, signals) for subset in settings.subsets),
        *map(mixture_of, settings.mixtures),
        *caption_mixes_of(settings.caption_mixes),
        concepts.misalignment,
        concepts.rare_concept_retrieval,
        concepts.rebalanced_subset,
        concepts.curriculum,
        collection_map,
        *map(training_data_of, plans),
        *of_runs,
        *([model_evaluation] if settings.evaluation.models else []),
        *concepts.concept_plan_of(_trained(settings.concepts)),
        *scaling_of(_trained(settings.scaling)),
    ]
    read = [
        warehouse_of(made, captioner_infos(settings), settings.scorer),
        sample_gallery_of(made),
        thumbnails,
        sample_view_of(made),
    ]
    return connected([*made, *read])


def _trained(measured: MeasurementSettings) -> list[str]:
    """The asset that measurements are read from, if they are one."""
    return [measured.trained] if measured.is_trained else []


def data_plans(settings: Settings) -> list[DataPlan]:
    """What the training runs are trained on, each once."""
    pools = {
        **{one.name: one.pools for one in settings.subsets},
        **{one.name: one.pools(settings.subsets) for one in settings.mixtures},
    }
    assets = {
        ORIGINAL: "raw_samples",
        BEST: "best_captions",
        **{name: f"{SYNTHETIC_CAPTIONS_PREFIX}{name}" for name in settings.captioner_names},
        **{mix.name: f"{MIXED_PREFIX}{mix.name}" for mix in settings.caption_mixes},
    }
    return list(
        {
            run.data: DataPlan(
                run.data,
                run.subset if run.subset in pools else None,
                pools.get(run.subset, [STORE]),
                {kind: assets[kind] for kind, _ in run.captions},
            )
            for run in settings.training.planned
        }.values()
    )


def resources(settings: Settings) -> dict[str, Any]:
    """The resources that stages get, by key: parts of data/dqe.yaml by their names, and values made from several."""
    parts = {name: getattr(settings, name) for name in type(settings).model_fields if name not in _NOT_HANDED}
    return {
        **{name: part for name, part in parts.items() if isinstance(part, Strict)},
        "captions": settings.captions,
        "ingest": settings.ingest,
        "reference_sets": settings.references,
        **{f"{CAPTIONER_PREFIX}{captioner.name}": captioner for captioner in settings.captioners},
        **{f"{SCORER_PREFIX}{scorer.name}": scorer for scorer in settings.scorers},
    }


def relations(settings: Settings) -> tuple[Relations, ...]:
    """What all stages add to the warehouse, report, gallery and explanations."""
    return relations_of(stages(settings))


def signals(settings: Settings) -> dict[str, Signal]:
    """The signals of all stages, by name, and what else expressions can read of scorers."""
    return signals_of(stages(settings)) | columns_of(settings.scorers, settings.scorer)


def captioner_infos(settings: Settings) -> list[CaptionerInfo]:
    """The captioners; refined captions count as those of one more captioner."""
    shared = settings.captions.shared
    refiner = settings.refining.captioner if settings.refining else None
    return [
        CaptionerInfo(
            one.name,
            one.kind,
            one.model_id,
            tuple(sorted(one.backbones)),
            one.name in shared,
            one.price_per_hour,
        )
        for one in settings.captioners
    ] + [
        CaptionerInfo(REFINED, "refining", one.model_id, tuple(sorted(one.backbones)), REFINED in shared)
        for one in settings.captioners
        if one.name == refiner
    ]
