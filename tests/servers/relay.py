"""What stands before a server: its address stays, and it can be away and come back in no time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.servers.on_a_thread import ServerOnAThread

if TYPE_CHECKING:
    from typing import Any


class Relay(ServerOnAThread):
    """Passes on what comes, while it is there.

    Args:
        url: of the server.

    Attributes:
        url: to ask instead.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        address = urlsplit(url)
        self._server_at = (address.hostname, address.port)
        self._open: dict[asyncio.Task[Any] | None, list[asyncio.StreamWriter]] = {}

    async def _end_connections(self) -> None:
        for writer in [writer for both in self._open.values() for writer in both]:
            writer.transport.abort()
        await asyncio.gather(*filter(None, self._open), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection(*self._server_at)
        mine = asyncio.current_task()
        self._open[mine] = [writer, there]
        try:
            await asyncio.gather(_pass_on(reader, there), _pass_on(answers, writer))
        finally:
            del self._open[mine]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
