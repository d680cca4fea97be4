"""The collection on a Qdrant server (qdrant-client)."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import PositiveInt, SecretStr

from dqe_resources.configurable import matching
from dqe_resources.vectors.points import Point, stored_point
from dqe_resources.vectors.protocol import (
    Collection,
    Vectors,
    VectorsBrokenError,
    VectorsError,
    VectorsMissingError,
    VectorsUnreachableError,
    check_names,
    check_vectors,
)
from dqe_resources.vectors.where import DEFAULT_INDEXES, Among, Clause, Equals, Index, json_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from qdrant_client import QdrantClient
    from qdrant_client.models import CollectionInfo, Filter

_IDENTITY = "dqe_identity"
_PAGE = 10_000
_UNAUTHORISED = (401, 403)
_CONFLICT = 409


class _Client:
    """A qdrant-client for one collection, whose failures say where, why and what to do."""

    def __init__(self, client: QdrantClient, url: str, collection: str) -> None:
        self._client = client
        self._url = url
        self._collection = collection

    def __call__(self, method: str, **arguments: Any) -> Any:
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            return getattr(self._client, method)(collection_name=self._collection, **arguments)
        except ResponseHandlingException as error:
            raise VectorsUnreachableError(
                f"the Qdrant server at {self._url} does not answer ({error}). Start it, or correct the setting url "
                "(and timeout_s, if it is only slow)"
            ) from error
        except ResourceExhaustedResponse as error:
            raise VectorsUnreachableError(
                f"the Qdrant server at {self._url} is overloaded ({error}). Run this again later"
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in _UNAUTHORISED:
                raise VectorsUnreachableError(
                    f"the Qdrant server at {self._url} refuses the API key (HTTP {error.status_code}). "
                    "Set api_key to one that may write"
                ) from error
            raise VectorsServerError(self._url, error) from error


class VectorsServerError(VectorsError):
    """The server answered a request with an error."""

    def __init__(self, url: str, error: Any) -> None:
        self.status = error.status_code
        answer = error.content.decode("utf-8", "replace")[:500]
        super().__init__(f"the Qdrant server at {url} failed: HTTP {self.status} {error.reason_phrase}: {answer}")


class ServerCollection(Collection):
    """A collection on a server."""

    def __init__(
        self,
        ask: _Client,
        info: CollectionInfo,
        identity: str,
        vectors: Mapping[str, int],
        indexes: Mapping[str, Index],
    ) -> None:
        self._ask = ask
        self._info = info
        super().__init__(identity, vectors, indexes)

    def _read_indexes(self) -> set[str]:
        return {field.strip('"') for field in self._info.payload_schema}

    def _create_index(self, field: str, kind: Index) -> None:
        from qdrant_client.models import PayloadSchemaType

        self._ask("create_payload_index", field_name=json_path(field), field_schema=PayloadSchemaType(kind), wait=True)

    def _upsert(self, points: list[Point]) -> None:
        from qdrant_client.models import PointStruct

        rows = [
            PointStruct(
                id=_id(point.uid),
                vector={name: vector.tolist() for name, vector in point.vectors.items()},
                payload=point.payload,
            )
            for point in points
        ]
        if rows:
            self._ask("upsert", points=rows, wait=True)

    def _delete(self, uids: list[str]) -> None:
        from qdrant_client.models import PointIdsList

        self._ask("delete", points_selector=PointIdsList(points=[_id(uid) for uid in uids]), wait=True)

    def _count(self, conditions: list[Clause]) -> int:
        return int(self._ask("count", count_filter=_filter(conditions), exact=True).count)

    def _nearest(
        self, vector: np.ndarray, using: str, limit: int, conditions: list[Clause]
    ) -> list[tuple[float, Point]]:
        from qdrant_client.models import SearchParams

        found = self._ask(
            "query_points",
            query=vector.tolist(),
            using=using,
            limit=limit,
            query_filter=_filter(conditions),
            search_params=SearchParams(exact=True),
            with_payload=True,
            with_vectors=[using],
        )
        return [(point.score, stored_point(point)) for point in found.points]

    def _values(self, field: str, limit: int) -> dict[str, int]:
        found = self._ask("facet", key=json_path(field), limit=limit, exact=True)
        return {str(hit.value): int(hit.count) for hit in found.hits}

    def _retrieve(self, uid: str) -> Point | None:
        records = self._ask("retrieve", ids=[_id(uid)], with_payload=True, with_vectors=True)
        return stored_point(records[0]) if records else None

    def _scroll(self, conditions: list[Clause], *, content: bool) -> Iterator[Point]:
        offset = None
        while True:
            records, offset = self._ask(
                "scroll",
                scroll_filter=_filter(conditions),
                limit=_PAGE if not content else _PAGE // 10,
                offset=offset,
                with_payload=content,
                with_vectors=content,
            )
            yield from map(stored_point, records)
            if offset is None:
                return


class ServerQdrant(Vectors):
    """The collection on a Qdrant server, 1.16 or newer (collection metadata keep its identity).

    Any number of processes may use it at once, each replacing other shards.

    Attributes:
        url: Address of the server, such as http://localhost:6333.
        api_key: The server's API key, if it wants one.
        collection: Name of the collection on the server.
        timeout_s: Seconds to wait for an answer.
    """

    kind: ClassVar[str] = "server"

    url: Annotated[str, matching(r"^https?://[^/\s]+", "a URL such as http://localhost:6333")]
    api_key: SecretStr | None = None
    collection: Annotated[str, matching(r"^[A-Za-z0-9_-]+$", "a name of letters a to z, digits, _ and -")] = "captions"
    timeout_s: PositiveInt = 60

    def signature(self) -> dict[str, Any]:
        """Only the kind: the place does not change the content, and the collection's identity shows if it exists."""
        return {"kind": self.kind}

    @property
    def location(self) -> str:
        """Where the collection is, in words."""
        return f"the collection '{self.collection}' of the Qdrant server at {self.url}"

    @contextmanager
    def open(
        self, vectors: Mapping[str, int] | None = None, indexes: Mapping[str, Index] = DEFAULT_INDEXES
    ) -> Iterator[Collection]:
        """Opens the collection, made first if there is none."""
        if vectors is not None:
            check_names(vectors)
        with self._connected() as ask:
            if not ask("collection_exists"):
                if vectors is None:
                    raise VectorsMissingError(f"{self.location} does not exist yet. {self._refill()}")
                self._create(ask, vectors)
            info: CollectionInfo = ask("get_collection")
            identity = self._identity(info)
            there = self._vectors(info)
            if vectors is not None:
                check_vectors(self.location, there, vectors, self._how_to_fix())
            yield ServerCollection(ask, info, identity, there, indexes)

    def recreate(self, vectors: Mapping[str, int]) -> None:
        """Replaces the collection by a new and empty one, unless it is not one that was made here."""
        check_names(vectors)
        with self._connected() as ask:
            if ask("collection_exists"):
                self._identity(ask("get_collection"))
                ask("delete_collection")
            self._create(ask, vectors)

    def _connect(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        key = self.api_key.get_secret_value() if self.api_key is not None else None
        # The client's own check of versions would report a server that is down as a mere warning.
        return QdrantClient(url=self.url, api_key=key, timeout=self.timeout_s, check_compatibility=False)

    @contextmanager
    def _connected(self) -> Iterator[_Client]:
        try:
            client = self._connect()
        except ValueError as error:
            raise VectorsUnreachableError(f"'{self.url}' is not the address of a Qdrant server: {error}") from error
        try:
            yield _Client(client, self.url, self.collection)
        finally:
            client.close()

    def _create(self, ask: _Client, vectors: Mapping[str, int]) -> None:
        from qdrant_client.models import Datatype, Distance, HnswConfigDiff, VectorParams

        params = {
            name: VectorParams(size=size, distance=Distance.COSINE, datatype=Datatype.FLOAT16)
            for name, size in vectors.items()
        }
        try:
            ask(
                "create_collection",
                vectors_config=params,
                # Every search is exact, so a graph would only cost time and memory.
                hnsw_config=HnswConfigDiff(m=0),
                metadata={_IDENTITY: uuid.uuid4().hex},
            )
        except VectorsServerError as error:
            # Another process made it in the meantime: its collection is as good.
            if error.status != _CONFLICT:
                raise

    def _identity(self, info: CollectionInfo) -> str:
        identity = (info.config.metadata or {}).get(_IDENTITY)
        if identity is None:
            raise VectorsBrokenError(
                f"{self.location} has no identity: either it was not made here (set another collection name), "
                "or the server is older than 1.16 and cannot keep one"
            )
        return str(identity)

    def _vectors(self, info: CollectionInfo) -> dict[str, int]:
        from qdrant_client.models import Distance

        params = info.config.params.vectors
        if not isinstance(params, dict) or any(vector.distance != Distance.COSINE for vector in params.values()):
            raise VectorsBrokenError(
                f"{self.location} does not consist of named vectors with cosine. {self._how_to_fix()}"
            )
        return {name: vector.size for name, vector in params.items()}

    def _how_to_fix(self) -> str:
        return (
            "Everything in it comes from the store: delete it "
            f"(curl -X DELETE {self.url.rstrip('/')}/collections/{self.collection}), then {self._refill().lower()}"
        )

    def _refill(self) -> str:
        return "Run: dqe materialize caption_collection"


def _id(uid: str) -> str:
    return str(uuid.UUID(uid))


def _filter(conditions: list[Clause]) -> Filter | None:
    from qdrant_client.models import FieldCondition, Filter, HasIdCondition, MatchValue, Range

    if not conditions:
        return None
    must: list[Any] = []
    for condition in conditions:
        if isinstance(condition, Among):
            must.append(HasIdCondition(has_id=[_id(uid) for uid in sorted(condition.uids)]))
            continue
        field = json_path(condition.field)
        if isinstance(condition, Equals):
            must.append(FieldCondition(key=field, match=MatchValue(value=condition.value)))
        else:
            bounds = Range(gte=condition.at_least, lt=condition.below, lte=condition.at_most)
            must.append(FieldCondition(key=field, range=bounds))
    return Filter(must=must)
