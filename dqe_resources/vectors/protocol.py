"""The interface of a collection of vectors, for every kind of Qdrant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dqe_resources.configurable import Configurable
from dqe_resources.errors import DataQualityError, WholeRunError
from dqe_resources.vectors.points import Point, points_of
from dqe_resources.vectors.where import DEFAULT_INDEXES, Clause, Equals, Index, Where, clauses, index_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

_BATCH_POINTS = 1000
_BATCH_NUMBERS = 400_000
"""Vector components in one batch: about 8 MB as JSON, well under the 32 MB that a server takes by default."""
_SCORE_DECIMALS = 5
_MOST_SHARDS = 10_000
_MARGIN_POINTS = 8
_MARGIN_SCORE = 5e-4
"""More than an engine's score can be off: float16 rounds the length of a vector by up to 1e-4."""


class VectorsError(DataQualityError):
    """A collection cannot be used: the message says which, why, and what to do."""


class VectorsMissingError(VectorsError):
    """There is no collection yet."""


class VectorsBusyError(VectorsError, WholeRunError):
    """Another process kept the collection for longer than the configured wait."""


class VectorsMismatchError(VectorsError, WholeRunError):
    """The existing collection has other named vectors than those asked for."""


class VectorsBrokenError(VectorsError, WholeRunError):
    """The stored files cannot be read as a collection."""


class VectorsUnreachableError(VectorsError, WholeRunError):
    """The server does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a collection holds.

    Attributes:
        identity: the collection's.
        points: the number of points of each shard that has any.
    """

    identity: str
    points: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Hit:
    """A point found by a search.

    The score is the cosine, -1 to 1, rounded to 5 decimals so that equal vectors tie on every machine.
    """

    uid: str
    score: float
    payload: dict[str, Any]


