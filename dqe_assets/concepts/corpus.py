"""Counts the concepts that the captions and images of a shard show, and adds up all shards."""

from __future__ import annotations

import json
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

_SEEN = b"seen"


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


def numbered(shard: str, table: pa.Table, counting: Counting, sources: Sequence[str]) -> pa.Table:
    """The hits of a shard by the positions of concepts, which take a fraction of the time that their names take.

    Args:
        shard: its key, for errors.
        table: its ``CONCEPT_HITS``.
        counting: the concepts, and how they are counted.
        sources: the caption sources.

    Returns:
        uid, [n], and for the image and each source a column list<int32> of the positions of the concepts that each
        sample shows, null where there is no such image or caption. The schema's metadata says, for each source, which
        of the concepts' words its captions have.

    Raises:
        StaleHitsError: the shard was counted with other concepts, or in another way.
    """
    if set(pc.unique(table["counted_by"]).to_pylist()) - {counting.digest}:
        raise StaleHitsError(
            f"concept_hits, shard {shard}: counted with other concepts or settings than data/dqe.yaml has; "
            f"run: dqe materialize concept_hits --shard {shard}"
        )
    index = counting.index
    parts = {item: _of(table, item) for item in (IMAGE, *sources)}
    seen = {source: index.seen(_positions(parts[source]["words"], index.words)) for source in sources}
    columns = {item: _positions(part["concepts"], index.concepts) for item, part in parts.items()}
    packed = {source: np.packbits(mask).tobytes().hex() for source, mask in seen.items()}
    return pa.table({"uid": parts[IMAGE]["uid"], **columns}).replace_schema_metadata({_SEEN: json.dumps(packed)})


@dataclass(frozen=True, slots=True)
class ShardHits:
    """The concepts that the samples of a shard show, as they count in the whole corpus.

    Attributes:
        shard: the shard.
        uids: its samples, [n].
        hits: for the image and each caption source, positions of the concepts that each sample shows, list<int32> [n];
            null where there is no such image or caption.
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
        read: the shards, each with its hits as ``numbered`` gives them.
    """

    counting: Counting
    sources: Sequence[str]
    read: Callable[[], Iterable[tuple[str, pa.Table]]]

    @cached_property
    def seen(self) -> dict[str, Mask]:
        """For each caption source, which of the concepts' words its captions have.

        Raises:
            StaleHitsError: a shard was counted with other concepts, or in another way.
        """
        seen = {source: np.zeros(len(self._index.words), bool) for source in self.sources}
        for _, table in self.read():
            for source, here in self._seen_in(table).items():
                seen[source] |= here
        return seen

    def shards(self) -> Iterator[ShardHits]:
        """The shards, one at a time, with hits as they count in the whole corpus.

        Raises:
            StaleHitsError: as ``seen``.
        """
        size = len(self.counting.concepts.names)
        for shard, table in self.read():
            hits = {item: table[item].combine_chunks() for item in (IMAGE, *self.sources)}
            there = {item: lists.is_valid().to_numpy(zero_copy_only=False) for item, lists in hits.items()}
            provisional = {source: np.zeros(size, bool) for source in self.sources}
            # Otherwise what needs a word that the shard has not is not shown in it.
            if self.counting.absent_words == "ignore":
                for source, here in self._seen_in(table).items():
                    shown = tally(hits[source], size) > 0
                    provisional[source] = shown & ~self._index.settled(here, self.seen[source])
                    hits[source] = self._index.settle(hits[source], here, self.seen[source])
            yield ShardHits(shard, table["uid"], hits, there, provisional)

    def _seen_in(self, table: pa.Table) -> dict[str, Mask]:
        packed = json.loads(table.schema.metadata[_SEEN])
        size = len(self._index.words)
        return {
            source: np.unpackbits(np.frombuffer(bytes.fromhex(packed[source]), np.uint8), count=size).astype(bool)
            for source in self.sources
        }

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
    shards, found = [], []
    for shard in corpus.shards():
        for source in corpus.sources:
            one = misalignment_degree(shard.hits[source], shard.hits[IMAGE])
            found.append((one, shard.uids.take(pa.array(one.rows))))
            shards.append((shard.shard, source))
    columns = {
        "shard": [shard for shard, _ in shards],
        "caption_source": [source for _, source in shards],
        **{name: [getattr(one, name) for one, _ in found] for name in ("samples", "comparable", "misaligned")},
        "misaligned_uids": pa.ListArray.from_arrays(
            pa.array(np.cumsum([0, *(len(uids) for _, uids in found)]), pa.int32()),
            pa.chunked_array([chunk for _, uids in found for chunk in uids.chunks], pa.string()).combine_chunks(),
        ),
    }
    return pa.table(columns, MISALIGNMENT)


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
        Their uids, in a chunk for each shard, and the positions of the concepts that they show, list<int32>.

    Raises:
        StaleHitsError: a shard was counted with other concepts, or in another way.
    """
    uids, hits = [], []
    for shard in corpus.shards():
        is_dropped = pc.is_in(shard.uids, value_set=dropped).to_numpy()
        usable = pa.array(shard.there[IMAGE] & shard.there[source] & ~is_dropped)
        uids.append(shard.uids.filter(usable).combine_chunks())
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
    """Names as positions; null where there is no list."""
    array = lists.combine_chunks()
    positions = pc.index_in(array.flatten(), value_set=pa.array(names, pa.string()))
    lengths = array.value_lengths().fill_null(0)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, positions, mask=array.is_null())
