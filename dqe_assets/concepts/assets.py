"""Concept frequency: how often the data shows each concept, and what follows from that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import shard_captions
from dqe_assets.concepts import checks, corpus, metadata, plan, rebalancing
from dqe_assets.concepts.accuracies import TRAINED_ASSET, content_digest, read_accuracies, trained_accuracies
from dqe_assets.concepts.kept_hits import corpus_hits
from dqe_assets.concepts.settings import caption_source_of
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
from dqe_assets.concepts.tagging import tag_images
from dqe_assets.concepts.tail import rarest
from dqe_assets.concepts.views import RELATIONS
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import IMAGE, has_image
from dqe_assets.core.stage import COLLECTION_POOL, MODEL_POOL, Stage, stage
from dqe_assets.score.tables import CAPTION_SCORES
from dqe_assets.search.query import collection_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.concepts.settings import ConceptLists, CurriculumWeights
    from dqe_assets.core.work import Work
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.taggers.protocol import Tagger
    from dqe_resources.vectors.protocol import Vectors


def _settings(*names: str) -> dict[str, str]:
    """These settings, and what decides the counts, as parameters of a stage's function."""
    return {name: f"concepts.{name}" for name in ("lists", *names)}


def _counts(work: Work, count_by: str) -> tuple[list[str], np.ndarray]:
    """The concepts, and the samples that show each, in what the settings count by."""
    table = work.read_unpartitioned("concept_frequency", ["concept", "item", "samples"])
    counted = table.filter(pc.equal(table["item"], count_by))
    return counted["concept"].to_pylist(), counted["samples"].to_numpy()


def concept_hits_of(caption_sources: Sequence[str], synthetic: Sequence[Stage], tagger: Tagger) -> Stage:
    """The asset ``concept_hits``, over the images and these caption sources."""

    @stage(
        kinds={"parquet", "numpy"},
        code_version="2",
        schema=CONCEPT_HITS,
        inputs=dict.fromkeys(("raw_samples", tagger.asset, *(captions.name for captions in synthetic))),
        checks=[
            unique("uid", "item"),
            complete(rows_each=len(caption_sources) + 1),
            checks.every_image_tagged,
            checks.known_concepts,
        ],
        metadata=metadata.concept_hits,
        pool=MODEL_POOL,
        resources=_settings("tagger", "threshold"),
    )
    def concept_hits(
        work: Work, tagger: Tagger, captions: CaptionSources, lists: ConceptLists, threshold: float
    ) -> pa.Table:
        """The concepts that each sample shows: in its image, and in its caption from each source.

        A caption shows a concept when it has all of the concept's words, by their lemmas; an image, when the tagger
        gives the concept a probability above the threshold.
        """
        counting = lists.counting()
        raw = work.read("raw_samples", ["uid", "status"])
        rows = np.flatnonzero(has_image(raw).to_numpy())
        samples = work.read(tagger.asset).take(pa.array(rows))
        tags = tag_images(tagger, samples, counting.concepts.names, threshold)["concepts"].combine_chunks()
        return corpus.shard_hits(raw["uid"], shard_captions(work, captions), tags, rows, counting)

    return concept_hits


@stage(
    kinds={"parquet", "numpy"},
    relations=RELATIONS,
    code_version="1",
    schema=CONCEPT_FREQUENCY,
    inputs=["concept_hits"],
    partitioned=False,
    checks=[unique("concept", "item"), checks.every_concept, checks.counts_add_up],
    metadata=metadata.concept_frequency,
    resources=_settings(),
)
def concept_frequency(work: Work, captions: CaptionSources, lists: ConceptLists) -> pa.Table:
    """How many samples show each concept: in the caption of each source, in the image, and in both."""
    return corpus.concept_frequency(corpus_hits(work, lists, captions))


@stage(
    kinds={"parquet", "numpy"},
    code_version="1",
    schema=MISALIGNMENT,
    inputs=["concept_hits"],
    partitioned=False,
    checks=[unique("shard", "caption_source"), checks.misaligned_are_listed],
    metadata=metadata.misalignment,
    resources=_settings(),
)
def misalignment(work: Work, captions: CaptionSources, lists: ConceptLists) -> pa.Table:
    """By shard and caption source, the samples whose caption and image show concepts, but none in common."""
    return corpus.misalignment(corpus_hits(work, lists, captions))


def concept_plan_of(measured: Sequence[str]) -> list[Stage]:
    """The assets ``concept_performance`` and ``concept_plan``.

    Args:
        measured: the asset that the accuracies are read from, if they are one.
    """

    @stage(
        kinds={"parquet", "numpy", "scipy"},
        code_version="1",
        schema=CONCEPT_PERFORMANCE,
        unpartitioned_inputs=measured,
        partitioned=False,
        checks=[unique("model"), finite("slope"), checks.more_is_better],
        metadata=metadata.concept_performance,
        resources={"path": "concepts.path", "source": "concepts.source", "count_by": "concepts.count_by"},
        signature=lambda _, path: content_digest(path) if path else None,
    )
    def concept_performance(work: Work, path: Path | None, source: str, count_by: str) -> pa.Table:
        """How zero-shot accuracy on a concept grows with the logarithm of its frequency, for each measured model.

        Fitted to the accuracies that ``concepts.measurements`` in data/dqe.yaml names; as it comes, that is an example
        with made-up numbers.
        """
        if path is not None:
            return plan.fit_accuracies(read_accuracies(path), source)
        return plan.fit_trained(trained_accuracies(work.read_unpartitioned(TRAINED_ASSET), count_by), source, work.log)

    return [concept_performance, concept_plan]


