"""The collection inside this process: Qdrant's own engine in a directory (qdrant-edge-py)."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from pydantic import NonNegativeFloat, PrivateAttr

from dqe_resources.cache import data_directory
from dqe_resources.locks import HeldError, held
from dqe_resources.vectors.points import Point, stored_point
from dqe_resources.vectors.protocol import (
    Collection,
    Contents,
    Vectors,
    VectorsBrokenError,
    VectorsBusyError,
    VectorsError,
    VectorsMissingError,
    check_names,
    check_vectors,
)
from dqe_resources.vectors.where import DEFAULT_INDEXES, Among, Clause, Equals, Index, json_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pyarrow as pa
    from qdrant_edge import EdgeShard, Filter

_IDENTITY = "collection.json"
_CHANGE = "change"
_DELETED = "deleted"
"""A file that is there once points have been deleted, whose bytes the engine's files may keep."""
_LAYOUT = 3
"""Of a collection's directory: one that keeps its vectors in another way is made again."""
_PAGE = 10_000
_COPIED_AT_ONCE = 1000
_FREE_BYTES = 128 * 2**20
_WRITTEN_PER_BYTE = 4
"""Bytes that the log, the storage and their growth steps may take for a byte of vectors, generously."""
_SETTLED_KB = 64_000
"""Of a named vector, from which on a segment is settled: 83,000 vectors of 384. Each core compares its own segments."""
_LARGEST_KB = _SETTLED_KB * 3 // 2
"""Segments are merged up to this: settled ones never, else one more shard would mean to write them all again."""
_MERGED_FROM = 2
"""Segments from which on the engine merges what it may: emptied ones, with what else is small."""
_OPENED_S = 0.8e-6
"""CPU seconds that an opening takes for each point."""
_SERVER_FROM = 1_500_000
"""Points from which on an opening takes longer than to write a shard of 10,000."""
_COMPARED_WITH_ALL = 20_000
"""Up to so many points that can be found, the vectors themselves are compared, which takes 7 ms where a filter picks
them; among more, their codes come first."""
_LOOKED_AT_PER_HIT = 10.0
"""Of each segment, how many points with the best codes have their vectors compared, for one that is wanted."""

Result = TypeVar("Result")


