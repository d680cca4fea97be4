"""Fetches many URLs at once: decides whose turn it is, what to ask again and when, and when to stop."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from random import SystemRandom
from typing import TYPE_CHECKING, Generic, TypeVar

from dqe_assets.ingest.fetch.client import FetchError, Reply, parse_url
from dqe_assets.ingest.fetch.reasons import DEADLINE, OK, TIMEOUT, is_transient
from dqe_resources.retry import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dqe_assets.ingest.fetch.client import Client
    from dqe_assets.ingest.fetch.settings import Fetching
    from dqe_resources.web_url import WebUrl

T = TypeVar("T")

_LOOKAHEAD = 20_000
_READ_AT_ONCE = 256
_BUSY = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of a URL.

    Attributes:
        reason: ok, or why there are no bytes.
        detail: what was found.
        data: the body.
        encoding: what the answer called its Content-Encoding.
        attempts: how often it was asked for.
        http_status: of the last answer; None if none came.
        final_url: the last URL that was asked for.
        seconds: that the requests took, without waiting for their turn.
        at: when it ended.
    """

    reason: str
    detail: str | None
    data: bytes | None
    encoding: str | None
    attempts: int
    http_status: int | None
    final_url: str | None
    seconds: float
    at: datetime


@dataclass(eq=False, slots=True)
class _Host:
    """A host and port: what waits for it, what is in flight to it, and how it has behaved."""

    name: str
    places: int
    waiting: deque[_Job] = field(default_factory=deque)
    is_ready: bool = False
    active: int = 0
    movers: deque[asyncio.Future[None]] = field(default_factory=deque)
    parked_until: float = 0.0
    failures: int = 0
    last_failure: Reply = field(default_factory=Reply)

    def may_be_asked(self, now: float) -> bool:
        """Whether another request to it may begin."""
        return self.active < self.places and self.parked_until <= now

    async def enter(self) -> None:
        """Wait for a place, which ``leave`` gives up."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.parked_until - loop.time())
        if self.active < self.places:
            self.active += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self.movers.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place up, to whoever waits for it."""
        while self.movers:
            turn = self.movers.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1


@dataclass(eq=False, slots=True)
class _Job:
    """An item on its way; one with a verdict is asked for no more."""

    item: object
    url: WebUrl | None
    host: _Host
    verdict: Reply | None = None
    attempts: int = 0
    seconds: float = 0.0


