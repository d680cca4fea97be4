"""The server of the view: the page of Embedding Atlas over the samples, on this machine alone.

The page asks DuckDB in this process, so that it holds no more than it shows; thumbnails are read from the store when
they are shown. Nothing that samples say can run there: the page may load and ask nothing but this server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.view.assets import ROWS_AT_ONCE, samples_path
from dqe_assets.view.database import Samples, ViewQueryError
from dqe_assets.view.files import read_chosen, read_state
from dqe_assets.view.state import THUMBNAIL
from dqe_assets.view.tables import THUMBNAILS
from dqe_resources.errors import DataQualityError
from dqe_resources.store import StorageError, StoreAwayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    from dqe_assets.view.chosen import Chosen
    from dqe_resources.store import Store

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOST = "127.0.0.1"
"""Where it listens: this machine alone."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: load and run what this server gives it, and nothing else."""

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
_PICTURES = "/thumbnails/"
_QUERY, _SELECTION, _METADATA = "/data/query", "/data/selection", "/data/metadata.json"
_NOT_HERE = frozenset({"/data/archive.zip", "/data/dataset.parquet"})
"""What Embedding Atlas makes of samples that it holds in memory, as here it does not."""
_MOST_ASKED = 1 << 20
"""Bytes of a question."""
_KEPT = 64
"""Row groups of thumbnails that are kept in memory, of about a megabyte each."""


class PortError(DataQualityError):
    """The port cannot be listened on."""


def static_folder() -> Path:
    """The page of Embedding Atlas, inside its package."""
    import embedding_atlas

    return Path(embedding_atlas.__file__).parent / "static"


def properties(schema: pa.Schema, state: dict[str, Any]) -> dict[str, Any]:
    """What the page is told of the samples: which column is what, and what is shown first.

    Args:
        schema: of the samples.
        state: what is shown first.
    """
    from embedding_atlas.options import make_embedding_atlas_props

    has_map = "map_x" in schema.names
    return make_embedding_atlas_props(
        row_id="uid",
        x="map_x" if has_map else None,
        y="map_y" if has_map else None,
        text="caption",
        image=THUMBNAIL,
        neighbors="neighbours" if has_map else None,
        initial_state=state,
    )