class EmbeddedCollection(Collection):
    """A collection in a directory."""

    def __init__(
        self, shard: EdgeShard, directory: Path, identity: str, vectors: Mapping[str, int], indexes: Mapping[str, Index]
    ) -> None:
        self._shard = shard
        self._directory = directory
        self._changed = False
        super().__init__(identity, vectors, indexes)

    def _ask(self, call: Callable[[], Result]) -> Result:
        return _engine(call, lambda error: VectorsError(f"the collection in {self._directory} failed: {error}"))

    def _read_indexes(self) -> set[str]:
        return {field.strip('"') for field in self._ask(self._shard.info).payload_schema}

    def _create_index(self, field: str, kind: Index) -> None:
        from qdrant_edge import (
            BoolIndexParams,
            FloatIndexParams,
            IntegerIndexParams,
            KeywordIndexParams,
            Memory,
            UpdateOperation,
        )

        # Mapped: an opening would otherwise read the indexes of all points, which takes longer than most searches.
        schema = {
            "keyword": KeywordIndexParams,
            "integer": IntegerIndexParams,
            "float": FloatIndexParams,
            "bool": BoolIndexParams,
        }[kind](memory=Memory.Cold)
        self._ask(lambda: self._shard.update(UpdateOperation.create_field_index(json_path(field), schema)))

    def replace_shard(self, shard: str, points: pa.Table | Iterable[pa.RecordBatch]) -> int:
        """As ``Collection.replace_shard``."""
        written = super().replace_shard(shard, points)
        self.settle()
        return written

    def settle(self) -> None:
        """After changes: what has become large or half empty of the segments is packed, with codes to search by.

        A settled segment is left alone until a fifth of it is deleted, so what a shard costs does not grow with the
        collection. It waits for a later change where the disk has no room for two copies.
        """
        if self._changed and _free(self._directory) >= _FREE_BYTES + 2 * _size_of(self._directory):
            self._ask(self._shard.optimize)

    def copy(self, points: Iterable[Point]) -> None:
        """Take points over from another collection with the same named vectors."""
        rest = iter(points)
        while some := list(islice(rest, _COPIED_AT_ONCE)):
            self._index(dict.fromkeys(field for point in some for field in point.payload))
            self._upsert(some)
            self.settle()

    def _mark_changed(self) -> None:
        """Tells processes that remember what is in the collection that it is changing."""
        if not self._changed:
            (self._directory / _CHANGE).write_text(uuid.uuid4().hex, encoding="ascii")
            self._changed = True

    def _upsert(self, points: list[Point]) -> None:
        from qdrant_edge import Point as EdgePoint
        from qdrant_edge import UpdateOperation

        self._mark_changed()
        _check_free(self._directory, _WRITTEN_PER_BYTE * 4 * len(points) * sum(self._vectors.values()))
        rows = [
            EdgePoint(point.uid, {name: vector.tolist() for name, vector in point.vectors.items()}, point.payload)
            for point in points
        ]
        self._ask(lambda: self._shard.update(UpdateOperation.upsert_points(rows)))

    def _delete(self, uids: list[str]) -> None:
        from qdrant_edge import UpdateOperation

        self._mark_changed()
        (self._directory / _DELETED).touch()
        self._ask(lambda: self._shard.update(UpdateOperation.delete_points(list(uids))))

    def _count(self, conditions: list[Clause], *, exact: bool = True) -> int:
        from qdrant_edge import CountRequest

        return self._ask(lambda: self._shard.count(CountRequest(exact=exact, filter=_filter(conditions))))

    def _nearest(
        self, vector: np.ndarray, using: str, limit: int, conditions: list[Clause]
    ) -> list[tuple[float, Point]]:
        from qdrant_edge import QuantizationSearchParams, Query, QueryRequest, SearchParams

        if self._count(conditions, exact=False) <= _COMPARED_WITH_ALL:
            params = SearchParams(exact=True)
        else:
            by_codes = QuantizationSearchParams(rescore=True, oversampling=_LOOKED_AT_PER_HIT)
            params = SearchParams(quantization=by_codes)
        request = QueryRequest(
            limit=limit,
            query=Query.Nearest(vector.tolist(), using=using),
            filter=_filter(conditions),
            params=params,
            with_payload=True,
            with_vector=[using],
        )
        return [(point.score, stored_point(point)) for point in self._ask(lambda: self._shard.query(request))]

    def _values(self, field: str, limit: int) -> dict[str, int]:
        from qdrant_edge import FacetRequest

        request = FacetRequest(json_path(field), limit=limit, exact=True)
        return {str(hit.value): hit.count for hit in self._ask(lambda: self._shard.facet(request)).hits}

    def _retrieve(self, uid: str) -> Point | None:
        records = self._ask(lambda: self._shard.retrieve([uid], with_payload=True, with_vector=True))
        return stored_point(records[0]) if records else None

    def _scroll(self, conditions: list[Clause], *, content: bool) -> Iterator[Point]:
        from qdrant_edge import ScrollRequest

        offset = None
        while True:
            request = ScrollRequest(
                offset=offset,
                limit=_PAGE if not content else _PAGE // 10,
                filter=_filter(conditions),
                with_payload=content,
                with_vector=content,
            )
            records, offset = self._ask(lambda request=request: self._shard.scroll(request))  # type: ignore[misc]
            yield from map(stored_point, records)
            if offset is None:
                return


