"""A server with OpenAI's chat interface that answers every request after the same time, and does as little as it can.

    python -m benchmarks.fixed_latency_server --latency 1

Prints its port, serves until its standard input ends, and then prints how many answers it gave and its CPU seconds.
Bodies are read into one buffer and forgotten; every answer is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

_CAPTION = (
    "This image showcases a tabby cat that lies on a wooden table beside a white cup, its eyes half closed, in the "
    "soft light of a window on the left; behind it, out of focus, are green plants and a shelf with books."
)
_USAGE = {"prompt_tokens": 1900, "completion_tokens": 48, "total_tokens": 1948}
_LENGTH = b"content-length:"


def _http(content: object) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_MODELS = _http({"object": "list", "data": [{"id": "fixed"}]})
_ANSWER = _http(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fixed",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _CAPTION}, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
)


class Connection(asyncio.BufferedProtocol):
    """One connection, a request after another."""

    answers = 0

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(1 << 18))
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the next bytes go: over the last ones."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Count a body's bytes, or look for the end of a head."""
        if self._left == 0:
            self._head += self._buffer[:nbytes]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            nbytes = len(self._head) - end - 4
            self._left = _content_length(self._head[:end])
            is_get, self._head = self._head.startswith(b"GET"), b""
            if is_get:
                self._write(_MODELS)
                return
        self._left -= nbytes
        if self._left == 0:
            self._loop.call_later(self._latency, self._write, _ANSWER)

    def _write(self, answer: bytes) -> None:
        Connection.answers += answer is _ANSWER
        if not self._transport.is_closing():
            self._transport.write(answer)  # type: ignore[attr-defined]


def _content_length(head: bytes) -> int:
    lines = (line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH))
    return next((int(line[len(_LENGTH) :]) for line in lines), 0)


async def _serve(latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(latency), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    print(Connection.answers, time.process_time())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds from a request to its answer")
    asyncio.run(_serve(parser.parse_args().latency))