def listening(port: int) -> socket.socket:
    """A socket that listens on this machine alone.

    Raises:
        PortError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise PortError(f"port {port} cannot be listened on ({error.strerror}); give another: --port") from error
    return listener


class _Source:
    """What Embedding Atlas takes. What the page keeps stays in memory: its own class keeps it in files."""

    def __init__(self) -> None:
        self.dataset, self.metadata = None, dict[str, Any]()
        self.additional_tables: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}

    def cache_set(self, name: str, data: Any) -> None:
        """Keep a value."""
        self._kept[name] = data

    def cache_get(self, name: str) -> Any:
        """What was kept; None if nothing was."""
        return self._kept.get(name)


def application(chosen: Chosen, store: Store, address: str) -> App:
    """The server's application, its samples loaded.

    Args:
        chosen: the samples.
        store: where their thumbnails are.
        address: as the page is opened, such as ``http://127.0.0.1:5055``.

    Raises:
        ViewError: what was written for the view is damaged.
    """
    from embedding_atlas.server import make_server

    def places(samples: pa.Table) -> pa.Array:
        begin = pa.scalar(f"{address}{_PICTURES}{quote(samples['shard'][0].as_py(), safe='')}/")
        rows = pc.if_else(pc.equal(samples["status"], "ok"), samples["row"], None)
        return pc.binary_join_element_wise(begin, rows.cast(pa.string()), "").combine_chunks()

    samples = read_chosen(chosen, places, pa.string())
    metadata = {"props": properties(samples.schema, read_state()), "database": {"type": "rest"}}
    # What a server on the same port had spilt when it was killed.
    spill = samples_path().with_name(f".spill-{address.rpartition(':')[2]}")
    shutil.rmtree(spill, ignore_errors=True)
    page = make_server(_Source(), static_path=str(static_folder()))
    return Guarded(page, metadata, Samples(samples, spill), pictures_of(store), address)


def pictures_of(store: Store) -> Callable[[str, int], bytes | None]:
    """Gives the thumbnail of a row of a shard; those that were shown last are at hand."""
    known = store.partitions("thumbnails")

    @lru_cache(maxsize=_KEPT)
    def group(shard: str, number: int) -> list[bytes | None]:
        rows = range(number * ROWS_AT_ONCE, (number + 1) * ROWS_AT_ONCE)
        found: list[bytes | None] = store.read_rows("thumbnails", shard, THUMBNAILS, rows, [THUMBNAIL])[
            THUMBNAIL
        ].to_pylist()
        return found

    def picture(shard: str, row: int) -> bytes | None:
        if shard not in known:
            return None
        found = group(shard, row // ROWS_AT_ONCE)
        return found[row % ROWS_AT_ONCE] if row % ROWS_AT_ONCE < len(found) else None

    return picture


class Guarded:
    """The application of the page with thumbnails, closed to all but a browser that has opened its address.

    Another site that a person visits could else ask for the samples, by a name of its own for this machine (DNS
    rebinding), or have something done.

    Args:
        page: the application that has the page's files, and keeps what it asks to keep.
        metadata: what the page is told first.
        samples: what it asks.
        picture: gives thumbnails.
        address: as the page is opened.
    """

    def __init__(
        self,
        page: App,
        metadata: dict[str, Any],
        samples: Samples,
        picture: Callable[[str, int], bytes | None],
        address: str,
    ) -> None:
        self._page, self._samples, self._picture, self._address = page, samples, picture, address
        self._metadata = json.dumps(metadata).encode()
        self._host = address.partition("://")[2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._page(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_policy(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if headers.get("host") == self._host.replace(HOST, "localhost"):
            await _send(send, 307, b"", "text/plain", location=f"{self._address}{quote(path)}")
        elif headers.get("host") != self._host or headers.get("origin", self._address) != self._address:
            await _send(send, 403, f"open {self._address}".encode(), "text/plain")
        elif path.startswith(_PICTURES):
            found = await asyncio.to_thread(self._picture_at, path.removeprefix(_PICTURES))
            await _send(send, 200 if found else 404, found or b"no picture", "image/jpeg" if found else "text/plain")
        elif path == _METADATA:
            await _send(send, 200, self._metadata, "application/json")
        elif path == _QUERY:
            asked = await _asked(scope, receive)
            await self._told(send, lambda: iter([self._samples.answer(asked["type"], asked["sql"])]))
        elif path == _SELECTION:
            asked = await _asked(scope, receive)
            await self._told(send, lambda: self._samples.exported(asked.get("predicate"), asked["format"]))
        elif path in _NOT_HERE:
            await _send(send, 404, b"run: dqe view --export DIR", "text/plain")
        else:
            await self._page(scope, receive, send)

    async def _told(self, send: Send, ask: Callable[[], Iterator[bytes]]) -> None:
        """Send what was asked for, piece by piece, or why it cannot be answered."""
        try:
            pieces = await asyncio.to_thread(ask)
            piece = await asyncio.to_thread(next, pieces, b"")
        except (ViewQueryError, KeyError, TypeError) as error:
            await _send(send, 500, json.dumps({"error": str(error)}).encode(), "application/json")
            return
        fields = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await asyncio.to_thread(next, pieces, b"")
        await send({"type": "http.response.body", "body": b""})

    def _picture_at(self, place: str) -> bytes | None:
        shard, _, row = place.rpartition("/")
        try:
            return self._picture(shard, int(row)) if row.isdecimal() else None
        except (StorageError, StoreAwayError):
            return None


async def _asked(scope: Scope, receive: Receive) -> dict[str, Any]:
    """The body of a request, or its query string's; nothing if it is not as the page asks."""
    body, more = b"", scope["method"] == "POST"
    while more and len(body) < _MOST_ASKED:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    text = body or parse_qs(scope["query_string"].decode("latin-1")).get("query", [""])[0]
    try:
        asked = json.loads(text)
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


def _with_policy(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *own]
        await send(message)

    return sending


async def _send(send: Send, status: int, body: bytes, kind: str, **more: str) -> None:
    fields = {"content-type": kind, "content-length": str(len(body)), **more}
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(app: App, listener: socket.socket) -> None:
    """Answer until Ctrl-C."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run([listener])
