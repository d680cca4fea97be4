"""What hosts say of who may fetch what: robots.txt and TDMRep's file, asked for once for each host."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from protego import Protego

    from dqe_resources.web_url import WebUrl

ROBOTS = "/robots.txt"
TDM_FILE = "/.well-known/tdmrep.json"

MAX_FILE_BYTES = 500 << 10
"""Bytes that are read of such a file: what RFC 9309 asks for at least."""

MAX_REDIRECTS = 5
"""As many as RFC 9309 asks for at least."""

_KEPT_SECONDS = 24 * 3600
_KEPT_BYTES = 32 << 20
_BYTES_EACH = 1024
"""What a host takes beside its files."""

_MOST_TDM_RULES = 1000
_UNAVAILABLE = range(400, 500)
_TOO_MANY = 429
_ANY = "*"


class RefusedError(Exception):
    """A host does not want a URL to be fetched, or did not say whether it may be."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Answer(NamedTuple):
    """What a host answered when it was asked for a file.

    Attributes:
        status: HTTP status.
        data: the body, cut off at ``MAX_FILE_BYTES``; nothing if the status is no success.
    """

    status: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """What a host says.

    Attributes:
        robots: its robots.txt; None if all is allowed.
        robots_status: HTTP status of its robots.txt, where that means that nothing is allowed.
        tdm: whether a path is reserved, the first pattern that matches it decides: (pattern, is reserved).
        bytes: size of the files.
    """

    robots: Protego | None = None
    robots_status: int | None = None
    tdm: tuple[tuple[Protego, str, bool], ...] = ()
    bytes: int = 0

    def check(self, url: WebUrl, token: str) -> None:
        """See whether a URL may be fetched.

        Args:
            url: the URL.
            token: what this client is called in robots.txt.

        Raises:
            RefusedError: it may not.
        """
        if self.robots_status is not None:
            raise RefusedError("robots_unreachable", f"{ROBOTS} answers {self.robots_status}: that forbids all")
        if self.robots is not None and not self.robots.can_fetch(str(url), token):
            raise RefusedError("robots_txt", f"{ROBOTS} forbids it for {token}")
        for pattern, text, is_reserved in self.tdm:
            if not pattern.can_fetch(str(url), _ANY):
                if is_reserved:
                    raise RefusedError("tdm_reserved", f"{TDM_FILE}: {text}")
                return


@dataclass
class Known:
    """What is known of hosts: for a day at most, and within a bounded part of memory.

    It outlives the clients of single shards, which run one after the other.
    """

    _kept: OrderedDict[str, tuple[float, Rules]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def get(self, origin: str) -> Rules | None:
        """What is known of an origin."""
        found = self._kept.get(origin)
        if found is None or found[0] < time.monotonic():
            return None
        self._kept.move_to_end(origin)
        return found[1]

    def put(self, origin: str, rules: Rules) -> None:
        """Remember what an origin said; others are forgotten for it, those first that were not asked for longest."""
        if (before := self._kept.pop(origin, None)) is not None:
            self._bytes -= before[1].bytes + _BYTES_EACH
        self._kept[origin] = (time.monotonic() + _KEPT_SECONDS, rules)
        self._bytes += rules.bytes + _BYTES_EACH
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._bytes -= oldest.bytes + _BYTES_EACH


class Refusals:
    """Says which URLs hosts do not want to be fetched. Each host is asked once, however many wait for the answer.

    Args:
        known: what is known of hosts.
        ask: fetches a file of the host of a URL; raises whatever keeps it from an answer.
        token: what this client is called in robots.txt.
        robots: whether robots.txt counts.
        tdm: whether TDMRep's file counts.
        failed_seconds: for how long a host that did not answer is not asked again.
    """

    def __init__(
        self,
        known: Known,
        ask: Callable[[WebUrl], Coroutine[Any, Any, Answer]],
        *,
        token: str,
        robots: bool,
        tdm: bool,
        failed_seconds: float,
    ) -> None:
        self._known, self._ask, self._token = known, ask, token
        self._robots, self._tdm, self._failed_seconds = robots, tdm, failed_seconds
        self._asking: dict[str, asyncio.Task[Rules]] = {}

    async def check(self, url: WebUrl) -> None:
        """Wait until it is known whether a URL may be fetched.

        Raises:
            RefusedError: it may not.
            Exception: whatever kept its host from saying so.
        """
        if not (self._robots or self._tdm):
            return
        origin = f"{url.scheme}://{url.host}:{url.port}"
        rules = self._known.get(origin)
        if rules is None:
            task = self._asking.get(origin)
            if task is None:
                task = self._asking[origin] = asyncio.create_task(self._learn(url))
                task.add_done_callback(lambda done: self._keep(origin, done))
            # Who has waited long enough leaves the others their answer.
            rules = await asyncio.shield(task)
        rules.check(url, self._token)

    async def close(self) -> None:
        """Stop asking."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    def _keep(self, origin: str, done: asyncio.Task[Rules]) -> None:
        loop = asyncio.get_running_loop()
        if done.cancelled():
            return
        if done.exception() is None and done.result().robots_status is None:
            self._known.put(origin, done.result())
            self._asking.pop(origin, None)
        else:
            # It is asked again, but not by each of those that wait for it.
            loop.call_later(self._failed_seconds, self._asking.pop, origin, None)

    async def _learn(self, url: WebUrl) -> Rules:
        robots = asyncio.create_task(self._ask(url.joined(ROBOTS))) if self._robots else None
        tdm = asyncio.create_task(self._ask(url.joined(TDM_FILE))) if self._tdm else None
        tasks = [task for task in (robots, tdm) if task is not None]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        reserved = _answer(tdm)
        patterns = tdm_rules(reserved.data) if reserved is not None and _is_success(reserved) else ()
        size = len(reserved.data) if patterns and reserved is not None else 0
        if robots is None:
            return Rules(tdm=patterns, bytes=size)
        answer = robots.result()
        if _is_success(answer):
            return Rules(robots_rules(answer.data), tdm=patterns, bytes=size + len(answer.data))
        if answer.status in _UNAVAILABLE and answer.status != _TOO_MANY:
            return Rules(tdm=patterns, bytes=size)
        return Rules(robots_status=answer.status)


def robots_rules(data: bytes) -> Protego:
    """A robots.txt, as RFC 9309 reads it; what is no rule says nothing."""
    from protego import Protego

    return Protego.parse(data.decode("utf-8", "replace").removeprefix("\ufeff"))


def tdm_rules(data: bytes) -> tuple[tuple[Protego, str, bool], ...]:
    """The rules of TDMRep's file: its locations are patterns as those of robots.txt. What is no rule says nothing.

    See https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/.
    """
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return ()
    rules = []
    for one in found[:_MOST_TDM_RULES] if isinstance(found, list) else []:
        location = one.get("location") if isinstance(one, dict) else None
        reservation = one.get("tdm-reservation") if isinstance(one, dict) else None
        if not isinstance(location, str) or str(reservation) not in {"0", "1"}:
            continue
        text = " ".join(location.split()) or "/"
        pattern = robots_rules(
            f"User-agent: *\nDisallow: {text if text.startswith(('/', '*')) else '/' + text}".encode()
        )
        rules.append((pattern, text[:200], str(reservation) == "1"))
    return tuple(rules)


def _answer(task: asyncio.Task[Answer] | None) -> Answer | None:
    """What a host answered; None if it did not: then it reserves nothing."""
    return task.result() if task is not None and not task.cancelled() and task.exception() is None else None


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300
