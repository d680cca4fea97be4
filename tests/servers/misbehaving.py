"""A server with OpenAI's chat interface that does everything that a server should not, on real sockets.

It is written on plain connections, since what it does wrong is below what a web framework lets one do: it stalls in the
middle of an answer, resets connections, closes them half way, answers in what is not HTTP, dies and comes back.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections import Counter
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from tests.caption_server import caption_of
from tests.servers.on_a_thread import ServerOnAThread

if TYPE_CHECKING:
    from collections.abc import Callable

FOREVER = 3600.0
"""Longer than any test."""


def _answer(content: object, finish_reason: str = "stop") -> dict:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 300, "completion_tokens": 9}}


def _http(body: bytes, status: str = "200 OK", *, length: int | None = None, keep: bool = False) -> bytes:
    """An answer, after which the connection is kept or, as the answer says, closed."""
    connection = "keep-alive" if keep else "close"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}"
    return f"{head}\r\nConnection: {connection}\r\n\r\n".encode() + body


def _json(content: object, *, keep: bool = False) -> bytes:
    return _http(json.dumps(content).encode(), keep=keep)


ERRORS = {
    "500": _http(b'{"error": {"message": "CUDA error"}}', "500 Internal Server Error"),
    "502": _http(b"<html>bad gateway</html>", "502 Bad Gateway"),
    "504": _http(b"", "504 Gateway Timeout"),
    "broken json": _http(b'{"choices": [{"message": {"content": "This im'),
    "html": _http(b"<html>Welcome to nginx!</html>"),
    "empty body": _http(b""),
    "not utf-8": _http(b"\xff\xfe\x00"),
    "empty text": _json(_answer("")),
    "blank text": _json(_answer(" \n ")),
    "no text": _json(_answer(None)),
    "finish_reason error": _json(_answer("This image", "error")),
    "finish_reason abort": _json(_answer("", "abort")),
    "a list": _json([1, 2, 3]),
    "no choices": _json({"choices": []}),
    "choices null": _json({"choices": None}),
    "no message": _json({"choices": [{"index": 0}]}),
    "message null": _json({"choices": [{"message": None}]}),
    "an error in 200": _json({"object": "error", "message": "CUDA out of memory", "code": 500}),
    "not http": b"\x16\x03\x01 what is this\r\n\r\n",
    "half an answer": _http(b'{"choices": [', length=1000),
}
"""What comes instead of an answer, after which the connection is closed."""


class MisbehavingServer(ServerOnAThread):
    """Serves on a thread of its own what ``behave`` says for each request.

    Args:
        behave: what to do for an image's number and the number of the request about it, from 1: one of ``FAULTS``,
            the bytes of an answer, or None for a caption.

    Attributes:
        asked: how often each image was asked about.
        url: address of the server, the same after it came back.
    """

    def __init__(self, behave: Callable[[int, int], str | bytes | None] = lambda *_: None) -> None:
        super().__init__()
        self.behave = behave
        self.asked: Counter[int] = Counter()
        self.most_at_once = self._at_once = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def _end_connections(self) -> None:
        for connection in list(self._connections):
            _reset(connection)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; returns whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        if head.startswith("GET"):
            writer.write(_json({"data": [{"id": "tiny"}]}, keep=True))
            return True
        content = json.loads(body)["messages"][0]["content"]
        url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
        number = Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).width - 1
        self.asked[number] += 1
        what = self.behave(number, self.asked[number])
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if what is None:
                await asyncio.sleep(0.01)
                writer.write(_json(_answer(caption_of(number)), keep=True))
                return True
            await _misbehave(writer, what)
        finally:
            self._at_once -= 1
        return False


async def _misbehave(writer: asyncio.StreamWriter, what: str | bytes) -> None:
    if isinstance(what, bytes):
        writer.write(what)
    elif what in ERRORS:
        writer.write(ERRORS[what])
    else:
        await BEHAVIOURS[what](writer)


async def _close(_: asyncio.StreamWriter) -> None:
    pass


async def _reset_at_once(writer: asyncio.StreamWriter) -> None:
    _reset(writer)


async def _reset_half_way(writer: asyncio.StreamWriter) -> None:
    writer.write(_http(b'{"choices": [', length=1000))
    await writer.drain()
    await asyncio.sleep(0.02)
    _reset(writer)


async def _say_nothing(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(FOREVER)


async def _stall(writer: asyncio.StreamWriter) -> None:
    writer.write(_http(b'{"choices": [', length=1000))
    await asyncio.sleep(FOREVER)


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(_http(b"", length=1 << 20))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _never_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, as the kernel does for a process that dies with data unread."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


BEHAVIOURS = {
    "closed": _close,
    "reset": _reset_at_once,
    "reset half way": _reset_half_way,
    "silent": _say_nothing,
    "stalls": _stall,
    "drips": _drip,
    "endless": _never_end,
}
FAULTS = (*ERRORS, *BEHAVIOURS)
"""Everything that a request may meet in passing."""
