"""What stands in for a Qdrant server: the part of its REST interface that is used here, on Qdrant's own engine.

Requests are read by qdrant-client's own models, and answers are checked by them, so what the server's interface does
not have is refused. Points are kept, filtered and compared by qdrant-edge, the engine that the server is built on; its
write-ahead log outlives a kill. A field of a request that it does not know what to do with is refused too, never passed
over.

What it does not prove, because it is one process with one segment holder for each collection: shards of a collection
on several nodes, replicas and how they agree, the server's own limits (but for the size of a request, which is the
server's default), its strict mode, its optimisers in the background and a graph's recall and speed under load, roles
and JWT, TLS, gRPC, and the words of its errors.

    python -m tests.servers.qdrant_app FOLDER PORT [HOST]

The key that it wants stands in QDRANT__SERVICE__API_KEY, as for the server. What goes wrong is told it by
``POST /faults``: see ``tests.servers.qdrant_server``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import threading
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import qdrant_edge as edge
from qdrant_client.http import models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI
    from pydantic import BaseModel

KEY = "QDRANT__SERVICE__API_KEY"
MAX_REQUEST_BYTES = 32 * 2**20
"""The server's ``max_request_size_mb``, as it comes."""
_FOREVER = 3600.0


class RefusedError(Exception):
    """A request that the server would not take."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kept:
    """A collection on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = models.CreateCollection.model_validate_json((folder / "about.json").read_text())
        self.shard: edge.EdgeShard = edge.EdgeShard.load(str(folder / "shard"))
        self.writing = threading.Lock()

    @staticmethod
    def make(folder: Path, about: models.CreateCollection) -> Kept:
        """A new one, whole or not there at all."""
        only(about, "vectors", "hnsw_config", "metadata")
        if not isinstance(about.vectors, dict) or about.hnsw_config is None:
            raise RefusedError(400, "the stand-in knows named vectors only, with a configuration of the graph")
        distances = {models.Distance.COSINE: edge.Distance.Cosine}
        types = {models.Datatype.FLOAT16: edge.VectorStorageDatatype.Float16}
        vectors = {}
        for name, one in about.vectors.items():
            only(one, "size", "distance", "datatype")
            vectors[name] = edge.EdgeVectorParams(
                size=one.size, distance=distances[one.distance], datatype=types[one.datatype]
            )
        only(about.hnsw_config, "m")
        graph = edge.HnswIndexConfig(m=about.hnsw_config.m, ef_construct=100, full_scan_threshold=10_000)
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        (new / "shard").mkdir(parents=True)
        (new / "about.json").write_text(about.model_dump_json(exclude_none=True))
        edge.EdgeShard.create(str(new / "shard"), edge.EdgeConfig(vectors=vectors, hnsw_config=graph)).close()
        new.rename(folder)
        return Kept(folder)

    def update(self, operation: edge.UpdateOperation) -> dict[str, Any]:
        """Do it, after whatever else is being done; the update's result."""
        with self.writing:
            self.shard.update(operation)
        return {"operation_id": 0, "status": "completed"}

    def info(self) -> dict[str, Any]:
        """What the server tells of a collection."""
        found = self.shard.info()
        params = {"vectors": {name: one.model_dump(exclude_none=True) for name, one in self.about.vectors.items()}}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": found.points_count,
            "indexed_vectors_count": found.indexed_vectors_count,
            "segments_count": found.segments_count,
            "config": {
                "params": params,
                "hnsw_config": {"m": self.about.hnsw_config.m, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
                "metadata": self.about.metadata,
            },
            "payload_schema": {
                field: {"data_type": str(index.data_type).rpartition(".")[2].lower(), "points": index.points}
                for field, index in found.payload_schema.items()
            },
        }


def all_kept(folder: Path) -> dict[str, Kept]:
    """The collections that are there, without what a kill left half made or half deleted."""
    for left in (*folder.glob("*.new"), *folder.glob("*.old")):
        shutil.rmtree(left)
    return {path.parent.name: Kept(path.parent) for path in folder.glob("*/about.json")}


def only(request: BaseModel, *known: str) -> None:
    """Refuse a request that says more than the stand-in knows."""
    unknown = {name for name in request.model_fields_set if getattr(request, name) is not None} - {*known}
    if unknown:
        raise RefusedError(400, f"the stand-in does not know {', '.join(sorted(unknown))} of {type(request).__name__}")


def filter_of(given: models.Filter | None) -> edge.Filter | None:
    """The engine's form of a filter."""
    if given is None:
        return None
    only(given, "must")
    must: list[Any] = []
    for condition in given.must if isinstance(given.must, list) else [given.must]:
        if isinstance(condition, models.HasIdCondition):
            must.append(edge.HasIdCondition({uuid.UUID(one) for one in condition.has_id}))
            continue
        if not isinstance(condition, models.FieldCondition):
            raise RefusedError(400, f"the stand-in does not know {type(condition).__name__}")
        only(condition, "key", "match", "range")
        if isinstance(condition.match, models.MatchValue):
            value = condition.match.value
            # The binding takes Python's True for the integer 1, and NumPy's as it is meant.
            match = edge.MatchValue(np.bool_(value) if isinstance(value, bool) else value)
            must.append(edge.FieldCondition(condition.key, match=match))
        elif isinstance(condition.range, models.Range):
            must.append(edge.FieldCondition(condition.key, range=edge.RangeFloat(**condition.range.model_dump())))
        else:
            raise RefusedError(400, f"the stand-in does not know this condition on {condition.key}")
    return edge.Filter(must=must)