class Collection(ABC):
    """An open collection: points with named vectors (cosine) and a payload, each the sample of one uid."""

    def __init__(self, identity: str, vectors: Mapping[str, int], indexes: Mapping[str, Index]) -> None:
        self._identity = identity
        self._vectors = dict(vectors)
        self._wanted = dict(indexes)
        self._indexed = self._read_indexes()
        self._index(name for name in self._wanted if "*" not in name)

    @property
    def identity(self) -> str:
        """Random text made with the collection: another one means that it was deleted and made again, empty."""
        return self._identity

    @property
    def vectors(self) -> dict[str, int]:
        """The named vectors with their dimensions."""
        return dict(self._vectors)

    def replace_shard(self, shard: str, points: pa.Table | Iterable[pa.RecordBatch]) -> int:
        """Makes the given points the points of a shard: writes all, then removes what the shard no longer has.

        Idempotent; stopped at any moment, the next call completes it.

        Args:
            shard: the shard.
            points: column ``uid``; one column for each named vector (list of float16 or float32, any length but zero;
                null or an absent column if there is none); every other column is payload (text, finite numbers,
                truth values and lists of these; nulls are left out).

        Returns:
            The number of points that the shard now has.

        Raises:
            ValueError: a column or row that cannot be a point; what came in earlier batches is already written.
            VectorsError: the collection failed.
        """
        uids: set[str] = set()
        size = max(1, min(_BATCH_POINTS, _BATCH_NUMBERS // sum(self._vectors.values())))
        for given in points.to_batches() if isinstance(points, pa.Table) else points:
            self._index(given.schema.names)
            for start in range(0, given.num_rows, size):
                batch = list(points_of(given.slice(start, size), shard, self._vectors))
                for point in batch:
                    if point.uid in uids:
                        raise ValueError(f"uid {point.uid} comes twice among the points of shard '{shard}'")
                    uids.add(point.uid)
                self._upsert(batch)
        if self.count({"shard": shard}) == len(uids):
            return len(uids)
        stale = sorted(self.uids(shard) - uids)
        for start in range(0, len(stale), _BATCH_POINTS):
            self._delete(stale[start : start + _BATCH_POINTS])
        return len(uids)

    def count(self, where: Where | None = None) -> int:
        """The exact number of points that fulfil all conditions."""
        return self._count(clauses(where))

    def uids(self, shard: str) -> set[str]:
        """The uids of a shard's points."""
        return {point.uid for point in self._scroll([Equals("shard", shard)], content=False)}

    def search(self, vector: np.ndarray, using: str, limit: int, where: Where | None = None) -> list[Hit]:
        """The nearest points by cosine, best first, equal scores in the order of uids.

        Found by comparing with all, but in an embedded collection among more than 20,000 points, where codes of the
        vectors choose which are compared: a few of the nearest may be missed.

        Args:
            vector: float [d], of any length but zero.
            using: the named vector to compare with; a point without it is not found.
            limit: how many at most, 1 or more.
            where: conditions that the points must fulfil.

        Raises:
            ValueError: an unknown named vector, a vector of another shape or without direction, a bad condition.
            VectorsError: the collection failed.
        """
        if using not in self._vectors:
            raise ValueError(f"no vector is named '{using}'; the collection has {_described(self._vectors)}")
        if vector.shape != (self._vectors[using],):
            raise ValueError(f"vector '{using}' has shape ({self._vectors[using]},), not {vector.shape}")
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be 1 or more")
        query = vector.astype(np.float32)
        norm = float(np.linalg.norm(query))
        if not np.isfinite(norm) or norm == 0:
            raise ValueError(f"the vector to search for has no direction: its length is {norm}")
        conditions = clauses(where)
        # Copies of an image have equal scores: unless all that tie at the limit are seen, which are returned is chance.
        # And engines differ in the last digits, so what is near the limit is scored again, from the vectors.
        direction = query.astype(np.float64) / norm
        fetched = limit + _MARGIN_POINTS
        while True:
            found = self._nearest(query, using, fetched, conditions)
            hits = [Hit(point.uid, _cosine(point.vectors[using], direction), point.payload) for _, point in found]
            hits.sort(key=lambda hit: (-hit.score, hit.uid))
            if len(hits) < fetched or hits[limit - 1].score > found[-1][0] + _MARGIN_SCORE:
                return hits[:limit]
            fetched *= 2

    def points_by_shard(self) -> dict[str, int]:
        """The exact number of points of each shard that has any."""
        limit = _MOST_SHARDS
        while True:
            found = self._values("shard", limit)
            if len(found) < limit:
                return found
            limit *= 4

    def get(self, uid: str) -> Point | None:
        """The point of a sample, with payload and vectors, or None."""
        return self._retrieve(uid)

    def scroll(self, where: Where | None = None) -> Iterator[Point]:
        """Every point that fulfils all conditions, with payload and vectors, in the order of uids."""
        return self._scroll(clauses(where), content=True)

    def _index(self, fields: Iterable[str]) -> None:
        for field in fields:
            kind = index_of(field, self._wanted)
            if kind is not None and field not in self._vectors and field not in self._indexed:
                self._create_index(field, kind)
                self._indexed.add(field)

    @abstractmethod
    def _read_indexes(self) -> set[str]: ...

    @abstractmethod
    def _create_index(self, field: str, kind: Index) -> None: ...

    @abstractmethod
    def _upsert(self, points: list[Point]) -> None: ...

    @abstractmethod
    def _delete(self, uids: list[str]) -> None: ...

    @abstractmethod
    def _count(self, conditions: list[Clause]) -> int: ...

    @abstractmethod
    def _nearest(
        self, vector: np.ndarray, using: str, limit: int, conditions: list[Clause]
    ) -> list[tuple[float, Point]]:
        """The nearest points by the engine's own score, best first, each with its payload and the named vector."""

    @abstractmethod
    def _values(self, field: str, limit: int) -> dict[str, int]:
        """The values of an indexed field of text, at most ``limit`` of them, with the exact number of their points."""

    @abstractmethod
    def _retrieve(self, uid: str) -> Point | None: ...

    @abstractmethod
    def _scroll(self, conditions: list[Clause], *, content: bool) -> Iterator[Point]: ...


class Vectors(Configurable):
    """Holds the collection of vectors."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the collection is, in words."""

    @abstractmethod
    def open(
        self, vectors: Mapping[str, int] | None = None, indexes: Mapping[str, Index] = DEFAULT_INDEXES
    ) -> AbstractContextManager[Collection]:
        """Opens the collection, made first if there is none.

        Args:
            vectors: the named vectors with their dimensions; None opens the collection that is there, as it is.
            indexes: the payload fields to index; made where absent.

        Raises:
            VectorsMismatchError: the collection that is there has other named vectors.
            VectorsBusyError: another process kept it too long (embedded only).
            VectorsBrokenError: what is there cannot be read.
            VectorsUnreachableError: the server does not answer, or refuses (server only).
            VectorsMissingError: there is none and ``vectors`` is None.
            VectorsError: the collection cannot be used for another reason.
        """

    def contents(self, vectors: Mapping[str, int]) -> Contents:
        """What is in the collection with these named vectors, made first if there is none.

        For many shards at once: opening the collection for each of them would take a hundred times as long.

        Raises:
            VectorsError: as ``open``.
        """
        with self.open(vectors) as collection:
            return Contents(collection.identity, collection.points_by_shard())

    def advice(self, points: int) -> str | None:  # noqa: ARG002 - for kinds that have some
        """What to say of a collection of so many points; None if there is nothing."""
        return None

    def forget_deleted(self) -> None:
        """Make sure that the files of the collection keep nothing of points that were deleted, if they are ours.

        A server clears its files by itself, in its own time.

        Raises:
            VectorsError: the collection cannot be rewritten.
        """
        return

    @abstractmethod
    def recreate(self, vectors: Mapping[str, int]) -> None:
        """Replaces the collection, whatever its state, by a new and empty one with these named vectors.

        Everything in it is lost; every shard must be put in again.
        """


def check_names(vectors: Mapping[str, int]) -> None:
    """Refuses named vectors that no collection can have.

    Raises:
        ValueError: no vectors, a name that is empty or no file name, or a dimension below 1.
    """
    if not vectors:
        raise ValueError("a collection needs at least one named vector")
    for name, size in vectors.items():
        if not name or name in {".", ".."} or "/" in name or size < 1:
            raise ValueError(f"a collection cannot have a vector named '{name}' with {size} dimensions")


def check_vectors(place: str, there: Mapping[str, int], wanted: Mapping[str, int], how: str) -> None:
    """Refuses a collection with other named vectors than those wanted.

    Raises:
        VectorsMismatchError: what differs, and ``how`` to fix it.
    """
    differences = [f"'{name}' ({wanted[name]}) is absent" for name in wanted if name not in there]
    differences += [f"'{name}' ({there[name]}) is no longer wanted" for name in there if name not in wanted]
    differences += [
        f"'{name}' has {there[name]} dimensions instead of {wanted[name]}"
        for name in wanted
        if name in there and there[name] != wanted[name]
    ]
    if differences:
        raise VectorsMismatchError(f"{place} has other named vectors: {'; '.join(differences)}. {how}")


def _cosine(vector: np.ndarray, direction: np.ndarray) -> float:
    stored = vector.astype(np.float64)
    return round(float(stored @ direction / np.linalg.norm(stored)), _SCORE_DECIMALS)


def _described(vectors: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({size})" for name, size in vectors.items())