class EmbeddedQdrant(Vectors):
    """The collection in a directory of this machine. One process at a time has it open; others wait.

    Follows qdrant-edge-py (https://github.com/qdrant/qdrant, lib/edge), with its write-ahead log: what a killed
    process had begun is completed or undone when the collection is next opened.

    Attributes:
        directory: Folder of the collection; by default ``qdrant`` in the data folder.
        wait_s: Seconds to wait for another process that has the collection open.
    """

    kind: ClassVar[str] = "embedded"

    directory: Path | None = None
    wait_s: NonNegativeFloat = 120.0

    _seen: tuple[str, Contents] | None = PrivateAttr(None)

    def signature(self) -> dict[str, Any]:
        """Only the kind: the place does not change the content, and the collection's identity shows if it exists."""
        return {"kind": self.kind}

    @property
    def location(self) -> str:
        """Where the collection is, in words."""
        return f"the collection in {self._collection}"

    def advice(self, points: int) -> str | None:
        """As ``Vectors.advice``: that a server is better from where a shard takes longer to open it than to write."""
        if points < _SERVER_FROM:
            return None
        return (
            f"{self.location} has {points:,} points. From {_SERVER_FROM:,} on a Qdrant server is better: about "
            f"{points * _OPENED_S:.1f} s of each shard and of each search go to opening it (DQE_QDRANT_URL)"
        )

    @property
    def _root(self) -> Path:
        return self.directory.absolute() if self.directory is not None else data_directory() / "qdrant"

    @property
    def _collection(self) -> Path:
        return self._root / "collection"

    @contextmanager
    def open(
        self, vectors: Mapping[str, int] | None = None, indexes: Mapping[str, Index] = DEFAULT_INDEXES
    ) -> Iterator[Collection]:
        """Opens the collection, made first if there is none; waits for another process that has it open."""
        if vectors is not None:
            check_names(vectors)
        with self._locked():
            _check_free(self._root)
            if not self._collection.exists():
                if vectors is None:
                    raise VectorsMissingError(f"there is no collection in {self._collection} yet. {self._refill()}")
                self._create(vectors)
            identity, there = self._read_identity()
            if vectors is not None:
                check_vectors(self.location, there, vectors, self._how_to_fix())
            with self._loaded(self._collection, identity, there, indexes) as collection:
                yield collection

    @contextmanager
    def _loaded(
        self, folder: Path, identity: str, vectors: Mapping[str, int], indexes: Mapping[str, Index]
    ) -> Iterator[EmbeddedCollection]:
        shard = self._load(folder)
        try:
            yield EmbeddedCollection(shard, folder, identity, vectors, indexes)
        finally:
            try:
                _engine(shard.flush, lambda error: VectorsError(f"{self.location} could not be written: {error}"))
            finally:
                shard.close()

    def contents(self, vectors: Mapping[str, int]) -> Contents:
        """As ``Vectors.contents``; opens it again only if a process has changed it, or begun to, in the meantime."""
        change = self._last_change()
        if self._seen is None or change is None or self._seen[0] != change:
            found = super().contents(vectors)
            if change is None:
                return found
            self._seen = change, found
        return self._seen[1]

    def _last_change(self) -> str | None:
        """Random text that differs once the collection has changed or has been replaced; None if unknown."""
        try:
            return (self._collection / _CHANGE).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None

    def recreate(self, vectors: Mapping[str, int]) -> None:
        """Replaces the collection, also one that cannot be read, by a new and empty one."""
        check_names(vectors)
        with self._locked():
            if self._collection.exists():
                # Renamed first: a directory that is half deleted must not pass for a collection.
                self._collection.rename(self._leftover("old"))
            self._create(vectors)
            self._clear()

    def forget_deleted(self) -> None:
        """As ``Vectors.forget_deleted``: what is there is copied, and takes the place of the collection."""
        with self._locked():
            if not (self._collection / _DELETED).exists():
                return
            identity, vectors = self._read_identity()
            _check_free(self._root, 2 * _size_of(self._collection))
            new = self._made(vectors, identity)
            with (
                self._loaded(self._collection, identity, vectors, DEFAULT_INDEXES) as before,
                self._loaded(new, identity, vectors, DEFAULT_INDEXES) as after,
            ):
                after.copy(before.scroll())
            self._collection.rename(self._leftover("old"))
            new.rename(self._collection)
            self._clear()

    def _leftover(self, what: str) -> Path:
        return self._collection.with_suffix(f".{what}")

    def _clear(self) -> None:
        for what in ("new", "old"):
            shutil.rmtree(self._leftover(what), ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(self._root / "lock", wait=self.wait_s))
            except HeldError as error:
                raise VectorsBusyError(
                    f"another process has {self.location} open and did not finish within {self.wait_s:g} s. "
                    "Wait for it to end (a running materialisation or search), or set a longer wait_s"
                ) from error
            except (OSError, NotImplementedError) as error:
                raise VectorsError(f"{self._root} cannot be used for the collection: {error}") from error
            self._clear()
            yield

    def _create(self, vectors: Mapping[str, int]) -> None:
        """A new collection, made under another name and renamed: a killed process leaves none, never half of one."""
        try:
            self._made(vectors, uuid.uuid4().hex).rename(self._collection)
        except OSError as error:
            raise VectorsError(f"{self.location} cannot be made: {error}") from error

    def _made(self, vectors: Mapping[str, int], identity: str) -> Path:
        """The directory of an empty collection, next to where it belongs."""
        from qdrant_edge import (
            Distance,
            EdgeConfig,
            EdgeOptimizersConfig,
            EdgeShard,
            EdgeVectorParams,
            HnswIndexConfig,
            TurboQuantBitSize,
            TurboQuantQuantizationConfig,
            VectorStorageDatatype,
        )

        new = self._leftover("new")
        params = {
            name: EdgeVectorParams(size=size, distance=Distance.Cosine, datatype=VectorStorageDatatype.Float16)
            for name, size in vectors.items()
        }
        # No graph: it finds a little less than two bits for each number do, and takes many times as long to make.
        configuration = EdgeConfig(
            vectors=params,
            hnsw_config=HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            quantization_config=TurboQuantQuantizationConfig(bits=TurboQuantBitSize.Bits2),
            optimizers=EdgeOptimizersConfig(
                default_segment_number=_MERGED_FROM, indexing_threshold=_SETTLED_KB, max_segment_size=_LARGEST_KB
            ),
        )
        try:
            new.mkdir()
            _engine(
                lambda: EdgeShard.create(str(new), configuration).close(),
                lambda error: VectorsError(f"{self.location} cannot be made: {error}"),
            )
            said = {"identity": identity, "layout": _LAYOUT, "vectors": dict(vectors)}
            (new / _CHANGE).write_text(uuid.uuid4().hex, encoding="ascii")
            (new / _IDENTITY).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise VectorsError(f"{self.location} cannot be made: {error}") from error
        return new

    def _read_identity(self) -> tuple[str, dict[str, int]]:
        try:
            stored = json.loads((self._collection / _IDENTITY).read_text(encoding="utf-8"))
            identity = str(stored["identity"]), {str(name): int(size) for name, size in stored["vectors"].items()}
            layout = stored.get("layout")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._broken(error) from error
        if layout != _LAYOUT:
            raise self._broken("another version of this project made it")
        return identity

    def _load(self, folder: Path) -> EdgeShard:
        from qdrant_edge import EdgeShard

        return _engine(lambda: EdgeShard.load(str(folder)), self._broken)

    def _broken(self, error: BaseException | str) -> VectorsBrokenError:
        return VectorsBrokenError(f"{self.location} cannot be read ({error}). {self._how_to_fix()}")

    def _how_to_fix(self) -> str:
        return f"Everything in it comes from the store: delete {self._collection}, then {self._refill().lower()}"

    def _refill(self) -> str:
        return "Run: dqe materialize caption_collection"