def point(found: Any, *, score: bool = False) -> dict[str, Any]:
    """A point as the server tells of it."""
    told = {"id": str(uuid.UUID(str(found.id))), "payload": found.payload, "vector": found.vector}
    return {**told, "version": found.version, "score": found.score} if score else told


def make_app(folder: Path, key: str | None) -> FastAPI:  # noqa: C901, PLR0915 - a list of all calls
    """The server's calls that are made here."""
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    collections: dict[str, Kept] = {}
    making = threading.Lock()

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        collections.update(all_kept(folder))
        yield
        for one in collections.values():
            one.shard.close()

    app = FastAPI(lifespan=life)
    schemas = {
        models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
        models.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
        models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
        models.PayloadSchemaType.BOOL: edge.PayloadSchemaType.Bool,
    }

    def kept(name: str) -> Kept:
        try:
            return collections[name]
        except KeyError:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!") from None

    def ok(result: Any) -> dict[str, Any]:
        return {"time": 0.0, "status": "ok", "result": result}

    @app.exception_handler(Exception)
    @app.exception_handler(RefusedError)
    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        status = (
            error.status
            if isinstance(error, RefusedError)
            else 400
            if isinstance(error, RequestValidationError)
            else 500
        )
        return JSONResponse({"status": {"error": str(error)}, "time": 0.0}, status)

    @app.get("/collections/{name}/exists", response_model=models.InlineResponse2009)
    def exists(name: str) -> Any:
        return ok({"exists": name in collections})

    @app.put("/collections/{name}", response_model=models.InlineResponse2001)
    def create(name: str, about: models.CreateCollection) -> Any:
        with making:
            if name in collections:
                raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
            collections[name] = Kept.make(folder / name, about)
        return ok(True)

    @app.get("/collections/{name}", response_model=models.InlineResponse2007)
    def info(name: str) -> Any:
        return ok(kept(name).info())

    @app.delete("/collections/{name}", response_model=models.InlineResponse2001)
    def delete(name: str) -> Any:
        with making:
            gone = collections.pop(name, None)
            if gone is not None:
                old = gone.folder.rename(gone.folder.with_suffix(".old"))
                gone.shard.close()
                shutil.rmtree(old)
        return ok(gone is not None)

    @app.put("/collections/{name}/index", response_model=models.InlineResponse2008)
    def index(name: str, wait: bool, request: models.CreateFieldIndex) -> Any:
        finished(wait)
        schema = schemas[models.PayloadSchemaType(request.field_schema)]
        return ok(kept(name).update(edge.UpdateOperation.create_field_index(request.field_name, schema)))

    @app.put("/collections/{name}/points", response_model=models.InlineResponse2008)
    def upsert(name: str, wait: bool, request: models.PointsList) -> Any:
        finished(wait)
        only(request, "points")
        collection = kept(name)
        points = []
        for one in request.points:
            for vector, numbers in one.vector.items():
                if len(numbers) != collection.about.vectors[vector].size:
                    raise RefusedError(400, f"Wrong input: Vector dimension error: got {len(numbers)}")
            points.append(edge.Point(uuid.UUID(one.id), one.vector, one.payload or {}))
        return ok(collection.update(edge.UpdateOperation.upsert_points(points)))

    @app.post("/collections/{name}/points/delete", response_model=models.InlineResponse2008)
    def delete_points(name: str, wait: bool, request: models.PointIdsList) -> Any:
        finished(wait)
        only(request, "points")
        return ok(kept(name).update(edge.UpdateOperation.delete_points([uuid.UUID(one) for one in request.points])))

    @app.post("/collections/{name}/points", response_model=models.InlineResponse20017)
    def retrieve(name: str, request: models.PointRequest) -> Any:
        only(request, "ids", "with_payload", "with_vector")
        ids = [uuid.UUID(one) for one in request.ids]
        found = kept(name).shard.retrieve(ids, request.with_payload, request.with_vector)
        return ok([point(one) for one in found])

    @app.post("/collections/{name}/points/count", response_model=models.InlineResponse20020)
    def count(name: str, request: models.CountRequest) -> Any:
        only(request, "filter", "exact")
        asked = edge.CountRequest(exact=request.exact, filter=filter_of(request.filter))
        return ok({"count": kept(name).shard.count(asked)})

    @app.post("/collections/{name}/points/scroll", response_model=models.InlineResponse20019)
    def scroll(name: str, request: models.ScrollRequest) -> Any:
        only(request, "offset", "limit", "filter", "with_payload", "with_vector")
        asked = edge.ScrollRequest(
            offset=None if request.offset is None else uuid.UUID(request.offset),
            limit=request.limit,
            filter=filter_of(request.filter),
            with_payload=request.with_payload,
            with_vector=request.with_vector,
        )
        found, offset = kept(name).shard.scroll(asked)
        return ok({"points": [point(one) for one in found], "next_page_offset": offset and str(uuid.UUID(str(offset)))})

    @app.post("/collections/{name}/points/query", response_model=models.InlineResponse20022)
    def query(name: str, request: models.QueryRequest) -> Any:
        only(request, "query", "using", "limit", "filter", "params", "with_payload", "with_vector")
        if not isinstance(request.query, models.NearestQuery) or request.params is None:
            raise RefusedError(400, "the stand-in knows a vector as a query, with parameters")
        only(request.query, "nearest")
        only(request.params, "exact")
        asked = edge.QueryRequest(
            limit=request.limit,
            query=edge.Query.Nearest(request.query.nearest, using=request.using),
            filter=filter_of(request.filter),
            params=edge.SearchParams(exact=request.params.exact),
            with_payload=request.with_payload,
            with_vector=request.with_vector,
        )
        return ok({"points": [point(one, score=True) for one in kept(name).shard.query(asked)]})

    @app.post("/collections/{name}/facet", response_model=models.InlineResponse20021)
    def facet(name: str, request: models.FacetRequest) -> Any:
        only(request, "key", "limit", "exact")
        asked = edge.FacetRequest(request.key, limit=request.limit, exact=request.exact)
        hits = kept(name).shard.facet(asked).hits
        return ok({"hits": [{"value": hit.value, "count": hit.count} for hit in hits]})

    app.add_middleware(Gate, key=key)
    return app


