"""How many requests to have under way at a server that does not say how many it takes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

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

    def __init__(
        self,
        most: int,
        slow: float,
        clock: Callable[[], float] = time.monotonic,
        waiting: deque[asyncio.Future[None]] | None = None,
    ) -> None:
        """No request is under way yet.

        Args:
            most: places at most, 1 or more.
            slow: seconds that an answer may take on average.
            clock: the time in seconds.
            waiting: requests that wait for a place, where several limits share them; by default those of this one.
        """
        self._most = most
        self._slow = slow
        self._clock = clock
        self._places = float(most)
        self._under_way = 0
        self._waiting = deque() if waiting is None else waiting
        self._decreased_at = -1.0
        self._closed_until = -1.0
        self._mean_seconds: float | None = None
        self._mean_at_decrease = math.inf
        self._places_before = 0.0

    @property
    def places(self) -> int:
        """Requests that may be under way at once now."""
        return int(self._places)

    @property
    def load(self) -> float:
        """The share of the places that are taken."""
        return self._under_way / self.places

    @property
    def closed_for(self) -> float:
        """Seconds for which the server is left alone; 0 or less if it is not."""
        return self._closed_until - self._clock()

    @property
    def is_free(self) -> bool:
        """Whether a request may be sent at once."""
        return self.closed_for <= 0 and self._under_way < self.places

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Hold a place while a request is under way; gives the time at which it was taken."""
        while not self.is_free:
            if self.closed_for > 0:
                await asyncio.sleep(self.closed_for)
            else:
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn
        with self.free_place() as begun:
            yield begun

    @contextmanager
    def free_place(self) -> Iterator[float]:
        """Hold a place, which is free, while a request is under way; gives the time at which it was taken."""
        self._under_way += 1
        try:
            yield self._clock()
        finally:
            self._under_way -= 1
            self._wake()

    def _wake(self) -> None:
        free = self.places - self._under_way
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def answered(self, taken: float) -> None:
        """A request that took its place at ``taken`` was answered."""
        self._places, self._places_before = max(self._places, self._places_before), 0.0
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

    def away(self, seconds: float) -> None:
        """The server cannot be reached: leave it alone for some seconds, and then ask it once."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)
        self._places_before = max(self._places_before, self._places)
        self._places = 1.0
