"""A server on a thread of its own, which can go and come back at one address."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from tests.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, Self


class ServerOnAThread(ABC):
    """Listens while it is there.

    Attributes:
        url: its address, the same after it came back.
    """

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._loop = asyncio.new_event_loop()
        self._listening: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        self.come()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def come(self) -> None:
        """Listen."""
        self._run(self._listen())

    def go(self) -> None:
        """Refuse connections, and end those that there are, as a process that is killed."""
        self._run(self._end())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=1 << 24)

    async def _end(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        await self._end_connections()

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on one connection."""

    @abstractmethod
    async def _end_connections(self) -> None:
        """End those that there are."""