def finished(wait: bool) -> None:
    """Refuse what would go on behind a request's back: here nothing does."""
    if not wait:
        raise RefusedError(400, "the stand-in knows updates that are waited for only")


class Gate:
    """What stands before the calls: the key, the size of a request, and what goes wrong."""

    def __init__(self, app: Any, key: str | None) -> None:
        self._app = app
        self._key = key
        self._faults: list[dict[str, Any]] = []
        self._seen: Counter[str] = Counter()
        self._at_once = self._most_at_once = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/faults":
            await self._tell(scope, receive, send)
            return
        path = f"{scope['method']} {scope['path']}"
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self._seen[re.sub("/collections/[^/]+", "/collections/NAME", path)] += 1
        if self._key is not None and headers.get("api-key") != self._key:
            await _answer(send, 401, b"Invalid API key or JWT")
            return
        length = int(headers.get("content-length", 0))
        if length > MAX_REQUEST_BYTES:
            await _answer(send, 413, b'{"status": {"error": "Payload reached size limit."}, "time": 0.0}')
            return
        self._at_once += 1
        self._most_at_once = max(self._most_at_once, self._at_once)
        try:
            fault = self._fault(path, length)
            if fault is None:
                await self._app(scope, receive, send)
            else:
                await self._go_wrong(fault, headers, scope, receive, send)
        finally:
            self._at_once -= 1

    def _fault(self, path: str, length: int) -> dict[str, Any] | None:
        for fault in self._faults:
            if fault["times"] and length >= fault["above"] and re.search(fault["path"], path):
                if fault["skip"]:
                    fault["skip"] -= 1
                    continue
                fault["times"] -= 1
                return fault
        return None

    async def _go_wrong(self, fault: dict[str, Any], headers: Any, scope: Any, receive: Any, send: Any) -> None:
        what = fault["what"]
        if what.isdigit():
            after = fault["retry_after"]
            extra = [(b"retry-after", after.encode())] if after is not None else []
            await _answer(send, int(what), b'{"status": {"error": "it is a test"}, "time": 0.0}', extra)
            return
        if what == "lost":
            await _begin(send, b'{"time": 0.0, "status": "ok", "result": ')
            return
        held: list[Any] = []

        async def hold(message: Any) -> None:
            held.append(message)

        await self._app(scope, receive, hold)
        if what == "silent":
            await asyncio.sleep(_FOREVER)
        elif what == "echo":
            await _answer(send, 500, json.dumps(headers).encode())
        elif what == "html":
            await _answer(send, 200, b"<html>Welcome to nginx!</html>")
        else:
            body = b"".join(message.get("body", b"") for message in held[1:])
            await _begin(send, body[: len(body) // 2])

    async def _tell(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self._faults = json.loads(body)
            self._seen.clear()
            self._most_at_once = 0
        found = {"seen": self._seen, "left": sum(fault["times"] for fault in self._faults)}
        await _answer(send, 200, json.dumps({**found, "most_at_once": self._most_at_once}).encode())


async def _answer(send: Any, status: int, body: bytes, headers: Any = ()) -> None:
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


async def _begin(send: Any, body: bytes) -> None:
    """The beginning of an answer. The connection of a call that ends before its answer is whole is closed."""
    length = str(2 * len(body) + 1).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body, "more_body": True})


if __name__ == "__main__":
    import uvicorn

    folder, port, *host = sys.argv[1:]
    made = make_app(Path(folder), os.environ.get(KEY))
    uvicorn.run(made, host=host[0] if host else "127.0.0.1", port=int(port), log_level="warning")
