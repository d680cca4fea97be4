"""The collection, which makes the samples of a shard searchable."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from dqe_assets.caption.texts import shard_captions
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX, has_image
from dqe_assets.core.stage import COLLECTION_POOL, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.search import metadata
from dqe_assets.search.collection_points import collection_points
from dqe_assets.search.query import collection_vectors
from dqe_resources.vectors.protocol import VectorsBrokenError, VectorsMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dqe_assets.caption.settings import CaptionSources
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.store import Stamp
    from dqe_resources.vectors.protocol import Collection, Vectors


def _count_matches(work: Work, output: Manifest) -> CheckResult:
    expected = pc.sum(has_image(work.read("raw_samples", ["status"]))).as_py() or 0
    found = output.facts["counted"]
    return CheckResult(
        found == expected == output.rows,
        f"{expected:,} samples should be in the collection, {output.rows:,} points were written, {found:,} are there",
        {"expected": expected, "written": output.rows, "found": found},
    )


def _is_there(work: Work, stamp: Stamp, vectors: Vectors, scorer: Scorer, captions: CaptionSources) -> bool:
    try:
        there = vectors.contents(collection_vectors(scorer, captions))
    except (VectorsMismatchError, VectorsBrokenError):
        return False
    return there.identity == stamp.facts["collection"] and there.points.get(work.partition or "", 0) == stamp.rows


@contextmanager
def _opened(work: Work, vectors: Vectors, named: Mapping[str, int]) -> Iterator[Collection]:
    """The collection. If it is damaged or has other vectors, an empty one takes its place: all of it can be made again.

    The other shards are then no longer intact, so they are written again when they are next materialised.
    """
    with ExitStack() as stack:
        try:
            collection = stack.enter_context(vectors.open(named))
        except (VectorsMismatchError, VectorsBrokenError) as error:
            work.log(f"The collection starts empty, and its other shards have to be materialised again: {error}")
            vectors.recreate(named)
            collection = stack.enter_context(vectors.open(named))
        yield collection


def caption_collection_of(synthetic: Sequence[Stage]) -> Stage:
    """The asset ``caption_collection``, over the captions of these stages."""

    @stage(
        kinds={"qdrant"},
        code_version="3",
        inputs=["raw_samples", *(captions.name for captions in synthetic), "joint_embeddings", "caption_scores"],
        checks=[Check("count_matches", "The collection holds exactly the samples of the shard.", _count_matches)],
        metadata=metadata.caption_collection,
        pool=COLLECTION_POOL,
        is_valid=_is_there,
    )
    def caption_collection(work: Work, vectors: Vectors, scorer: Scorer, captions: CaptionSources) -> Manifest:
        """The Qdrant collection: a point for each sample with an image, its vectors named image and by caption source.

        Points are named by uid, so writing a shard again changes nothing, and what has left the shard is removed.
        """
        raw = work.read("raw_samples", ["uid", "source", "shard", "image_name", "url", "width", "height", "status"])
        flags = {name: work.read(SYNTHETIC_CAPTIONS_PREFIX + name, ["flags"])["flags"] for name in captions.captioners}
        points = collection_points(
            raw, shard_captions(work, captions), flags, work.read("joint_embeddings"), work.read("caption_scores")
        )
        with _opened(work, vectors, collection_vectors(scorer, captions)) as collection:
            written = collection.replace_shard(work.partition or "", points)
            counted = collection.count({"shard": work.partition or ""})
            facts = {"collection": collection.identity, "counted": counted}
            if (advice := vectors.advice(collection.count())) is not None:
                work.log(advice)
                facts["advice"] = advice
            return Manifest(written, facts)

    return caption_collection
