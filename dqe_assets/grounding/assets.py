"""Whether images bear out what their captions name."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.texts import shard_captions
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.checks import complete, finite, unique
from dqe_assets.core.metadata import PREVIEW_ROWS, Metadata, markdown_table, percentage, preview, value_counts
from dqe_assets.core.schema import IMAGE, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.core.stage import MODEL_POOL, Stage, stage
from dqe_assets.grounding.ground import Images, Vocabulary, ground
from dqe_assets.grounding.tables import GROUNDING
from dqe_assets.grounding.things import things
from dqe_assets.grounding.views import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.caption.settings import CaptionSources
    from dqe_assets.concepts.settings import ConceptLists
    from dqe_assets.core.work import Work
    from dqe_assets.grounding.settings import Grounding
    from dqe_resources.scorers.protocol import Scorer

ASSET = "grounding"


def grounding_of(caption_sources: Sequence[str]) -> Stage:
    """The asset ``grounding``, over these caption sources."""
    synthetic = [SYNTHETIC_CAPTIONS_PREFIX + name for name in caption_sources[1:]]

    @stage(
        name=ASSET,
        kinds={"parquet", "numpy"},
        relations=RELATIONS,
        code_version="1",
        schema=GROUNDING,
        inputs=["raw_samples", *synthetic, "joint_embeddings", "concept_hits"],
        resources={"lists": "concepts.lists", "rules": "grounding"},
        checks=[
            unique("uid", "caption_source"),
            complete(rows_each=len(caption_sources)),
            finite("precision", 0, 1),
            finite("recall", 0, 1),
        ],
        metadata=_metadata,
        pool=MODEL_POOL,
    )
    def grounding(
        work: Work, captions: CaptionSources, scorer: Scorer, lists: ConceptLists, rules: Grounding
    ) -> pa.Table:
        """Which things each caption names that its image shows, and which of the image's concepts it lacks.

        No image is looked at again: what it shows is known by its tags and by its vector in the scorer's space.
        """
        embeddings = work.read("joint_embeddings", ["uid", "item", "embedding"])
        images = embeddings.filter(pc.equal(embeddings["item"], IMAGE))
        rows, vectors = to_matrix(images["embedding"])
        hits = work.read("concept_hits", ["item", "concepts"])
        concepts = {
            item: hits.filter(pc.equal(hits["item"], item))["concepts"].to_pylist() for item in (IMAGE, *captions.names)
        }
        vocabulary = _vocabulary(scorer, lists.counting().concepts.names)
        seen, parts = Images(vectors, rows, concepts[IMAGE]), []
        for source, texts in work.track(shard_captions(work, captions).items(), len(captions.names)):
            found = things(texts.to_pylist(), nouns=rules.nouns)
            named = [some if there else None for some, there in zip(found, texts.is_valid().to_pylist(), strict=True)]
            parts.append(
                ground(images["uid"], source, named, concepts[source], seen, vocabulary=vocabulary, rules=rules)
            )
        return pa.concat_tables(parts)

    return grounding


@lru_cache(maxsize=2)
def _vocabulary(scorer: Scorer, concepts: tuple[str, ...]) -> Vocabulary:
    """The concepts in the scorer's space, embedded once for all shards of a run, as are the words of their captions."""
    return Vocabulary.of(concepts, lambda texts: scorer.embed_texts(list(texts)).vectors)


def _metadata(_: Work, table: pa.Table, captions: CaptionSources) -> Metadata:
    """How far the captions of each source are borne out, and what is named most often without being found."""
    rows, words = [], []
    for source in captions.names:
        part = table.filter(pc.equal(table["caption_source"], source))
        there = part.filter(pc.is_valid(part["entities"]))
        means = [pc.mean(there[name]).as_py() for name in ("precision", "recall", "f1")]
        rows.append([source, len(there), *means, percentage(there["flagged"])])
        found = value_counts(pc.list_flatten(there["ungrounded"]))
        words += [[source, word, count] for word, count in list(found.items())[:PREVIEW_ROWS]]
    flagged = table.filter(pc.fill_null(table["flagged"], fill_value=False))
    return {
        "grounding": markdown_table(["caption source", "captions", "precision", "recall", "f1", "ungrounded"], rows),
        "ungrounded_words": markdown_table(["caption source", "word", "captions"], words),
        "flagged": preview(flagged, ["caption_source", "entities", "ungrounded", "missing"]),
    }
