"""How many requests to have under way at a server that does not say how many it takes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

FEWER = 0.7
MORE = 0.05
_SMOOTHING = 0.1
_FASTER = 0.9


class AdaptiveLimit:
    """A semaphore whose number of places falls when the server is overloaded, and grows again while it is not.

    Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does: it begins with all places, since a
    server that batches is fastest when it is full. When the server refuses a request or lets its time run out, or
    answers take longer than ``slow`` on average, 0.7 of the requests under way are left; a decrease counts once for
    all requests that were sent before it. Where fewer requests did not make answers faster, it is not their number
    that makes them slow, and there is no further decrease. With every round of answers there is one place more, or 5 %.

    For one event loop.
    """

    def __init__(self, most: int, slow: float, clock: Callable[[], float] = time.monotonic) -> None:
        """No request is under way yet.

        Args:
            most: places at most, 1 or more.
            slow: seconds that an answer may take on average.
            clock: the time in seconds.
        """
        self._most = most
        self._slow = slow
        self._clock = clock
        self._places = float(most)
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._decreased_at = -1.0
        self._closed_until = -1.0
        self._mean_seconds: float | None = None
        self._mean_at_decrease = math.inf

    @property
    def places(self) -> int:
        """Requests that may be under way at once now."""
        return int(self._places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Hold a place while a request is under way; gives the time at which it was taken."""
        await self._take()
        try:
            yield self._clock()
        finally:
            self._under_way -= 1
            self._wake()

    async def _take(self) -> None:
        while True:
            closed = self._closed_until - self._clock()
            if closed > 0:
                await asyncio.sleep(closed)
            elif self._under_way < self.places:
                self._under_way += 1
                return
            else:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn

    def _wake(self) -> None:
        for _ in range(min(self.places - self._under_way, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def answered(self, taken: float) -> None:
        """A request that took its place at ``taken`` was answered."""
        seconds = self._clock() - taken
        mean = seconds if self._mean_seconds is None else self._mean_seconds
        self._mean_seconds = mean + _SMOOTHING * (seconds - mean)
        if self._mean_seconds > self._slow:
            if taken >= self._decreased_at and self._mean_seconds < _FASTER * self._mean_at_decrease:
                self._mean_at_decrease = self._mean_seconds
                self.overloaded(taken)
        else:
            self._mean_at_decrease = math.inf
            self._places = min(self._places + max(1 / self._places, MORE), self._most)
            self._wake()

    def overloaded(self, taken: float, closed_for: float = 0.0) -> None:
        """The server refused the request that took its place at ``taken``, or let its time run out.

        Args:
            taken: when the request took its place.
            closed_for: seconds for which the server asks to be left alone.
        """
        now = self._clock()
        self._closed_until = max(self._closed_until, now + closed_for)
        if taken >= self._decreased_at:
            self._decreased_at = now
            self._places = max(1.0, FEWER * min(self._places, self._under_way))
