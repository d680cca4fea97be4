"""Counts the concepts that the captions and images of a shard show, and adds up all shards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.counting import ConceptHits, both, tally
from dqe_assets.concepts.lemmas import words_of
from dqe_assets.concepts.lists import as_lists, flat
from dqe_assets.concepts.misalignment import misalignment_degree
from dqe_assets.concepts.tables import CONCEPT_FREQUENCY, CONCEPT_HITS, MISALIGNMENT
from dqe_assets.core.schema import IMAGE
from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.concepts.counting import ConceptIndex
    from dqe_assets.concepts.settings import Counting

    Mask = NDArray[np.bool_]


class StaleHitsError(DataQualityError):
    """The hits of a shard were counted with other concepts, or in another way."""


def shard_hits(
    uids: pa.ChunkedArray,
    captions: Mapping[str, pa.Array | pa.ChunkedArray],
    images: pa.ListArray,
    image_rows: NDArray[np.int64],
    counting: Counting,
) -> pa.Table:
    """The concepts that the samples of a shard show, as ``CONCEPT_HITS``: by image first, then by caption source.

    Args:
        uids: the samples, [n].
        captions: their captions by source, each [n]; null if there is none.
        images: positions of the concepts that each image shows, list<int32> [m].
        image_rows: int64 [m], the samples that have an image, ascending.
        counting: the concepts, and how they are counted.
    """
    index, total = counting.index, len(uids)
    places, values = flat(images)
    pictured = np.zeros(total, bool)
    pictured[image_rows] = True
    hits = {IMAGE: ConceptHits(as_lists(image_rows[places], values, total), pa.nulls(total, pa.list_(pa.int32())))}
    there = {IMAGE: pictured}
    for source, texts in captions.items():
        hits[source] = index.hits(texts)
        there[source] = texts.is_valid().to_numpy(zero_copy_only=False)
    return pa.concat_tables(
        pa.table(
            {
                "uid": uids,
                "item": pa.repeat(item, total),
                "concepts": _named(found.concepts, index.concepts, there[item]),
                "words": _named(found.words, index.words, there[item] & (item != IMAGE)),
                "counted_by": pa.repeat(counting.digest, total),
            },
            schema=CONCEPT_HITS,
        )
        for item, found in hits.items()
    )


@dataclass(frozen=True, slots=True)
class ShardHits:
    """The concepts that the samples of a shard show, as they count in the whole corpus.

    Attributes:
        shard: the shard.
        uids: its samples, [n].
        hits: for the image and each caption source, positions of the concepts that each sample shows, list<int32> [n].
        there: which samples have such an image or caption, bool [n] each.
        provisional: for each caption source, the concepts whose hits in the shard do not count, bool each.
    """

    shard: str
    uids: pa.ChunkedArray
    hits: Mapping[str, pa.ListArray]
    there: Mapping[str, Mask]
    provisional: Mapping[str, Mask]


@dataclass(frozen=True)
class CorpusHits:
    """What the samples of all shards show.

    Attributes:
        counting: the concepts, and how they are counted.
        sources: the caption sources.
        read: the shards, each with these columns of its ``CONCEPT_HITS``.
    """

    counting: Counting
    sources: Sequence[str]
    read: Callable[[Sequence[str]], Iterable[tuple[str, pa.Table]]]

    @cached_property
    def seen(self) -> dict[str, Mask]:
        """For each caption source, which of the concepts' words its captions have.

        Raises:
            StaleHitsError: a shard was counted with other concepts, or in another way.
        """
        index = self._index
        seen = {source: np.zeros(len(index.words), bool) for source in self.sources}
        for shard, table in self.read(["item", "words", "counted_by"]):
            if set(pc.unique(table["counted_by"]).to_pylist()) - {self.counting.digest}:
                raise StaleHitsError(
                    f"concept_hits, shard {shard}: counted with other concepts or settings than data/dqe.yaml has; "
                    f"run: dqe materialize concept_hits --shard {shard}"
                )
            for source in self.sources:
                seen[source] |= index.seen(_positions(_of(table, source)["words"], index.words))
        return seen

    def shards(self) -> Iterator[ShardHits]:
        """The shards, one at a time, with hits as they count in the whole corpus.

        Raises:
            StaleHitsError: as ``seen``.
        """
        index, seen = self._index, self.seen
        for shard, table in self.read(["uid", "item", "concepts", "words"]):
            parts = {item: _of(table, item) for item in (IMAGE, *self.sources)}
            hits = {item: _positions(part["concepts"], index.concepts) for item, part in parts.items()}
            provisional = {}
            for source in self.sources:
                here = index.seen(_positions(parts[source]["words"], index.words))
                shown = tally(hits[source], len(index.concepts)) > 0
                provisional[source] = shown & ~index.settled(here, seen[source])
                hits[source] = index.settle(hits[source], here, seen[source])
            there = {item: part["concepts"].is_valid().to_numpy() for item, part in parts.items()}
            yield ShardHits(shard, parts[IMAGE]["uid"], hits, there, provisional)

    @property
    def _index(self) -> ConceptIndex:
        return self.counting.index


def concept_frequency(corpus: CorpusHits) -> pa.Table:
    """How many samples show each concept, as ``CONCEPT_FREQUENCY``: by caption source, and last by image.

    Raises:
        StaleHitsError: a shard was counted with other concepts, or in another way.
    """
    counting = corpus.counting
    size, items = len(counting.concepts.names), (*corpus.sources, IMAGE)
    samples = {item: np.zeros(size, np.int64) for item in items}
    agreed = {source: np.zeros(size, np.int64) for source in corpus.sources}
    searched = dict.fromkeys(items, 0)
    provisional: dict[tuple[str, int], list[str]] = {}
    for shard in corpus.shards():
        for item, hits in shard.hits.items():
            samples[item] += tally(hits, size)
            searched[item] += int(shard.there[item].sum())
        for source in corpus.sources:
            agreed[source] += tally(both(shard.hits[source], shard.hits[IMAGE]), size)
            for position in np.flatnonzero(shard.provisional[source]).tolist():
                provisional.setdefault((source, position), []).append(shard.shard)
    needed = [words_of(name, counting.method) for name in counting.concepts.names]
    tables = []
    for item in items:
        absent = set(np.array(counting.index.words)[~corpus.seen[item]].tolist()) if item in agreed else None
        columns = {
            "concept": pa.array(counting.concepts.names, pa.string()),
            "tasks": pa.array(counting.concepts.tasks, pa.list_(pa.string())),
            "position": pa.array(np.arange(size), pa.int32()),
            "item": pa.repeat(item, size),
            "samples": samples[item],
            "agreed": pa.array(agreed[item]) if item in agreed else pa.nulls(size, pa.int64()),
            "searched": pa.repeat(pa.scalar(searched[item], pa.int64()), size),
            "rank": pc.rank(pa.array(samples[item]), sort_keys="descending", tiebreaker="min").cast(pa.int32()),
            "absent_words": pa.array(
                [None if absent is None else [word for word in words if word in absent] for words in needed],
                pa.list_(pa.string()),
            ),
            "provisional_shards": pa.array(
                [provisional.get((item, position), []) for position in range(size)], pa.list_(pa.string())
            ),
        }
        tables.append(pa.table(columns, schema=CONCEPT_FREQUENCY))
    return pa.concat_tables(tables)


def frequencies(table: pa.Table, items: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The samples that show each concept, in the order of the vocabulary, by item.

    Args:
        table: item and samples of ``CONCEPT_FREQUENCY``.
        items: ``image`` and caption sources.
    """
    return {item: _of(table, item)["samples"].to_numpy() for item in items}


