"""One request for one image: redirects, limits, refusals, and the result."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from dqe_assets.ingest.fetch.addresses import AddressRules
from dqe_assets.ingest.fetch.optout import opted_out
from dqe_assets.ingest.fetch.reasons import OK, PLACEHOLDER, TAKEN_DOWN, TIMEOUT, http_reason
from dqe_assets.ingest.fetch.refusals import MAX_FILE_BYTES, MAX_REDIRECTS, Answer, Refusals, RefusedError
from dqe_assets.ingest.fetch.resolver import RefusedAddressError, Resolver
from dqe_resources.retry import retry_after_seconds
from dqe_resources.web_url import WebUrl, separated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Any, Self

    from dqe_assets.ingest.fetch.settings import Fetching

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SUCCESSES = frozenset({200, 203})
_DRAINED_BYTES = 64 << 10
_LARGE_BYTES = 4 << 20
_LARGE_BODIES = 8


class FetchError(Exception):
    """Why there is no image: a reason of the vocabulary, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Reply:
    """What one request gave.

    Attributes:
        reason: ok, or why there are no bytes.
        detail: what was found.
        data: the body.
        encoding: what the answer calls its Content-Encoding.
        http_status: of the last answer; None if none came.
        final_url: the last that was asked for.
        retry_after: seconds that the server asks to wait.
        was_asked: whether a host was asked at all.
        had_answer: whether the host that was asked last began to answer.
        seconds: that it took, without waiting for its turn.
    """

    reason: str = OK
    detail: str | None = None
    data: bytes | None = None
    encoding: str | None = None
    http_status: int | None = None
    final_url: str | None = None
    retry_after: float | None = None
    was_asked: bool = False
    had_answer: bool = False
    seconds: float = 0.0


def parse_url(text: str, credentials: str = "") -> WebUrl:
    """The URL that is asked for.

    Raises:
        FetchError: bad_url.
    """
    try:
        return WebUrl.parse(text, credentials)
    except ValueError as error:
        raise FetchError("bad_url", f"{error}: {separated(text)[0][:200]!r}") from error


