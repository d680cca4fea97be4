"""A web server for benchmarks/fetch.py, in a process of its own: photos, answered after a given latency.

    python -m benchmarks.fetch_server [--latency 0.05] [--folder PHOTOS]

``GET /<anything>.jpg`` answers with a photo of the embedded sample, no two paths with the same bytes, or with the file
of that name in the folder; ``GET /stats`` with what it has done so far. It prints its port first. It does as little as
a server can: responses are ready, and a request is found by its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from dqe_resources.sources.sample_images.photos import PHOTOS

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = "127.0.0.1"

_UNKNOWN = b"404 Not Found"
_JPEG = b"\xff\xd8"
_RULES = {b"/robots.txt", b"/.well-known/tdmrep.json"}
"""Where clients look for what they may fetch: there is nothing."""


def photos() -> list[bytes]:
    """The sample's photos that are JPEG files, of at most 640 pixels a side: about as large as those of SBU."""
    return [data for photo in PHOTOS.values() if (data := photo.base_image()).startswith(_JPEG)]


class Statistics:
    """What the server has done."""

    def __init__(self) -> None:
        self.requests = self.connections = 0
        self.first = self.last = 0.0

    def to_json(self) -> bytes:
        """With its CPU time so far."""
        return json.dumps({**self.__dict__, "cpu": time.process_time()}).encode()


class Exchange(asyncio.Protocol):
    """One connection."""

    def __init__(self, body: Callable[[bytes], list[bytes]], latency: float, statistics: Statistics) -> None:
        self._body, self._latency, self._statistics = body, latency, statistics
        self._transport: Any = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._statistics.connections += 1

    def data_received(self, data: bytes) -> None:
        """Answer each request that has come to its end."""
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            path, close = head.split(b" ", 2)[1], b"connection: close" in head.lower()
            if path == b"/stats":
                self._send([self._statistics.to_json()], close=True)
                continue
            if path in _RULES:
                self._send([], close, _UNKNOWN)
                continue
            self._statistics.requests += 1
            self._statistics.first = self._statistics.first or time.time()
            body = self._body(path)
            answer = body, close, b"200 OK" if body else _UNKNOWN
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._send, *answer)
            else:
                self._send(*answer)

    def _send(self, body: list[bytes], close: bool, status: bytes = b"200 OK") -> None:
        if self._transport.is_closing():
            return
        self._statistics.last = time.time()
        length = sum(map(len, body))
        connection = b"close" if close else b"keep-alive"
        head = b"HTTP/1.1 %s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"
        self._transport.writelines([head % (status, length, connection), *body])
        if close:
            self._transport.close()


def of_folder(folder: Path, path: bytes) -> list[bytes]:
    """The photo of a folder that is called as the last part of the path; nothing if there is none."""
    try:
        return [(folder / path.decode().rpartition("/")[2]).read_bytes()]
    except OSError:
        return []


async def serve(latency: float, folder: Path | None) -> None:
    """Serve until killed."""
    bodies, statistics = photos(), Statistics()

    def of_sample(path: bytes) -> list[bytes]:
        return [bodies[zlib.crc32(path) % len(bodies)], path]

    body = of_sample if folder is None else partial(of_folder, folder)
    server = await asyncio.get_running_loop().create_server(
        lambda: Exchange(body, latency, statistics), ADDRESS, 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], sum(map(len, bodies)) // len(bodies), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--folder", type=Path, help="of photos")
    given = parser.parse_args()
    uvloop.run(serve(given.latency, given.folder))
