"""Our own store as a pool: its samples under DataComp's column names, and all else that is known of them under ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.compression.tables import CODE_CLUSTERS
from dqe_assets.concepts.lists import as_lists
from dqe_assets.concepts.tables import CONCEPT_FREQUENCY, CONCEPT_HITS
from dqe_assets.contamination.tables import CONTAMINATION, KINDS
from dqe_assets.core.schema import EMBEDDING, IMAGE, ORIGINAL, has_image
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.filtering.english import english
from dqe_assets.filtering.pool import BATCH_ROWS, HEIGHT, TEXT, WIDTH, InputFile, PoolError, numbers
from dqe_assets.filtering.subset import UID_TYPE, contains, format_uids, order_of, parse_uids, places_of
from dqe_assets.improve.tables import BEST_CAPTIONS
from dqe_assets.ingest.outcomes import host_of
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.reviews.tables import DROP, REVIEWS
from dqe_assets.rights.tables import PREFIX, RIGHTS
from dqe_assets.score.tables import CAPTION_SCORES, JOINT_EMBEDDINGS, MASKED_SIMILARITY, TEXT_QUALITY
from dqe_resources.store import UNPARTITIONED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from dqe_assets.core.signals import Signal
    from dqe_assets.filtering.english import Detector
    from dqe_assets.filtering.kept_languages import KeptLanguages
    from dqe_resources.store import Store

STORE = "store"
"""How our own store is called where pools are named."""

_CORPUS_ASSETS = ("duplicate_clusters", "concept_frequency")

TABLES = {
    "raw_samples": RAW_SAMPLES,
    "image_features": IMAGE_FEATURES,
    "joint_embeddings": JOINT_EMBEDDINGS,
    "caption_scores": CAPTION_SCORES,
    "masked_similarity": MASKED_SIMILARITY,
    "best_captions": BEST_CAPTIONS,
    "code_clusters": CODE_CLUSTERS,
    "concept_hits": CONCEPT_HITS,
    "text_quality": TEXT_QUALITY,
    "contamination": CONTAMINATION,
    "rights": RIGHTS,
    "reviews": REVIEWS,
}
"""The per-shard tables that columns come from."""

CLUSTER_KINDS = ("exact", "perceptual", "semantic", "any")


@dataclass(frozen=True)
class StorePool:
    """The samples of the store that have an image and that nobody has decided to drop; a part is a shard.

    ``text`` is the caption as found, as in DataComp's metadata, and ``original_width`` and ``original_height`` are of
    the upright image. Every column of the warehouse's table ``samples`` is there under its name; ``similarity``,
    ``tokens`` and ``truncated`` are of the original caption, by the store's scorer, as is ``masked_similarity``, with
    the text in the image painted over; signals have their own names; ``is_representative_<kind>`` says of a sample in a
    duplicate cluster whether it is the one to keep; ``image_embedding`` and ``text_embedding`` are in the scorer's
    joint space, ``<name>_img`` and ``<name>_txt`` in that of another scorer, and ``image_features`` are the backbone's.
    CLIP's scores are there if CLIP is among the scorers; what else DataComp has and the store has not is refused with
    what to take instead. Only what is asked for is read.

    Attributes:
        store: the store.
        shards: the shards to take, in order.
        name: what to call the pool.
        signals: the signals that there are, by name, and the columns of other scorers.
        with_dropped: whether the samples are in it too that people decided to drop.
        languages: what is kept of the captions' languages; None if filters are to ask for them.
    """

    store: Store
    shards: tuple[str, ...]
    name: str = STORE
    signals: Mapping[str, Signal] = field(default_factory=dict)
    with_dropped: bool = False
    languages: KeptLanguages | None = None

    @cached_property
    def parts(self) -> list[StoreShard]:
        """The shards. Of each is kept which of its rows are in the pool, once that is known: a byte for eight."""
        return [StoreShard(self, shard) for shard in self.shards]

    @property
    def dropped(self) -> int:
        """How many samples with an image are not in the pool, as people decided to drop them."""
        return 0 if self.with_dropped else sum(part.dropped for part in self.parts)

    @cached_property
    def clusters(self) -> dict[str, tuple[NDArray[np.void], dict[str, NDArray[Any]]]]:
        """The duplicate clusters over all shards, by kind: the uids in one, sorted, and what else is asked of each.

        That is the cluster, ``UID_TYPE`` [n], and whether the sample is the one to keep, bool [n].
        """
        columns = ["uid", "kind", "cluster", "is_representative"]
        table = self.store.read("duplicate_clusters", None, DUPLICATE_CLUSTERS, columns)
        found = {}
        for kind in CLUSTER_KINDS:
            of_kind = table.filter(pc.equal(table["kind"], kind))
            uids = parse_uids(of_kind["uid"])
            order = order_of(uids)
            cluster, is_representative = parse_uids(of_kind["cluster"]), of_kind["is_representative"].to_numpy()
            found[kind] = uids[order], {"cluster": cluster[order], "is_representative": is_representative[order]}
        return found

    @cached_property
    def provisional(self) -> pa.Table:
        """Which concepts of which items do not count in which shards: item, concept, shards."""
        columns = ["concept", "item", "provisional_shards"]
        table = self.store.read("concept_frequency", None, CONCEPT_FREQUENCY, columns)
        return table.filter(pc.greater(pc.list_value_length(table["provisional_shards"]), 0))


def dropped(store: Store, shard: str, rows: int) -> pa.Array:
    """Which rows of a shard people decided to drop: bool [rows], without nulls; none where nothing was decided yet."""
    if store.get("reviews", shard) is None:
        return pa.array(np.zeros(rows, bool))
    said = store.read("reviews", shard, REVIEWS, ["review"])["review"]
    return pc.fill_null(pc.equal(said, DROP), fill_value=False).combine_chunks()


def inputs_of(columns: Iterable[str], signals: Mapping[str, Signal]) -> tuple[list[str], list[str]]:
    """The assets that columns of the store are read from: those of each shard, and those over all shards.

    A column that the store has not is left out.
    """
    names = list(columns)
    assets = {asset for name in names if name in _SOURCES for asset in _SOURCES[name].assets}
    assets |= {signals[name].asset for name in names if name in signals}
    # Clusters of codes are stored by shard, but made over all shards at once.
    over_all = assets & {*_CORPUS_ASSETS, "code_clusters"}
    return sorted(assets - over_all), sorted(over_all)


def scores_of(pool: StorePool, subsets: Mapping[str, NDArray[np.void]]) -> dict[str, NDArray[np.float32]]:
    """The similarity of the original captions of all samples, first, and of subsets: float32 [n] by name.

    Args:
        pool: the store.
        subsets: uids "u8,u8" [n], sorted, by the subset's name.
    """
    wanted = {"all": None, **subsets}
    found: dict[str, list[NDArray[np.float32]]] = {name: [np.empty(0, np.float32)] for name in wanted}
    for part in pool.parts:
        for batch in part.batches(("uid", "similarity")):
            uids = parse_uids(batch.column("uid"))
            similarity = numbers(batch.column("similarity")).astype(np.float32)
            for name, kept in wanted.items():
                found[name].append(similarity if kept is None else similarity[contains(kept, uids)])
    return {name: np.concatenate(parts) for name, parts in found.items()}


@dataclass(frozen=True)
class StoreShard:
    """One shard of the store: see ``StorePool``."""

    pool: StorePool
    name: str

    @cached_property
    def is_in(self) -> pa.Array:
        """Which rows of the shard are in the pool, bool [rows of raw_samples], without nulls."""
        if self.pool.with_dropped:
            return self._has_image
        return pc.and_(self._has_image, pc.invert(dropped(self.pool.store, self.name, len(self._has_image))))

    @property
    def dropped(self) -> int:
        """How many of its samples with an image people decided to drop."""
        return pc.and_(self._has_image, dropped(self.pool.store, self.name, len(self._has_image))).true_count

    @cached_property
    def _has_image(self) -> pa.Array:
        return has_image(self.table("raw_samples", ["status"])).combine_chunks()

    @property
    def rows(self) -> int:
        """Samples that are in the pool."""
        return self.is_in.true_count

    def table(self, asset: str, columns: Sequence[str]) -> pa.Table:
        """The shard's columns of a stage, for all rows."""
        schemas = TABLES | {signal.asset: signal.schema for signal in self.pool.signals.values()}
        return self.pool.store.read(asset, self.name, schemas[asset], columns)

    def batches(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The columns, for the samples that are in the pool; with the text, whether it is English, where that is kept.

        Raises:
            PoolError: the store has no such column.
        """
        sources = {name: self._source(name) for name in columns}
        tables = _Tables(self, sources.values())
        found = {name: pc.filter(source.values(tables), self.is_in) for name, source in sources.items()}
        if TEXT in found and (languages := self.pool.languages):
            for detector in languages.detectors:
                found[detector.column] = pc.filter(self._english(languages, detector), self.is_in)
        yield from pa.table(found).to_batches(max_chunksize=batch_rows)

    def _english(self, languages: KeptLanguages, detector: Detector) -> pa.Array:
        """Whether each row has an image and an English caption."""

        def ask() -> NDArray[np.bool_]:
            captions = pa.table({TEXT: self.table("raw_samples", ["caption"])["caption"]})
            return english(captions, detector, self._has_image.to_numpy(zero_copy_only=False))

        return pa.array(languages.english(self.name, detector, len(self._has_image), ask))

    def files(self, columns: Sequence[str]) -> list[InputFile]:
        """The partitions that the columns are read from, each with the fingerprint of all that went into it."""
        assets = {"raw_samples", "reviews", *(asset for name in columns for asset in self._source(name).assets)}
        # Assets over all shards are named once, with the first shard.
        over_all = assets & set(_CORPUS_ASSETS) if self.name == self.pool.shards[0] else set()
        keys = [(asset, self.name) for asset in assets - set(_CORPUS_ASSETS)] + [(asset, None) for asset in over_all]
        stored = [self.pool.store.get(asset, partition) for asset, partition in sorted(keys)]
        return [
            InputFile(f"{one.asset}/{one.partition or UNPARTITIONED}", one.bytes, f"fingerprint:{one.stamp.identity}")
            for one in stored
            if one is not None
        ]

    def _source(self, name: str) -> _Source:
        if name in _SOURCES:
            return _SOURCES[name]
        if name in self.pool.signals:
            signal = self.pool.signals[name]
            if signal.item is not None:
                return _of_item(signal.asset, signal.column, signal.type, signal.item)
            return _column(signal.asset, signal.column, signal.type)
        raise PoolError(f"the store has no column {name} (shard {self.name}): {what_instead(name, self.pool.signals)}")


class _Tables:
    """The tables of a shard; what several columns come from is read once.

    Args:
        shard: the shard.
        sources: where the columns come from.
    """

    def __init__(self, shard: StoreShard, sources: Iterable[_Source]) -> None:
        self.shard = shard
        self._wanted: dict[str, dict[str, None]] = {}
        for source in sources:
            self._wanted.setdefault(source.read_of, {}).update(dict.fromkeys(source.columns))
        self._read: dict[str, pa.Table] = {}
        self._places: dict[str, NDArray[np.int64]] = {}

    def table(self, asset: str, columns: Sequence[str]) -> pa.Table:
        """As ``StoreShard.table``."""
        wanted = self._wanted.get(asset, {})
        if not wanted.keys() >= set(columns):
            return self.shard.table(asset, columns)
        if asset not in self._read:
            self._read[asset] = self.shard.table(asset, list(wanted))
        return self._read[asset].select(columns)

    def places_in_clusters(self, kind: str) -> NDArray[np.int64]:
        """Where each row's uid stands in the pool's clusters of a kind, -1 if it is in none: [n]."""
        if kind not in self._places:
            uids = parse_uids(self.table("raw_samples", ["uid"])["uid"])
            self._places[kind] = places_of(self.shard.pool.clusters[kind][0], uids)
        return self._places[kind]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a column comes from: the asset, its type, and how its values are found for all rows of a shard.

    ``columns`` are those that are read for it, of the asset or of ``other``; ``over_all`` is an asset over all shards
    that is read with it.
    """

    asset: str
    type: pa.DataType
    values: Callable[[_Tables], pa.Array | pa.ChunkedArray]
    columns: tuple[str, ...]
    other: str | None = None
    over_all: str | None = None

    @property
    def assets(self) -> tuple[str, ...]:
        return (self.asset, self.over_all) if self.over_all else (self.asset,)

    @property
    def read_of(self) -> str:
        return self.other or self.asset


def _column(asset: str, column: str, data_type: pa.DataType) -> _Source:
    """A column as a stage has it."""
    return _Source(asset, data_type, lambda tables: tables.table(asset, [column])[column], (column,))


def _plain(asset: str, names: str, **renamed: str) -> dict[str, _Source]:
    """Columns that a stage has, by their own names and by others."""
    columns = {**{name: name for name in names.split()}, **renamed}
    return {name: _column(asset, column, TABLES[asset].field(column).type) for name, column in columns.items()}


def _original(column: str, asset: str = "caption_scores") -> _Source:
    """A column of what is known of the original captions, such as their scores."""

    def values(tables: _Tables) -> pa.ChunkedArray:
        table = tables.table(asset, ["caption_source", column])
        return table.filter(pc.equal(table["caption_source"], ORIGINAL))[column]

    return _Source(asset, TABLES[asset].field(column).type, values, ("caption_source", column))


def _concepts(item: str) -> _Source:
    """The concepts that the image, or the caption of a source, shows, as they count in the whole corpus."""

    def values(tables: _Tables) -> pa.Array:
        table = tables.table("concept_hits", ["item", "concepts"])
        lists = table.filter(pc.equal(table["item"], item))["concepts"].combine_chunks()
        unsettled = [
            row["concept"]
            for row in tables.shard.pool.provisional.to_pylist()
            if row["item"] == item and tables.shard.name in row["provisional_shards"]
        ]
        if not unsettled:
            return lists
        names = pc.list_flatten(lists)
        kept = pc.invert(pc.is_in(names, value_set=pa.array(unsettled, pa.string())))
        rows = pc.list_parent_indices(lists).filter(kept).to_numpy().astype(np.int64)
        places = as_lists(rows, np.flatnonzero(kept.to_numpy(zero_copy_only=False)), len(lists))
        return pa.ListArray.from_arrays(places.offsets, names.take(places.values))

    return _Source("concept_hits", pa.list_(pa.string()), values, ("item", "concepts"), over_all="concept_frequency")


def _cluster(column: str, kind: str) -> _Source:
    """A column of the duplicate cluster of a kind that each sample is in; null if it is alone."""

    def values(tables: _Tables) -> pa.Array:
        places = tables.places_in_clusters(kind)
        rows = np.flatnonzero(places >= 0)
        found = tables.shard.pool.clusters[kind][1][column][places[rows]]
        values = format_uids(found) if found.dtype == UID_TYPE else pa.array(found)
        return values.take(pa.array(np.cumsum(places >= 0) - 1, mask=places < 0))

    data_type = DUPLICATE_CLUSTERS.field(column).type
    return _Source("duplicate_clusters", data_type, values, ("uid",), other="raw_samples")


def _contaminated(*kinds: str) -> _Source:
    """Whether each sample is in a reference set in one of these ways; null where it was compared with none."""

    def values(tables: _Tables) -> pa.ChunkedArray | pa.Array:
        uids = tables.table("raw_samples", ["uid"])["uid"]
        if tables.shard.pool.store.get("contamination", tables.shard.name) is None:
            return pa.nulls(len(uids), pa.bool_())
        found = tables.table("contamination", ["uid", "kind"])
        return pc.is_in(uids, value_set=found.filter(pc.is_in(found["kind"], value_set=pa.array(kinds)))["uid"])

    return _Source("contamination", pa.bool_(), values, ("uid",), other="raw_samples")


def _is_duplicate(tables: _Tables) -> pa.ChunkedArray:
    return pc.fill_null(pc.invert(_cluster("is_representative", "any").values(tables)), fill_value=False)


def _megapixels(tables: _Tables) -> pa.ChunkedArray:
    table = tables.table("raw_samples", ["width", "height"])
    pixels = pc.multiply(table["width"].cast(pa.float64()), table["height"].cast(pa.float64()))
    return pc.divide(pixels, 1e6).cast(pa.float32())


def _host(tables: _Tables) -> pa.Array:
    urls = tables.table("raw_samples", ["url"])["url"].to_pylist()
    return pa.array([host_of(url) or None for url in urls], pa.string())


def _top_probability(tables: _Tables) -> pa.ChunkedArray:
    return pc.list_element(tables.table("image_features", ["label_probabilities"])["label_probabilities"], 0)


def _of_item(asset: str, column: str, data_type: pa.DataType, item: str) -> _Source:
    """A column of the rows of one item."""

    def values(tables: _Tables) -> pa.ChunkedArray:
        table = tables.table(asset, ["item", column])
        return table.filter(pc.equal(table["item"], item))[column]

    return _Source(asset, data_type, values, ("item", column))


_SOURCES: dict[str, _Source] = {
    **_plain(
        "raw_samples",
        "uid source shard row image_name url caption format bytes width height status reason "
        "attempts http_status final_url seconds fetched_at source_metadata",
        **{TEXT: "caption", WIDTH: "width", HEIGHT: "height"},
    ),
    **_plain("image_features", "sharpness brightness contrast colourfulness top_label", image_features="embedding"),
    **_plain("masked_similarity", "masked_similarity text_area"),
    **_plain("code_clusters", "code_cluster code_distance"),
    "host": _Source("raw_samples", pa.string(), _host, ("url",)),
    "megapixels": _Source("raw_samples", pa.float32(), _megapixels, ("width", "height")),
    "top_label_probability": _Source("image_features", pa.float32(), _top_probability, ("label_probabilities",)),
    "image_embedding": _of_item("joint_embeddings", "embedding", EMBEDDING, IMAGE),
    "text_embedding": _of_item("joint_embeddings", "embedding", EMBEDDING, ORIGINAL),
    **{name: _original(name) for name in ("similarity", "tokens", "truncated")},
    "original_similarity": _original("similarity"),
    **_plain("best_captions", "", best_similarity="similarity", best_source="caption_source"),
    "language": _original("language", "text_quality"),
    "caption_concepts": _concepts(ORIGINAL),
    "image_concepts": _concepts(IMAGE),
    "cluster": _cluster("cluster", "any"),
    "is_duplicate": _Source("duplicate_clusters", pa.bool_(), _is_duplicate, ("uid",), other="raw_samples"),
    **_plain("rights", "", **{f"{PREFIX}{name}": name for name in RIGHTS.names if name != "uid"}),
    **_plain("reviews", "review review_tags"),
    "contaminated": _contaminated(*KINDS),
    **{f"contaminated_{kind}": _contaminated(kind) for kind in KINDS},
    **{f"is_representative_{kind}": _cluster("is_representative", kind) for kind in CLUSTER_KINDS},
}

_OWN_EMBEDDINGS = "it has image_embedding (the scorer's joint space) and image_features (the backbone's)"
_INSTEAD = {
    "clip_": "its scorer is none of DataComp's CLIPs; caption_quality chooses by the scorer's own similarity",
    "b32_img": _OWN_EMBEDDINGS,
    "l14_img": _OWN_EMBEDDINGS,
}
"""What to take instead of a column of DataComp that the store has not, by the beginning of its name."""


COLUMNS: Mapping[str, pa.DataType] = {name: source.type for name, source in _SOURCES.items()}
"""The columns that every store has, with their types; those of stages that data/dqe.yaml may leave out among them."""


def what_instead(name: str, signals: Iterable[str]) -> str:
    """What there is in place of a column that the store has not."""
    instead = next((text for start, text in _INSTEAD.items() if name.startswith(start)), None)
    return instead or f"there are: {', '.join(sorted({*_SOURCES, *signals}))}"