class Scheduler(Generic[T]):
    """Fetches the URLs of many items, each host and all together within their limits.

    Hosts take turns. What failed for a passing reason waits, without a connection, until it is asked again; a host
    that says that it is busy is left alone for that time; one that never answers is given up.

    Args:
        client: asks.
        settings: the limits.
        keep: is told what became of each item, once.
        room: how many items may be in flight, apart from the limit on connections; ``pump`` is to be called when there
            is more.
        deadline: time of the loop's clock at which all that has not ended does.
    """

    def __init__(
        self,
        client: Client,
        settings: Fetching,
        *,
        keep: Callable[[T, Fetched], None],
        room: Callable[[], int],
        deadline: float,
    ) -> None:
        self._client, self._settings, self._keep, self._room = client, settings, keep, room
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._random = SystemRandom()
        self._rest: Iterator[tuple[T, str, str]] = iter(())
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[_Host] = deque()
        self._settled: deque[_Job] = deque()
        self._delayed: dict[_Job, asyncio.TimerHandle] = {}
        self._held = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self, items: Iterable[tuple[T, str, str]]) -> None:
        """Fetch the URLs of all items, which are read a bounded number ahead of where they are needed.

        Args:
            items: each with its URL, and the credentials for it.

        Raises:
            Exception: whatever reading the items or ``keep`` raised; nothing is in flight any more then.
        """
        self._rest = iter(items)
        self._ended = self._loop.create_future()
        expiry = self._loop.call_at(self._deadline, self._expire)
        try:
            self.pump()
            await self._ended
        finally:
            expiry.cancel()
            for timer in self._delayed.values():
                timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def pump(self) -> None:
        """Start what may be started: whenever something has ended or become ready, or there is more room."""
        try:
            while (
                not self._ended.done()
                and len(self._tasks) < min(self._settings.connections, self._room())
                and (job := self._next()) is not None
            ):
                if job.verdict is not None:
                    self._end(job, job.verdict)
                    continue
                task = self._loop.create_task(self._run(job))
                self._tasks.add(task)
                task.add_done_callback(self._finish)
            if not (self._tasks or self._held or self._ended.done()):
                self._ended.set_result(None)
        except Exception as error:  # noqa: BLE001  # of the source: for whoever waits for the end
            self.fail(error)

    def _next(self) -> _Job | None:
        if not self._settled and self._held < _LOOKAHEAD:
            self._read_ahead()
        job = self._settled.popleft() if self._settled else None
        while job is None and self._ready:
            host = self._ready.popleft()
            host.is_ready = False
            if host.waiting and host.may_be_asked(self._loop.time()):
                job = host.waiting.popleft()
                host.active += 1
                self._offer(host)
        self._held -= job is not None
        return job

    def _read_ahead(self) -> None:
        """Read until there is something to start."""
        while not (self._ready or self._settled) and self._held < _LOOKAHEAD:
            some = list(islice(self._rest, _READ_AT_ONCE))
            if not some:
                return
            for item, text, credentials in some:
                self._queue(self._job(item, text, credentials))

    def _job(self, item: T, text: str, credentials: str) -> _Job:
        try:
            url = parse_url(text, credentials)
        except FetchError as error:
            return _Job(item, None, _Host("", 0), Reply(error.reason, error.detail))
        return _Job(item, url, self._host_of(url))

    def _host_of(self, url: WebUrl) -> _Host:
        name = f"{url.host}:{url.port}"
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(name, self._settings.connections_per_host)
        return host

    def _queue(self, job: _Job) -> None:
        self._held += 1
        job.verdict = job.verdict or self._verdict(job.host)
        if job.verdict is None:
            job.host.waiting.append(job)
            self._offer(job.host)
        else:
            self._settled.append(job)

    def _verdict(self, host: _Host) -> Reply | None:
        """What becomes of every item of a host that is asked no more."""
        if self._loop.time() >= self._deadline:
            return Reply(DEADLINE, f"not ended within fetching.shard_seconds ({self._settings.shard_seconds:g})")
        if host.failures >= self._settings.host_failures:
            last = host.last_failure
            detail = f"not asked: the last {host.failures} requests to {host.name} had no answer; {last.detail}"
            return Reply(last.reason, detail)
        return None

    def _settle(self, host: _Host) -> None:
        """Pass on what waits for a host that is asked no more."""
        verdict = self._verdict(host)
        while verdict is not None and host.waiting:
            job = host.waiting.popleft()
            job.verdict = verdict
            self._settled.append(job)

    def _offer(self, host: _Host) -> None:
        if host.waiting and not host.is_ready and host.may_be_asked(self._loop.time()):
            host.is_ready = True
            self._ready.append(host)

    def _offer_again(self, host: _Host) -> None:
        self._offer(host)
        self.pump()

    async def _run(self, job: _Job) -> None:
        reply = await self._ask(job)
        wait = self._wait_before_next(job, reply)
        if wait is None:
            self._end(job, reply)
        else:
            self._held += 1
            self._delayed[job] = self._loop.call_later(wait, self._requeue, job)

    def _end(self, job: _Job, reply: Reply) -> None:
        fetched = Fetched(
            reply.reason,
            reply.detail,
            reply.data,
            reply.encoding,
            job.attempts,
            reply.http_status,
            reply.final_url,
            job.seconds,
            datetime.now(UTC),
        )
        self._keep(job.item, fetched)  # type: ignore[arg-type]  # a job is of what was put into it

    async def _ask(self, job: _Job) -> Reply:
        """Ask for an item, whose place at its host has been taken."""
        host, has_place = job.host, True

        def leave() -> None:
            nonlocal has_place
            if has_place:
                has_place = False
                host.leave()
                self._offer(host)
                self.pump()

        async def move(url: WebUrl) -> None:
            nonlocal host, has_place
            target = self._host_of(url)
            if target is not host:
                leave()
                host = target
                await host.enter()
                has_place = True

        job.attempts += 1
        try:
            reply = await self._client.get(job.url, move, self._deadline)  # type: ignore[arg-type]  # without one: a verdict
        finally:
            leave()
        job.seconds += reply.seconds
        if reply.reason == TIMEOUT and self._loop.time() >= self._deadline:
            return self._verdict(host) or reply
        self._judge(host, reply)
        return reply

    def _judge(self, host: _Host, reply: Reply) -> None:
        """Learn from a reply how its host is to be treated."""
        if reply.had_answer or not reply.was_asked:
            host.failures = 0 if reply.had_answer else host.failures
        else:
            host.failures += 1
            host.last_failure = reply
            self._settle(host)
        if reply.http_status in _BUSY and reply.reason != OK:
            wait = min(reply.retry_after or self._settings.backoff_seconds, self._settings.longest_wait_seconds)
            host.parked_until = max(host.parked_until, self._loop.time() + wait)
            self._loop.call_later(wait, self._offer_again, host)

    def _wait_before_next(self, job: _Job, reply: Reply) -> float | None:
        """The seconds to wait before an item is asked for again; None if it is not."""
        settings = self._settings
        if reply.reason in {OK, DEADLINE} or not is_transient(reply.reason) or job.attempts >= settings.attempts:
            return None
        longest = settings.longest_wait_seconds
        wait = backoff_seconds(job.attempts, base=settings.backoff_seconds, longest=longest, random=self._random)
        wait = max(wait, reply.retry_after or 0)
        return wait if wait <= longest and self._loop.time() + wait < self._deadline else None

    def _requeue(self, job: _Job) -> None:
        del self._delayed[job]
        self._held -= 1
        self._queue(job)
        self.pump()

    def _expire(self) -> None:
        """The time is up: what waits ends, and what is in flight ends by its own limit."""
        for host in self._hosts.values():
            self._settle(host)
        for job, timer in list(self._delayed.items()):
            timer.cancel()
            self._requeue(job)
        self.pump()

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)
        self.pump()

    def fail(self, error: BaseException) -> None:
        """End with an error of the client or of the caller's functions."""
        if not self._ended.done():
            self._ended.set_exception(error)