@stage(
    kinds={"parquet", "numpy"},
    code_version="1",
    schema=CONCEPT_PLAN,
    unpartitioned_inputs=["concept_frequency", "concept_performance"],
    partitioned=False,
    checks=[unique("model", "concept"), finite("predicted_accuracy"), checks.bill_adds_up],
    metadata=metadata.concept_plan,
    resources=_settings("count_by", "target_accuracy", "source"),
)
def concept_plan(work: Work, count_by: str, target_accuracy: float) -> pa.Table:
    """Every concept, the rarest first: the accuracy that its count predicts, and the samples missing for the target."""
    concepts, counts = _counts(work, count_by)
    models = [*plan.fitted_models(work.read_unpartitioned("concept_performance"))]
    return plan.concept_plan(models, concepts, counts, target_accuracy, count_by)


@stage(
    kinds={"parquet", "qdrant"},
    code_version="1",
    schema=RARE_CONCEPT_RETRIEVAL,
    inputs=["caption_collection", "reviews"],
    unpartitioned_inputs=["concept_frequency"],
    partitioned=False,
    checks=[unique("concept", "item", "place"), finite("score", -1, 1)],
    metadata=metadata.rare_concept_retrieval,
    pool=COLLECTION_POOL,
    resources=_settings("count_by", "candidates") | {"rarest_count": "concepts.rarest"},
)
def rare_concept_retrieval(  # noqa: PLR0917 - each is a resource or a setting
    work: Work,
    vectors: Vectors,
    scorer: Scorer,
    captions: CaptionSources,
    count_by: str,
    rarest_count: int,
    candidates: int,
) -> pa.Table:
    """For each of the rarest concepts, the samples of the collection whose image or caption is nearest to it.

    Those that people decided to drop are left out.
    """
    concepts = [name for name, _ in rarest(*_counts(work, count_by), rarest_count)]
    items = [IMAGE, *captions.names]
    queries = scorer.embed_texts([name.replace("_", " ") for name in concepts]).vectors
    gone = frozenset(checks.dropped_uids(work).to_pylist())
    looked_for = dict(zip(concepts, queries, strict=True))
    with vectors.open(collection_vectors(scorer, captions)) as collection:

        def search(concept: str, item: str, k: int) -> Iterable[tuple[str, float]]:
            return ((hit.uid, hit.score) for hit in collection.search(looked_for[concept], item, k))

        return rebalancing.rare_concept_retrieval(concepts, items, search, candidates, gone)


@stage(
    kinds={"parquet", "numpy"},
    code_version="1",
    schema=REBALANCED_SUBSET,
    inputs=["concept_hits", "reviews"],
    unpartitioned_inputs=["concept_frequency"],
    partitioned=False,
    checks=[unique("uid"), checks.samples_with_image_and_caption, checks.weights_within_cap],
    metadata=metadata.rebalanced_subset,
    resources=_settings("count_by", "temperature", "cap"),
)
def rebalanced_subset(
    work: Work, captions: CaptionSources, lists: ConceptLists, count_by: str, temperature: float, cap: float
) -> pa.Table:
    """How often to draw each sample that has an image and a caption, so that rare concepts are seen more often.

    A sample that a person decided to drop is not drawn. How rare a concept is, all samples say.
    """
    source = caption_source_of(count_by)
    uids, hits = corpus.usable_samples(corpus_hits(work, lists, captions), count_by, source, checks.dropped_uids(work))
    weights = rebalancing.rebalanced_weights(hits, _counts(work, count_by)[1], temperature, cap)
    return pa.table({"uid": uids, "weight": weights}, schema=REBALANCED_SUBSET)


@stage(
    kinds={"parquet", "numpy"},
    code_version="1",
    schema=CURRICULUM,
    inputs=["concept_hits", "caption_scores", "reviews"],
    unpartitioned_inputs=["concept_frequency"],
    partitioned=False,
    checks=[
        unique("uid"),
        finite("difficulty", 0, 1),
        checks.samples_with_image_and_caption,
        checks.ranks_are_an_order,
    ],
    metadata=metadata.curriculum,
    resources=_settings("count_by") | {"weights": "concepts.curriculum"},
)
def curriculum(
    work: Work, captions: CaptionSources, lists: ConceptLists, count_by: str, weights: CurriculumWeights
) -> pa.Table:
    """The samples that have an image and a caption, from easy to hard: by rarity, by misalignment and by length.

    One that a person decided to drop has no place.
    """
    source = caption_source_of(count_by)
    uids, hits = corpus.usable_samples(corpus_hits(work, lists, captions), count_by, source, checks.dropped_uids(work))
    scores = _scores(work, source, uids)
    order = rebalancing.curriculum(
        hits,
        _counts(work, count_by)[1],
        scores["similarity"].to_numpy(),
        scores["tokens"].to_numpy(),
        (weights.rarity, weights.misalignment, weights.length),
    )
    return pa.table({"uid": uids, "rank": order.rank, "difficulty": order.difficulty}, schema=CURRICULUM)


def _scores(work: Work, source: str, uids: pa.ChunkedArray) -> pa.Table:
    """The similarity and the tokens of these samples' captions, in their order, which is that of the shards."""
    wanted = ["uid", "caption_source", "similarity", "tokens"]
    found = [pa.schema([CAPTION_SCORES.field(name) for name in wanted]).empty_table()]
    for of_shard, table in zip(uids.chunks, work.scan("caption_scores", wanted), strict=True):
        scores = table.filter(pc.equal(table["caption_source"], source))
        found.append(scores.take(pc.index_in(of_shard, value_set=scores["uid"])))
    return pa.concat_tables(found)