def _engine(call: Callable[[], Result], failed: Callable[[BaseException], VectorsError]) -> Result:
    """Calls the engine, which raises plain ``Exception`` and, where it panics, what is no ``Exception`` at all."""
    try:
        return call()
    except MemoryError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt: Dagster has one of its own
        raise failed(error) from error


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _size_of(directory: Path) -> int:
    """Bytes on the disk; the engine's files have holes."""
    return sum(512 * path.stat().st_blocks for path in directory.rglob("*"))


def _check_free(directory: Path, written: int = 0) -> None:
    """Refuses a disk that might fill up: the engine writes through mapped memory, and would kill the process."""
    needed = _FREE_BYTES + written
    free = _free(directory)
    if free < needed:
        raise VectorsError(
            f"the disk of {directory} is almost full: {free >> 20} MiB are free, and {needed >> 20} MiB are needed to "
            "open or write the collection safely. Free some space and run this again: what is already written is kept"
        )


def _filter(conditions: list[Clause]) -> Filter | None:
    from qdrant_edge import FieldCondition, Filter, HasIdCondition, MatchValue, RangeFloat

    if not conditions:
        return None
    must: list[Any] = []
    for condition in conditions:
        if isinstance(condition, Among):
            must.append(HasIdCondition({uuid.UUID(uid) for uid in condition.uids}))
            continue
        field = json_path(condition.field)
        if isinstance(condition, Equals):
            # The binding takes Python's True for the integer 1, which equals no truth value; NumPy's it takes as meant.
            value: Any = np.bool_(condition.value) if isinstance(condition.value, bool) else condition.value
            must.append(FieldCondition(field, match=MatchValue(value)))
        else:
            bounds = RangeFloat(gte=condition.at_least, lt=condition.below, lte=condition.at_most)
            must.append(FieldCondition(field, range=bounds))
    return Filter(must=must)
