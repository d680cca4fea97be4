"""The servers of one model: a request goes to whichever has a free place."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dqe_resources.captioners.limit import AdaptiveLimit
from dqe_resources.retry import backoff_seconds

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence

_FAILURES = 3
"""Failures of a server in a row that are no chance."""
_LONGEST_AWAY = 30.0


@dataclass(eq=False)
class Replica:
    """A server.

    Attributes:
        url: its address.
        limit: how many requests it gets at once.
        failures: requests that failed since its last answer, and since it was left alone.
        times_away: how often it was left alone since its last answer.
        left_at: when it was last.
    """

    url: str
    limit: AdaptiveLimit
    failures: int = 0
    times_away: int = 0
    left_at: float = 0.0


class Replicas:
    """The servers of one model, each with a limit of its own.

    The server with the smallest share of its places taken gets the next request, so that work is shared by speed. One
    that cannot be reached, or fails several times in a row, is left alone for a while, longer each time, and asked once
    then; its requests go to the others.

    For one event loop.
    """

    def __init__(self, urls: Sequence[str], most: int, slow: float, random: random.Random) -> None:
        """No request is under way yet.

        Args:
            urls: addresses, one or more.
            most: requests at once at most, at each.
            slow: seconds that an answer may take on average.
            random: of the seconds for which a server is left alone.
        """
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._random = random
        self.all = [Replica(url, AdaptiveLimit(most, slow, waiting=self._waiting)) for url in urls]

    @asynccontextmanager
    async def place(self, last: Replica | None = None) -> AsyncIterator[tuple[Replica, float]]:
        """Hold a place at a server while a request is under way; gives the server, and the time at which it was taken.

        Args:
            last: where the request failed before: another is asked if it is free.
        """
        while not (free := [one for one in self.all if one.limit.is_free]):
            await self._change()
        chosen = min(free, key=lambda one: (one is last, one.limit.load))
        with chosen.limit.free_place() as begun:
            yield chosen, begun

    async def _change(self) -> None:
        """Wait until a place is given back, or a server is no longer left alone."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        closed = [one.limit.closed_for for one in self.all if one.limit.closed_for > 0]
        try:
            await asyncio.wait_for(turn, min(closed, default=None))
        except TimeoutError:
            return

    def others_are_open(self, replica: Replica) -> bool:
        """Whether a server beside this one may be asked."""
        return any(one is not replica and one.limit.closed_for <= 0 for one in self.all)

    def answered(self, replica: Replica, begun: float) -> None:
        """A request that took its place at ``begun`` was answered."""
        replica.failures = replica.times_away = 0
        replica.limit.answered(begun)

    def failed(self, replica: Replica, begun: float, *, is_away: bool) -> None:
        """A request failed that was no worse than others.

        Args:
            replica: where.
            begun: when it took its place: what was sent before a server was left alone counts no more.
            is_away: whether the server could not be reached.
        """
        if begun < replica.left_at:
            return
        replica.failures += 1
        if len(self.all) > 1 and (is_away or replica.failures >= _FAILURES):
            replica.failures, replica.left_at = 0, time.monotonic()
            replica.times_away += 1
            seconds = backoff_seconds(replica.times_away, base=1, longest=_LONGEST_AWAY, random=self._random)
            replica.limit.away(seconds)