class Client:
    """A pool of connections for one shard, within the limits of the settings.

    Args:
        settings: how to fetch.
        max_bytes: a larger body is not read to its end.
        taken_down: says by which entry of the takedowns a URL must not be asked for; None if by none.
    """

    def __init__(
        self, settings: Fetching, max_bytes: int, taken_down: Callable[[str], str | None] = lambda _: None
    ) -> None:
        self._taken_down = taken_down
        self._settings = settings
        self._max_bytes = max_bytes
        self._rules = AddressRules(settings.allow)
        self._placeholders = settings.placeholders.places()
        self._directives = frozenset(directive.strip().lower() for directive in settings.disallowed_header_directives)
        self._token = settings.token
        self._refusals = Refusals(
            settings.known,
            self._ask_for_file,
            token=self._token,
            robots=settings.robots_txt,
            tdm=settings.tdm_reservation,
            failed_seconds=settings.backoff_seconds,
        )
        # Bodies that are read in part wait for nobody, but for one of these places once they are large: all the others
        # together then take a bounded part of memory, and those with a place can end.
        self._large = asyncio.Semaphore(_LARGE_BODIES)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        resolver = Resolver(self._rules, self._settings.connect_to)
        self._stack.push_async_callback(resolver.close)
        self._session = await self._opened(resolver, self._guarded_socket)
        self._trusting_session = await self._opened(resolver, None)
        self._stack.push_async_callback(self._refusals.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _opened(self, resolver: Resolver, socket_factory: Any) -> aiohttp.ClientSession:
        settings = self._settings
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # whoever calls bounds what is in flight
                resolver=resolver,
                use_dns_cache=False,  # the resolver remembers
                socket_factory=socket_factory,
            ),
            timeout=aiohttp.ClientTimeout(connect=settings.connect_seconds, sock_read=settings.idle_seconds),
            headers={"User-Agent": settings.sent_user_agent, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return await self._stack.enter_async_context(session)

    def _guarded_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for an address: the last place at which one can be refused, and none gets past it."""
        family, kind, protocol, _, address = info
        if not self._rules.permits(address[0]):
            raise RefusedAddressError(address[0])
        return socket.socket(family, kind, protocol)

    async def get(self, url: WebUrl, move: Callable[[WebUrl], Awaitable[None]], deadline: float) -> Reply:
        """Ask for an image, once.

        Args:
            url: as ``parse_url`` gives it.
            move: waits until the host of another URL may be asked, to which this one is redirected.
            deadline: time of the loop's clock at which to stop, with the reason timeout.

        Returns:
            The reply, whatever came: it raises nothing but cancellation.
        """
        reply = Reply()
        try:
            await self._follow(url, move, reply, deadline)
        except FetchError as error:
            reply.reason, reply.detail = error.reason, _printable(error.detail)
        except Exception as error:  # noqa: BLE001  # hostile answers raise errors of many kinds: each is this row's outcome
            reply.reason, reply.detail = _reason_of(error), _in_words(error)
        return reply

    async def _follow(
        self, url: WebUrl, move: Callable[[WebUrl], Awaitable[None]], reply: Reply, deadline: float
    ) -> None:
        clock = asyncio.get_running_loop().time
        for hop in range(self._settings.max_redirects + 1):
            if entry := self._taken_down(str(url)):
                raise FetchError(TAKEN_DOWN, entry)
            if hop:
                async with asyncio.timeout_at(deadline):
                    await move(url)
            started = clock()
            limit = started + self._settings.request_seconds - reply.seconds
            try:
                async with asyncio.timeout_at(min(limit, deadline)):
                    await self._check(url, reply)
                    target = await self._ask(url, reply)
            finally:
                reply.seconds += clock() - started
            if target is None:
                return
            url = target
        raise FetchError("too_many_redirects", f"more than {self._settings.max_redirects}; the next is {url}")

    async def _check(self, url: WebUrl, reply: Reply) -> None:
        """See whether the host wants the URL to be fetched."""
        self._require_permitted(url.host)
        before = reply.final_url
        # If it does not answer that, it answers nothing.
        reply.final_url, reply.was_asked, reply.had_answer = str(url), True, False
        try:
            await self._refusals.check(url)
        except RefusedError as error:
            reply.final_url, reply.had_answer = before, True
            raise FetchError(error.reason, error.detail) from error

    async def _ask_for_file(self, url: WebUrl) -> Answer:
        """Ask for a file by which a host says what may be fetched; raises whatever keeps it from an answer."""
        async with asyncio.timeout(self._settings.request_seconds):
            for _ in range(MAX_REDIRECTS + 1):
                async with self._requested(url) as response:
                    location = response.headers.get("Location")
                    if response.status in _REDIRECTS and location:
                        await _drain(response)
                        url = _redirected(url, location)
                        continue
                    if response.status not in _SUCCESSES:
                        await _drain(response)
                        return Answer(response.status, b"")
                    return Answer(response.status, await _beginning(response, MAX_FILE_BYTES))
        # Whoever has no end of redirects has no such file (RFC 9309, 2.3.1.2).
        return Answer(404, b"")

    def _require_permitted(self, host: str) -> None:
        is_address = ":" in host or host.replace(".", "").isdigit()
        if is_address and not self._rules.permits(host):
            raise RefusedAddressError(host)

    def _requested(self, url: WebUrl) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The answer to a request; raises RefusedAddressError."""
        self._require_permitted(url.host)
        session = self._trusting_session if self._rules.trusts(url.host) else self._session
        return session.get(url.asked(), headers=url.headers, allow_redirects=False)

    async def _ask(self, url: WebUrl, reply: Reply) -> WebUrl | None:
        """Ask one host; returns where it redirects to, if it does."""
        requested = self._requested(url)
        reply.final_url, reply.was_asked, reply.had_answer = str(url), True, False
        async with requested as response:
            reply.http_status, reply.had_answer = response.status, True
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location:
                await _drain(response)
                return _redirected(url, location)
            if response.status not in _SUCCESSES:
                reply.retry_after = retry_after_seconds(response.headers.get("Retry-After"))
                await _drain(response)
                raise FetchError(http_reason(response.status), response.reason or "")
            self._refuse(url, response)
            reply.encoding = response.headers.get("Content-Encoding")
            reply.data = await self._body(response)
        return None

    def _refuse(self, url: WebUrl, response: aiohttp.ClientResponse) -> None:
        if self._placeholders.match(f"{url.host}{url.path}".lower()):
            raise FetchError(PLACEHOLDER, f"a known placeholder: {url}")
        tags = response.headers.getall("X-Robots-Tag", [])
        if directive := opted_out(tags, token=self._token, directives=self._directives):
            raise FetchError("opted_out", f"X-Robots-Tag: {directive}")
        if self._settings.tdm_reservation and response.headers.get("tdm-reservation", "").strip() == "1":
            raise FetchError("tdm_reserved", "tdm-reservation: 1")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size, announced = 0, response.content_length or 0
        async with AsyncExitStack() as large:
            while announced <= self._max_bytes and size <= self._max_bytes:
                part = await response.content.readany()
                if not part:
                    return b"".join(parts)
                if size <= _LARGE_BYTES < size + len(part):
                    await large.enter_async_context(self._large)
                parts.append(part)
                size += len(part)
        found = f"{announced:,}" if announced else f"{size:,} or more"
        raise FetchError("too_large", f"{found} bytes, at most {self._max_bytes:,} are allowed")


def _redirected(url: WebUrl, location: str) -> WebUrl:
    try:
        return url.joined(location)
    except ValueError as error:
        raise FetchError("bad_url", f"redirected to {separated(location)[0][:200]!r}: {error}") from error


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short body that nobody wants: the connection can then be used again."""
    if (response.content_length or 0) <= _DRAINED_BYTES and response.content_length is not None:
        await response.read()


async def _beginning(response: aiohttp.ClientResponse, most: int) -> bytes:
    """A body, or as much of it as is wanted."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < most and (part := await response.content.readany()):
        parts.append(part)
    return b"".join(parts)[:most]


def _reason_of(error: Exception) -> str:  # noqa: PLR0911
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        cause = error.os_error
        if isinstance(cause, RefusedAddressError):
            return "refused_address"
        return "dns_temporary" if cause.errno == socket.EAI_AGAIN else "dns"
    if isinstance(error, RefusedAddressError | aiohttp.ClientConnectorError) and _was_refused(error):
        return "refused_address"
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "incomplete"
    if isinstance(error, aiohttp.ClientConnectionError | ConnectionError):
        return "reset"
    return "bad_response"


def _was_refused(error: OSError) -> bool:
    return isinstance(error, RefusedAddressError) or isinstance(error.__cause__, RefusedAddressError)


def _in_words(error: Exception) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection within fetching.connect_seconds"
    if isinstance(error, aiohttp.SocketTimeoutError):
        return "silent for fetching.idle_seconds"
    if isinstance(error, TimeoutError):
        return "not ended within fetching.request_seconds"
    return _printable(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _printable(text: str) -> str:
    """Text that can be stored: headers may hold bytes that are no text."""
    return text[:500].encode(errors="replace").decode()