def misalignment(corpus: CorpusHits) -> pa.Table:
    """For each shard and caption source, the samples whose caption and image have no concept in common.

    Returns:
        ``MISALIGNMENT``.

    Raises:
        StaleHitsError: a shard was counted with other concepts, or in another way.
    """
    rows = []
    for shard in corpus.shards():
        for source in corpus.sources:
            found = misalignment_degree(shard.hits[source], shard.hits[IMAGE])
            rows.append(
                {
                    "shard": shard.shard,
                    "caption_source": source,
                    "samples": found.samples,
                    "comparable": found.comparable,
                    "misaligned": found.misaligned,
                    "misaligned_uids": shard.uids.take(pa.array(found.rows)).to_pylist(),
                }
            )
    return pa.Table.from_pylist(rows, MISALIGNMENT)


def usable_samples(
    corpus: CorpusHits, item: str, source: str, dropped: pa.Array
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The samples that have an image and a caption of a source, and that nobody decided to drop.

    Args:
        corpus: all samples.
        item: whose hits are wanted: ``image``, or a caption source.
        source: the caption source.
        dropped: uids of the samples that people decided to drop.

    Returns:
        Their uids, and the positions of the concepts that they show, list<int32>.

    Raises:
        StaleHitsError: a shard was counted with other concepts, or in another way.
    """
    uids, hits = [], []
    for shard in corpus.shards():
        is_dropped = pc.is_in(shard.uids, value_set=dropped).to_numpy()
        usable = pa.array(shard.there[IMAGE] & shard.there[source] & ~is_dropped)
        uids += shard.uids.filter(usable).chunks
        hits.append(shard.hits[item].filter(usable))
    return pa.chunked_array(uids, pa.string()), pa.chunked_array(hits, pa.list_(pa.int32()))


def _of(table: pa.Table, item: str) -> pa.Table:
    return table.filter(pc.equal(table["item"], item))


def _named(lists: pa.ListArray, names: Sequence[str], there: Mask) -> pa.ListArray:
    """Positions as names; null if there is nothing."""
    rows, values = flat(lists)
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=len(lists)), out=offsets[1:])
    named = pa.array(names, pa.string()).take(pa.array(values))
    return pa.ListArray.from_arrays(pa.array(offsets), named, mask=pa.array(~there))


def _positions(lists: pa.ChunkedArray, names: Sequence[str]) -> pa.ListArray:
    """Names as positions; a null list has none."""
    array = lists.combine_chunks()
    positions = pc.index_in(array.flatten(), value_set=pa.array(names, pa.string()))
    lengths = array.value_lengths().fill_null(0)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, positions)
