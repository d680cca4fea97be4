"""The collection on a Qdrant server (qdrant-client)."""

from __future__ import annotations

import json
import math
import random
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, NonNegativeFloat, PositiveInt, PrivateAttr, SecretStr
from pydantic_core import PydanticCustomError

from dqe_resources.configurable import matching
from dqe_resources.retry import backoff_seconds, retry_after_seconds
from dqe_resources.vectors.points import Point, stored_point
from dqe_resources.vectors.protocol import (
    Collection,
    Contents,
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
_OVERLOADED = (408, 429, 502, 503, 504)
_TOO_LARGE = 413
_FAILED = 500
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_ANSWER_SHOWN = 500
_REMEMBERED_S = 60.0
_ANSWERED: set[str] = set()
"""Addresses at which a server has answered this process: one of them that does not is away for a while only."""


class _Failure(NamedTuple):
    """What a request came to: the error, whether it may pass, and the seconds that the server asks to wait."""

    error: VectorsError
    may_pass: bool
    wait: float = 0.0


class _Client:
    """A qdrant-client for one collection, which asks again what may pass, and says what failed where and what to do."""

    def __init__(self, client: QdrantClient, server: ServerQdrant) -> None:
        self._client = client
        self._server = server
        self._random = random.Random()  # noqa: S311

    def __call__(self, method: str, **arguments: Any) -> Any:
        """The answer to a call. It may come to be made twice, so only such are made of which that changes nothing."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        attempt, until = 0, math.inf
        while True:
            attempt += 1
            try:
                found = getattr(self._client, method)(collection_name=self._server.collection, **arguments)
            except (ApiException, QdrantException, json.JSONDecodeError) as error:
                failure = self._failure(error)
                until = min(until, time.monotonic() + self._server.wait_s)
                wait = backoff_seconds(attempt, base=_FIRST_WAIT_S, longest=_LONGEST_WAIT_S, random=self._random)
                wait = max(wait, failure.wait)
                if not failure.may_pass or time.monotonic() + wait > until:
                    # Whoever answers may repeat the key: then the error behind this one is not shown either.
                    raise failure.error from (None if self._server.has_key(_said(error)) else error)
                time.sleep(wait)
            else:
                _ANSWERED.add(self._server.url)
                return found

    def _failure(self, error: Exception) -> _Failure:
        from pydantic import ValidationError
        from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
        from qdrant_client.http.exceptions import UnexpectedResponse

        where, said = f"the Qdrant server at {self._server.url}", self._server.without_key(_said(error))
        if isinstance(error, QdrantException):
            # A Retry-After that is no number of seconds is one of these too.
            asked = error.retry_after_s if isinstance(error, ResourceExhaustedResponse) else 0
            message = f"{where} is overloaded ({said}). Run this again later"
            return _Failure(VectorsUnreachableError(message), may_pass=True, wait=asked)
        if not isinstance(error, UnexpectedResponse):
            if isinstance(error, json.JSONDecodeError) or isinstance(getattr(error, "source", None), ValidationError):
                message = f"what answers at {self._server.url} is no Qdrant server ({said}). Correct the setting url"
                return _Failure(VectorsUnreachableError(message), may_pass=False)
            message = f"{where} does not answer ({said}). Start it, or correct the setting url "
            message += "(and timeout_s, if it is only slow)"
            return _Failure(VectorsUnreachableError(message), may_pass=self._server.url in _ANSWERED)
        status = error.status_code
        answer = f"HTTP {status} {error.reason_phrase}: {said[:_ANSWER_SHOWN]}"
        if status in _UNAUTHORISED:
            message = f"{where} refuses the API key ({answer}). Set api_key to one that may write"
            return _Failure(VectorsUnreachableError(message), may_pass=False)
        if status in _OVERLOADED:
            message = f"{where} is overloaded, or a part of it is away ({answer}). Run this again later"
            asked_to_wait = retry_after_seconds(error.headers.get("Retry-After")) or 0
            return _Failure(VectorsUnreachableError(message), may_pass=True, wait=asked_to_wait)
        message = f"{where} failed: {answer}"
        if status == _TOO_LARGE:
            message = f"{where}, or a proxy before it, takes no request so large ({answer}). Have it take larger ones "
            message += "(Qdrant: service.max_request_size_mb; nginx: client_max_body_size)"
        return _Failure(VectorsServerError(message, status), may_pass=status == _FAILED)


def _said(error: Exception) -> str:
    """What an error says, the whole of an answer included."""
    content = getattr(error, "content", None)
    return str(error) if content is None else content.decode("utf-8", "replace")


class VectorsServerError(VectorsError):
    """The server answered a request with an error."""

    def __init__(self, message: str, status: int | None) -> None:
        self.status = status
        super().__init__(message)


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
        self._at_once: int | None = None
        super().__init__(identity, vectors, indexes)

    @property
    def points(self) -> int | None:
        """About how many points there were when it was opened."""
        return self._info.points_count

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
        while rows:
            part = rows[: self._at_once]
            try:
                self._ask("upsert", points=part, wait=True)
            except VectorsServerError as error:
                if error.status != _TOO_LARGE or len(part) == 1:
                    raise
                # From now on no request has more.
                self._at_once = len(part) // 2
            else:
                rows = rows[len(part) :]

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


def _usable_key(key: SecretStr) -> SecretStr:
    """A key without the end of line that a file of secrets has, so that no header is refused, and shown, for it."""
    text = key.get_secret_value().strip()
    if not text or not (text.isascii() and text.isprintable()):
        raise PydanticCustomError("api_key", "a key is of letters, digits and signs; leave it out if there is none")
    return SecretStr(text)


class ServerQdrant(Vectors):
    """The collection on a Qdrant server, 1.16 or newer (collection metadata keep its identity).

    Any number of processes may use it at once, each replacing other shards.

    Attributes:
        url: Address of the server, such as http://localhost:6333.
        api_key: The server's API key, if it wants one.
        collection: Name of the collection on the server.
        timeout_s: Seconds to wait for an answer.
        wait_s: Seconds to go on asking a server that is overloaded, fails, or has answered before and does not now.
    """

    kind: ClassVar[str] = "server"

    url: Annotated[str, matching(r"^https?://[^/\s]+", "a URL such as http://localhost:6333")]
    api_key: Annotated[SecretStr, AfterValidator(_usable_key)] | None = None
    collection: Annotated[str, matching(r"^[A-Za-z0-9_-]+$", "a name of letters a to z, digits, _ and -")] = "captions"
    timeout_s: PositiveInt = 60
    wait_s: NonNegativeFloat = 60.0

    _seen: tuple[float, tuple[str, int | None], Contents] | None = PrivateAttr(None)

    def signature(self) -> dict[str, Any]:
        """Only the kind: the place does not change the content, and the collection's identity shows if it exists."""
        return {"kind": self.kind}

    @property
    def location(self) -> str:
        """Where the collection is, in words."""
        return f"the collection '{self.collection}' of the Qdrant server at {self.url}"

    def has_key(self, text: str) -> bool:
        """Whether the key stands in a text."""
        return self.api_key is not None and self.api_key.get_secret_value() in text

    def without_key(self, text: str) -> str:
        """A text that may be shown."""
        return text.replace(self.api_key.get_secret_value(), "<api_key>") if self.api_key is not None else text

    @contextmanager
    def open(
        self, vectors: Mapping[str, int] | None = None, indexes: Mapping[str, Index] = DEFAULT_INDEXES
    ) -> Iterator[ServerCollection]:
        """Opens the collection, made first if there is none."""
        if vectors is not None:
            check_names(vectors)
        with self._connected() as ask:
            info = self._info(ask)
            if info is None:
                if vectors is None:
                    raise VectorsMissingError(f"{self.location} does not exist yet. {self._refill()}")
                self._create(ask, vectors)
                info = ask("get_collection")
            identity = self._identity(info)
            there = self._vectors(info)
            if vectors is not None:
                check_vectors(self.location, there, vectors, self._how_to_fix())
            yield ServerCollection(ask, info, identity, there, indexes)

    def contents(self, vectors: Mapping[str, int]) -> Contents:
        """As ``Vectors.contents``; for a minute counted again only if the number of all points is another.

        Counting the points of every shard takes time with all of them, and this is asked for each shard.
        """
        with self.open(vectors) as collection:
            now, state = time.monotonic(), (collection.identity, collection.points)
            if self._seen is None or now - self._seen[0] > _REMEMBERED_S or self._seen[1] != state:
                self._seen = now, state, Contents(collection.identity, collection.points_by_shard())
            return self._seen[2]

    def recreate(self, vectors: Mapping[str, int]) -> None:
        """Replaces the collection by a new and empty one, unless it is not one that was made here."""
        check_names(vectors)
        with self._connected() as ask:
            info = self._info(ask)
            if info is not None:
                self._identity(info)
                ask("delete_collection")
            self._create(ask, vectors)

    def _info(self, ask: _Client) -> CollectionInfo | None:
        """What the server tells of the collection; None if there is none."""
        return ask("get_collection") if ask("collection_exists") else None

    def _connect(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        key = self.api_key.get_secret_value() if self.api_key is not None else None
        # The client's own check of versions would report a server that is down as a mere warning. Certificates, which
        # take four times as long to load as all else, are of https alone.
        return QdrantClient(
            url=self.url,
            api_key=key,
            timeout=self.timeout_s,
            check_compatibility=False,
            verify=self.url.startswith("https:"),
        )

    @contextmanager
    def _connected(self) -> Iterator[_Client]:
        try:
            client = self._connect()
        except ValueError as error:
            raise VectorsUnreachableError(f"'{self.url}' is not the address of a Qdrant server: {error}") from error
        try:
            yield _Client(client, self)
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
            # Another process made it in the meantime, or this one did and heard no answer: that collection is as good.
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
