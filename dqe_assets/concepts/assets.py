"""What the data teaches and what it hardly shows: how often each concept is seen, and what follows from that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts import checks, corpus, metadata, plan
from dqe_assets.concepts import rebalancing as acting
from dqe_assets.concepts.accuracies import content_digest, read_accuracies
from dqe_assets.concepts.tables import CONCEPT_FREQUENCY, CONCEPT_PERFORMANCE, CURRICULUM, REBALANCED_SUBSET
from dqe_assets.concepts.tagging import tag_images
from dqe_assets.concepts.tail import rarest
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.schema import IMAGE
from dqe_assets.core.stage import COLLECTION_POOL, MODEL_POOL, Stage, stage
from dqe_assets.score.tables import CAPTION_SCORES
from dqe_assets.search.query import collection_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dqe_assets.core.work import Work
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.taggers.protocol import Tagger
    from dqe_resources.vectors.protocol import Vectors


def _signature(*keys: str) -> Callable[[Work], Any]:
    """What decides the counts, and these settings."""

    def signature(work: Work) -> Any:
        settings = work.settings.concepts
        return [settings.counting_signature(), work.settings.caption_sources, settings.model_dump(include={*keys})]

    return signature


def _corpus(work: Work) -> corpus.CorpusHits:
    """What the samples of all shards show."""

    def read(columns: Sequence[str]) -> Iterable[tuple[str, pa.Table]]:
        return zip(work.shards, work.scan("concept_hits", columns), strict=True)

    return corpus.CorpusHits(work.settings.concepts.counting(), work.settings.caption_sources, read)


def _counts(work: Work) -> tuple[list[str], np.ndarray]:
    """The concepts, and the samples that show each, in what the settings count by."""
    columns = ["concept", "item", "samples"]
    table = work.store.read("concept_frequency", None, CONCEPT_FREQUENCY, columns)
    counted = table.filter(pc.equal(table["item"], work.settings.concepts.count_by))
    return counted["concept"].to_pylist(), counted["samples"].to_numpy()


def concept_hits_of(caption_sources: Sequence[str], synthetic: Sequence[Stage], tagger: Tagger) -> Stage:
    """The asset ``concept_hits``, over the images and these caption sources."""

    @stage(
        group="concepts",
        kinds={"parquet", "numpy"},
        code_version="1",
        inputs=dict.fromkeys(("raw_samples", tagger.asset, *(captions.name for captions in synthetic))),
        checks=[
            unique("uid", "item"),
            complete(rows_each=len(caption_sources) + 1),
            checks.every_image_tagged,
            checks.known_concepts,
        ],
        metadata=metadata.concept_hits,
        pool=MODEL_POOL,
        signature=_signature("threshold"),
    )
    def concept_hits(work: Work, tagger: Tagger) -> pa.Table:
        """The concepts that each sample shows: in its image, and in its caption from each source.

        A caption shows a concept when it has all of the concept's words, by their lemmas; an image, when the tagger
        gives the concept a probability above the threshold.
        """
        settings = work.settings.concepts
        counting = settings.counting()
        raw = work.read("raw_samples", ["uid", "status"])
        rows = np.flatnonzero(pc.equal(raw["status"], "ok").to_numpy())
        samples = work.read(tagger.asset).take(pa.array(rows))
        tags = tag_images(tagger, samples, counting.concepts.names, settings.threshold)["concepts"].combine_chunks()
        return corpus.shard_hits(raw["uid"], work.captions(), tags, rows, counting)

    return concept_hits


@stage(
    group="concepts",
    kinds={"parquet", "numpy"},
    code_version="1",
    inputs=["concept_hits"],
    partitioned=False,
    checks=[unique("concept", "item"), checks.every_concept, checks.counts_add_up],
    metadata=metadata.concept_frequency,
    signature=_signature(),
)
def concept_frequency(work: Work) -> pa.Table:
    """How many samples show each concept: in the caption of each source, in the image, and in both."""
    return corpus.concept_frequency(_corpus(work))


@stage(
    group="concepts",
    kinds={"parquet", "numpy"},
    code_version="1",
    inputs=["concept_hits"],
    partitioned=False,
    checks=[unique("shard", "caption_source"), checks.misaligned_are_listed],
    metadata=metadata.misalignment,
    signature=_signature(),
)
def misalignment(work: Work) -> pa.Table:
    """By shard and caption source, the samples whose caption and image show concepts, but none in common."""
    return corpus.misalignment(_corpus(work))


@stage(
    group="concepts",
    kinds={"parquet", "numpy", "scipy"},
    code_version="1",
    partitioned=False,
    checks=[unique("model"), finite("slope"), checks.more_is_better],
    metadata=metadata.concept_performance,
    signature=lambda work: [work.settings.concepts.measurements, content_digest(work.settings.concepts.path)],
)
def concept_performance(work: Work) -> pa.Table:
    """How zero-shot accuracy on a concept grows with the logarithm of its frequency, for each measured model.

    Fitted to the accuracies that ``concepts.measurements`` in data/dqe.yaml names; as it comes, that is an example with
    made-up numbers.
    """
    return plan.fit_accuracies(read_accuracies(work.settings.concepts.path), work.settings.concepts.source)


@stage(
    group="concepts",
    kinds={"parquet", "numpy"},
    code_version="1",
    corpus_inputs=["concept_frequency", "concept_performance"],
    partitioned=False,
    checks=[unique("model", "concept"), finite("predicted_accuracy"), checks.bill_adds_up],
    metadata=metadata.concept_plan,
    signature=_signature("count_by", "target_accuracy"),
)
def concept_plan(work: Work) -> pa.Table:
    """Every concept, the rarest first: the accuracy that its count predicts, and the samples missing for the target."""
    settings = work.settings.concepts
    concepts, counts = _counts(work)
    models = [*plan.fitted_models(work.store.read("concept_performance", None, CONCEPT_PERFORMANCE))]
    return plan.concept_plan(models, concepts, counts, settings.target_accuracy, settings.count_by)


@stage(
    group="concepts",
    kinds={"parquet", "qdrant"},
    code_version="1",
    inputs=["caption_collection"],
    corpus_inputs=["concept_frequency"],
    partitioned=False,
    checks=[unique("concept", "item", "place"), finite("score", -1, 1)],
    metadata=metadata.rare_concept_retrieval,
    pool=COLLECTION_POOL,
    signature=_signature("count_by", "rarest", "candidates"),
)
def rare_concept_retrieval(work: Work, vectors: Vectors, scorer: Scorer) -> pa.Table:
    """For each of the rarest concepts, the samples of the collection whose image or caption is nearest to it."""
    settings = work.settings.concepts
    concepts = [name for name, _ in rarest(*_counts(work), settings.rarest)]
    items = [IMAGE, *work.settings.caption_sources]
    queries = scorer.embed_texts([name.replace("_", " ") for name in concepts]).vectors
    looked_for = dict(zip(concepts, queries, strict=True))
    with vectors.open(collection_vectors(work.settings)) as collection:

        def search(concept: str, item: str, k: int) -> Iterable[tuple[str, float]]:
            return ((hit.uid, hit.score) for hit in collection.search(looked_for[concept], item, k))

        return acting.rare_concept_retrieval(concepts, items, search, settings.candidates)


@stage(
    group="concepts",
    kinds={"parquet", "numpy"},
    code_version="1",
    inputs=["concept_hits"],
    corpus_inputs=["concept_frequency"],
    partitioned=False,
    checks=[unique("uid"), checks.samples_with_image_and_caption, checks.weights_within_cap],
    metadata=metadata.rebalanced_subset,
    signature=_signature("count_by", "temperature", "cap"),
)
def rebalanced_subset(work: Work) -> pa.Table:
    """How often to draw each sample that has an image and a caption, so that rare concepts are seen more often."""
    settings = work.settings.concepts
    uids, hits = corpus.usable_samples(_corpus(work), settings.count_by, settings.caption_source)
    weights = acting.rebalanced_weights(hits, _counts(work)[1], settings.temperature, settings.cap)
    return pa.table({"uid": uids, "weight": weights}, schema=REBALANCED_SUBSET)


@stage(
    group="concepts",
    kinds={"parquet", "numpy"},
    code_version="1",
    inputs=["concept_hits", "caption_scores"],
    corpus_inputs=["concept_frequency"],
    partitioned=False,
    checks=[
        unique("uid"),
        finite("difficulty", 0, 1),
        checks.samples_with_image_and_caption,
        checks.ranks_are_an_order,
    ],
    metadata=metadata.curriculum,
    signature=_signature("count_by", "curriculum"),
)
def curriculum(work: Work) -> pa.Table:
    """The samples that have an image and a caption, from easy to hard: by rarity, by misalignment and by length."""
    settings = work.settings.concepts
    uids, hits = corpus.usable_samples(_corpus(work), settings.count_by, settings.caption_source)
    scores = _scores(work, settings.caption_source, uids)
    order = acting.curriculum(
        hits,
        _counts(work)[1],
        scores["similarity"].to_numpy(),
        scores["tokens"].to_numpy(),
        (settings.curriculum.rarity, settings.curriculum.misalignment, settings.curriculum.length),
    )
    return pa.table({"uid": uids, "rank": order.rank, "difficulty": order.difficulty}, schema=CURRICULUM)


def _scores(work: Work, source: str, uids: pa.ChunkedArray) -> pa.Table:
    """The similarity and the tokens of these samples' captions, in their order."""
    wanted = ["uid", "caption_source", "similarity", "tokens"]
    tables = [pa.schema([CAPTION_SCORES.field(name) for name in wanted]).empty_table()]
    tables += [table.filter(pc.equal(table["caption_source"], source)) for table in work.scan("caption_scores", wanted)]
    scores = pa.concat_tables(tables)
    return scores.take(pc.index_in(uids, value_set=scores["uid"]))
