"""A web server on loopback that behaves as badly as the open web, one way for each path.

``/<behaviour>/<anything>`` answers as the function of that name below says; the server remembers what it was asked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator

ADDRESS = "127.0.0.2"
"""On loopback, but not what ``localhost`` means: the allow list can name it and nothing else."""


USER, PASSWORD = "reader@org", "pässword/1"
AUTHORIZATION = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@cache
def noise(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


@cache
def jpeg() -> bytes:
    return encoded(noise(), "JPEG")


def photo(path: str) -> bytes:
    """The photo at a path: another file at each."""
    return jpeg() + path.encode()


def black_png(width: int, height: int, mebibytes: int) -> bytes:
    """A PNG that says that it is of this size, of as many zeros as are given."""
    compressor = zlib.compressobj(1)
    data = b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(mebibytes)), compressor.flush()])

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@dataclass
class Exchange:
    """One request: its path, how often it came before, and the way back."""

    server: HostileServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    path: str
    times: int
    headers: dict[str, str]

    @property
    def photo(self) -> bytes:
        return photo(self.path)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: str, body: bytes = b"", **headers: str) -> None:
        headers = {"Content-Length": str(len(body)), "Content-Type": "image/jpeg"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        await self.send(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)

    async def redirect(self, location: str) -> None:
        await self.answer("302 Found", Location=location)

    async def drip(self, data: bytes) -> None:
        for byte in data:
            await self.send(bytes([byte]))
            await asyncio.sleep(0.02)

    async def wait_for_the_other_to_give_up(self) -> None:
        await self.reader.read()
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


BEHAVIOURS: dict[str, Callable[[Exchange], Awaitable[None]]] = {}


def behaviour(function: Callable[[Exchange], Awaitable[None]]) -> Callable[[Exchange], Awaitable[None]]:
    BEHAVIOURS[function.__name__] = function
    return function


def body(name: str, data: Callable[[], bytes]) -> None:
    """A behaviour that answers 200 with a body."""

    async def respond(exchange: Exchange) -> None:
        await exchange.answer("200 OK", data())

    BEHAVIOURS[name] = respond


def status(name: str, line: str, **headers: str) -> None:
    """A behaviour that always answers so."""

    async def respond(exchange: Exchange) -> None:
        await exchange.answer(line, b"<html>no</html>", **headers)

    BEHAVIOURS[name] = respond


status("not_found", "404 Not Found")
status("forbidden", "403 Forbidden")
status("gone", "410 Gone")
status("unavailable", "503 Service Unavailable")
status("come_tomorrow", "429 Too Many Requests", Retry_After="86400")
status("nowhere", "302 Found")
status("no_reason", "599 ")
body("html", lambda: b"<!DOCTYPE html><title>not found</title>")
body("truncated", lambda: jpeg()[: len(jpeg()) // 2])
body("empty", lambda: b"")
GZIP_BOMB = gzip.compress(gzip.compress(bytes(256 << 20), 1))
BOMB, DEFLATED_BOMB = black_png(60_000, 60_000, 1), black_png(9_000, 9_000, 232)
body("bomb", lambda: BOMB)
body("deflated_bomb", lambda: DEFLATED_BOMB)
body("svg", lambda: b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")
body("same_stock_picture", jpeg)
body("cmyk", lambda: encoded(noise().convert("CMYK"), "JPEG"))
body("sixteen_bits", lambda: encoded(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"))
body("webp", lambda: encoded(noise(), "WEBP"))
body(
    "animation",
    lambda: encoded(noise(1), "GIF", save_all=True, append_images=[noise(2), noise(3)]),
)


@behaviour
async def good(exchange: Exchange) -> None:
    await asyncio.sleep(exchange.server.delay)
    await exchange.answer("200 OK", exchange.photo)


@behaviour
async def busy_then_good(exchange: Exchange) -> None:
    if exchange.times == 0:
        await exchange.answer("429 Too Many Requests", Retry_After="0")
    else:
        await exchange.answer("200 OK", exchange.photo)


@behaviour
async def busy_for_half_a_second(exchange: Exchange) -> None:
    server = exchange.server
    server.busy_since = server.busy_since or time.monotonic()
    if time.monotonic() < server.busy_since + 0.5:
        await exchange.answer("503 Service Unavailable", Retry_After="1")
    else:
        await exchange.answer("200 OK", exchange.photo)


@behaviour
async def error_then_good(exchange: Exchange) -> None:
    if exchange.times == 0:
        await exchange.answer("500 Internal Server Error")
    else:
        await exchange.answer("200 OK", exchange.photo)


@behaviour
async def reset_then_good(exchange: Exchange) -> None:
    if exchange.times == 0:
        exchange.reset()
    else:
        await exchange.answer("200 OK", exchange.photo)


@behaviour
async def redirect(exchange: Exchange) -> None:
    await exchange.redirect("/good/after-a-redirect")


@behaviour
async def redirect_to_good(exchange: Exchange) -> None:
    await exchange.redirect(f"/good/by-redirect{exchange.path.replace('/', '-')}")


@behaviour
async def redirect_to(exchange: Exchange) -> None:
    """To another server, whose port ends the path."""
    item, _, port = exchange.path.rpartition("/")[2].partition("-")
    await exchange.redirect(f"http://{ADDRESS}:{port or exchange.server.port}/good/redirected-{item}")


@behaviour
async def bytes_for_a_reason(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 404 N\xff\xfe\xed\xa0\x80\r\nContent-Length: 0\r\n\r\n")


@behaviour
async def redirect_to_bytes(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe.org/\xff\r\nContent-Length: 0\r\n\r\n")


@behaviour
async def redirect_loop(exchange: Exchange) -> None:
    await exchange.redirect(exchange.path)


@behaviour
async def redirect_to_private(exchange: Exchange) -> None:
    await exchange.redirect("http://169.254.169.254/latest/meta-data/")


@behaviour
async def redirect_to_private_name(exchange: Exchange) -> None:
    await exchange.redirect(f"http://localhost:{exchange.server.port}/good/by-name")


@behaviour
async def redirect_to_file(exchange: Exchange) -> None:
    await exchange.redirect("file:///etc/passwd")


@behaviour
async def redirect_to_removed(exchange: Exchange) -> None:
    await exchange.redirect("/removed/stock.png")


@behaviour
async def removed(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo)


@behaviour
async def slow_headers(exchange: Exchange) -> None:
    await exchange.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Padding: " + b"." * 10_000)


@behaviour
async def slow_body(exchange: Exchange) -> None:
    await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(exchange.photo)}\r\n\r\n".encode())
    await exchange.drip(exchange.photo)


@behaviour
async def silence(exchange: Exchange) -> None:
    await exchange.wait_for_the_other_to_give_up()


@behaviour
async def stalled_body(exchange: Exchange) -> None:
    await exchange.send(
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(exchange.photo)}\r\n\r\n".encode() + exchange.photo[:100]
    )
    await exchange.wait_for_the_other_to_give_up()


@behaviour
async def endless_body(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + exchange.photo)
    while True:
        await exchange.send(bytes(1 << 16))
        exchange.server.endless_bytes += 1 << 16


@behaviour
async def announced_too_large(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo, Content_Length=str(10**12))


@behaviour
async def longer_than_sent(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo, Content_Length=str(len(exchange.photo) + 100))
    exchange.writer.close()


@behaviour
async def shorter_than_sent(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo, Content_Length=str(len(exchange.photo) // 2))


@behaviour
async def without_length(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo, Content_Length="")
    exchange.writer.close()


@behaviour
async def chunked(exchange: Exchange) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(exchange.photo), exchange.photo)
    await exchange.answer("200 OK", chunks, Transfer_Encoding="chunked", Content_Length="")


@behaviour
async def torn_chunk(exchange: Exchange) -> None:
    chunks = b"%x\r\n%b" % (len(exchange.photo), exchange.photo[:50])
    await exchange.answer("200 OK", chunks, Transfer_Encoding="chunked", Content_Length="")
    exchange.writer.close()


@behaviour
async def reset_in_body(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo[:50], Content_Length=str(len(exchange.photo)))
    await asyncio.sleep(0.05)
    exchange.reset()


@behaviour
async def always_reset(exchange: Exchange) -> None:
    exchange.reset()


@behaviour
async def hung_up(exchange: Exchange) -> None:
    exchange.writer.close()


@behaviour
async def compressed(exchange: Exchange) -> None:
    await exchange.answer("200 OK", zlib.compress(exchange.photo), Content_Encoding="deflate")


@behaviour
async def encoded_as(exchange: Exchange) -> None:
    """A photo that nobody has encoded, whatever the header says."""
    name = exchange.path.rpartition("/")[2]
    await exchange.answer("200 OK", exchange.photo, Content_Encoding="gzip" if name == "0" else name)


@behaviour
async def gzipped(exchange: Exchange) -> None:
    await exchange.answer("200 OK", gzip.compress(exchange.photo), Content_Encoding="x-gzip, aws-chunked")


@behaviour
async def half_gzipped(exchange: Exchange) -> None:
    await exchange.answer("200 OK", gzip.compress(exchange.photo)[:-30], Content_Encoding="gzip")


@behaviour
async def gzip_bomb(exchange: Exchange) -> None:
    await exchange.answer("200 OK", GZIP_BOMB, Content_Encoding="gzip")


@behaviour
async def unknown_encoding(exchange: Exchange) -> None:
    await exchange.answer("200 OK", bytes(range(256)), Content_Encoding="br")


@behaviour
async def private(exchange: Exchange) -> None:
    if exchange.headers.get("authorization") == AUTHORIZATION:
        await exchange.answer("200 OK", exchange.photo)
    else:
        await exchange.answer("401 Unauthorized", WWW_Authenticate="Basic")


@behaviour
async def redirect_raw(exchange: Exchange) -> None:
    """To what stands behind the first question mark, as it is."""
    await exchange.redirect(exchange.path.partition("?")[2] or "/good/raw")


@behaviour
async def opted_out(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo, X_Robots_Tag="noai, noimageai")


@behaviour
async def reserved(exchange: Exchange) -> None:
    await exchange.answer("200 OK", exchange.photo, tdm_reservation="1")


@behaviour
async def others_opted_out(exchange: Exchange) -> None:
    await exchange.answer(
        "200 OK", exchange.photo, X_Robots_Tag="otherbot: noindex, unavailable_after: 25 Jun 2010 15:00:00 PST"
    )


@behaviour
async def garbage(exchange: Exchange) -> None:
    await exchange.send(bytes(range(256)) * 4)
    exchange.writer.close()


@behaviour
async def garbage_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n\xff\xfe\x00no colon\r\nContent-Length: many\r\n\r\n" + exchange.photo)
    exchange.writer.close()


@behaviour
async def endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100_000)))
    exchange.writer.close()


@dataclass
class HostileServer:
    """The server, in a thread of its own.

    Attributes:
        port: of HTTP.
        tls_port: of HTTPS, with a certificate that nobody has signed.
        asked: how often each path was asked for.
        authorized: the header Authorization of the last request for each path that had one.
        most_at_once: requests that it had to answer at once.
        endless_bytes: how much of endless bodies could be sent.
        delay: seconds before ``good`` answers.
        files: status, body and perhaps headers of further paths.
    """

    certificate: ssl.SSLContext | None = None
    delay: float = 0.0
    port: int = 0
    tls_port: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    authorized: dict[str, str] = field(default_factory=dict)
    endless_bytes: int = 0
    busy_since: float = 0.0
    most_at_once: int = 0
    files: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _at_once: int = 0

    def url(self, behaviour: str, item: object = 0) -> str:
        """URL of a behaviour."""
        return f"http://{ADDRESS}:{self.port}/{behaviour}/{item}"

    def times(self, behaviour: str) -> list[int]:
        """How often each path of a behaviour was asked for."""
        return [count for path, count in self.asked.copy().items() if path.startswith(f"/{behaviour}/")]

    @contextlib.contextmanager
    def running(self) -> Iterator[HostileServer]:
        """Serve meanwhile."""
        loop = asyncio.new_event_loop()
        loop.run_until_complete(self._start())
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _start(self) -> None:
        plain = await asyncio.start_server(self._serve, ADDRESS, 0, backlog=1024)
        self.port = plain.sockets[0].getsockname()[1]
        if self.certificate:
            secure = await asyncio.start_server(self._serve, ADDRESS, 0, ssl=self.certificate)
            self.tls_port = secure.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                path = head[0].split(" ")[1]
                headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:])}
                exchange = Exchange(self, reader, writer, path, self.asked[path], headers)
                self.asked[path] += 1
                if "authorization" in headers:
                    self.authorized[path] = headers["authorization"]
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    if path in self.files:
                        line, content, *more = self.files[path]
                        await exchange.answer(line, content, **dict(*more))
                    else:
                        await BEHAVIOURS[path.split("/")[1]](exchange)
                finally:
                    self._at_once -= 1
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
