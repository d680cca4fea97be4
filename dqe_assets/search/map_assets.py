"""The map of the collection: what the samples are about, over all shards."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.checks import finite, unique
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_assets.core.stage import stage
from dqe_assets.core.work import Check, CheckResult, Work, facts_of, with_facts
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.search import metadata, topics
from dqe_assets.search.tables import COLLECTION_MAP
from dqe_assets.search.views import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIMILARITY = COLLECTION_MAP.field("similarity")


def _topics_numbered(_: Work, table: pa.Table) -> CheckResult:
    sizes = np.bincount(table["topic"].to_numpy())
    names = table.group_by(["topic", "topic_name"]).aggregate([]).num_rows
    passed = bool((sizes > 0).all() and (np.diff(sizes) <= 0).all() and names == len(sizes))
    return CheckResult(
        passed,
        f"{len(sizes)} topics with {names} names, {int((sizes == 0).sum())} empty",
        {"topics": len(sizes), "names": names},
    )


def _all_mapped(_: Work, table: pa.Table, samples: int) -> CheckResult:
    embedded = facts_of(table)["embedded"]
    expected = min(embedded, samples)
    return CheckResult(
        table.num_rows == expected,
        f"{table.num_rows:,} samples are on the map, {expected:,} of {embedded:,} with an image should be",
        {"mapped": table.num_rows, "expected": expected, "embedded": embedded},
    )


@stage(
    kinds={"parquet", "faiss"},
    relations=RELATIONS,
    code_version="2",
    schema=COLLECTION_MAP,
    resources={"samples": "map.samples", "topics_wanted": "map.topics"},
    inputs=["raw_samples", "joint_embeddings", "caption_scores"],
    partitioned=False,
    checks=[
        unique("uid"),
        finite("x"),
        finite("y"),
        Check("rows_complete", "Every sample with an image is on the map, or as many as are configured.", _all_mapped),
        Check("topics_numbered", "Topics are numbered by size, each has samples and one name.", _topics_numbered),
    ],
    metadata=metadata.collection_map,
)
def collection_map(work: Work, samples: int, topics_wanted: int | None) -> pa.Table:
    """A map of what the images show: a place and a topic for each sample, topics named by words of their captions.

    Made from the vectors of the images, whatever their captions claim, so that a caption that does not belong stands
    out. Of a large store a sample is mapped.
    """
    uids, vectors, embedded = _drawn(work, samples)
    table = topics.collection_map(_samples(work, uids), vectors, topics_wanted)
    return with_facts(table, {"embedded": embedded})


def _image_vectors(work: Work) -> Iterator[tuple[list[str], np.ndarray]]:
    for table in work.scan("joint_embeddings", ["uid", "item", "embedding"]):
        images = table.filter(pc.equal(table["item"], IMAGE))
        rows, vectors = to_matrix(images["embedding"])
        yield images["uid"].take(pa.array(rows)).to_pylist(), vectors


def _drawn(work: Work, most: int) -> tuple[list[str], np.ndarray, int]:
    """The configured number of samples with the lowest uids, sorted, their vectors, and how many have one in all.

    A shard is in memory at a time.
    """
    kept: list[tuple[str, np.ndarray]] = []
    embedded = 0
    for uids, vectors in _image_vectors(work):
        embedded += len(uids)
        kept = heapq.nsmallest(most, [*kept, *zip(uids, vectors, strict=True)], key=lambda pair: pair[0])
    if not kept:
        return [], np.empty((0, 2), np.float32), 0
    return [uid for uid, _ in kept], np.stack([vector for _, vector in kept]), embedded


def _samples(work: Work, uids: list[str]) -> pa.Table:
    """Uid, source, original caption and its similarity of these samples, in order."""
    wanted = pa.array(uids, pa.string())
    columns = ["uid", "source", "caption"]
    found = [RAW_SAMPLES.empty_table().select(columns).append_column(_SIMILARITY, pa.array([], _SIMILARITY.type))]
    scored = work.scan("caption_scores", ["uid", "caption_source", "similarity"])
    for raw, scores in zip(work.scan("raw_samples", columns), scored, strict=True):
        # Both have the samples in one order.
        original = scores.filter(pc.equal(scores["caption_source"], ORIGINAL))
        captions = normalise_captions(raw["caption"].combine_chunks())
        rows = raw.set_column(2, RAW_SAMPLES.field("caption"), captions)
        rows = rows.append_column(_SIMILARITY, original["similarity"])
        found.append(rows.filter(pc.is_in(rows["uid"], value_set=wanted)))
    samples = pa.concat_tables(found)
    return samples.take(pc.index_in(wanted, value_set=samples["uid"]))
