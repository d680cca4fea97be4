"""Asking a server: any with the chat interface of OpenAI, such as lmdeploy, vLLM, SGLang or Ollama."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import queue
import random
import threading
import time
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from dqe_resources.captioners.limit import AdaptiveLimit
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample, VisionModel
from dqe_resources.retry import backoff_seconds, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

_LARGEST_ANSWER = 4 << 20
_SHOWN = 300
_MANY = 20
"""Failures in a row that no few images are the cause of."""
_LONGEST_WAIT = 30.0
_LONGEST_WAIT_FOR_SERVER = 5.0

_CUT = frozenset({"length", "max_tokens"})
_FAILED = frozenset({"error", "abort", "abnormal", "cancelled"})

# What no other request would be answered differently: wrong key, wrong address or model, fields the server refuses.
_WRONG_FOR_ALL = frozenset({401, 403, 404, 405, 422})
_UNAVAILABLE = frozenset({425, 429, 503})
_TRANSIENT = frozenset({408, 500, 502, 504})


def _server_url(url: str) -> str:
    stripped = url.rstrip("/").removesuffix("/v1")
    if not stripped.startswith(("http://", "https://")):
        msg = "expected http://HOST:PORT or https://HOST:PORT"
        raise ValueError(msg)
    return stripped


Seconds = Annotated[float, Field(gt=0)]


class ChatModel(VisionModel):
    """A vision-language model behind a server, asked many times at once, its answers taken as they come.

    Images are sent as base64 with the request, never as addresses. How many requests are under way adapts to the
    server, up to ``concurrency``. A request that fails in passing is sent again; while the server is away or has too
    much to do, everything waits for it; and where it gives no usable answer for ``give_up_after``, the run ends.

    Attributes:
        url: Address of the server, with or without ``/v1``.
        api_key_env: Name of the environment variable that holds the server's key, if it wants one.
        extra_body: Further fields of each request, by the server's names: top_p, repetition_penalty ...
        image_options: Further fields beside the image's URL, such as max_dynamic_patch for InternVL on lmdeploy.
        connect_seconds: Seconds that connecting may take.
        idle_seconds: Seconds that the server may be silent before or within an answer.
        total_seconds: Seconds that one answer may take in all.
        start_seconds: Seconds to wait for a server that is still starting.
        give_up_after: Seconds without a usable answer after which the run ends. What is finished is kept.
        retries: How often a sample is asked about again after an answer that cannot be used.
    """

    without_effect: ClassVar[frozenset[str]] = VisionModel.without_effect | {
        *("url", "api_key_env", "connect_seconds", "idle_seconds", "total_seconds"),
        *("start_seconds", "give_up_after", "retries"),
    }

    url: Annotated[str, AfterValidator(_server_url)]
    api_key_env: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    image_options: dict[str, Any] = Field(default_factory=dict)
    connect_seconds: Seconds = 10
    idle_seconds: Seconds = 120
    total_seconds: Seconds = 300
    start_seconds: Annotated[float, Field(ge=0)] = 120
    give_up_after: Seconds = 300
    retries: Annotated[int, Field(ge=0)] = 4

    @property
    @abstractmethod
    def label(self) -> str:
        """What messages call it."""

    def headers(self) -> dict[str, str]:
        """The headers of every request.

        Raises:
            CaptionerError: the environment does not hold the key.
        """
        headers = {"Content-Type": "application/json"}
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
            if not key:
                msg = f"{self.label}: {self.api_key_env} is not set; set it to the key of {self.url}"
                raise CaptionerError(msg)
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample."""
        image = base64.b64encode(sample.image).decode("ascii")
        optional = {
            "seed": self.seed if sample.seed is None else sample.seed,
            "repetition_ngram_size": self.repetition_ngram_size,
            "repetition_ngram_threshold": self.repetition_ngram_threshold,
        }
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}", **self.image_options}},
            {"type": "text", "text": sample.prompt},
        ]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": False,
            **{key: value for key, value in optional.items() if value is not None},
            **self.extra_body,
        }


@dataclass(eq=False)
class NoCaptionError(Exception):
    """An attempt that gave no caption.

    Attributes:
        message: what came instead.
        kind: ``all`` where no request will do better; ``row`` where this one will not; ``passing`` where it may;
            ``away`` where the server did not even try; ``unusable`` where it answered, and not as it was asked to;
            ``unasked`` where it was not asked.
        overloaded: whether the server has too much to do.
        wait: seconds to wait, where the server says how long.
        text: what text there was.
        seconds: that the attempt took.
        reason: finish reason of what becomes of it, if nothing better comes.
    """

    message: str
    kind: Literal["all", "row", "passing", "away", "unusable", "unasked"] = "passing"
    overloaded: bool = False
    wait: float | None = None
    text: str | None = None
    seconds: float = 0.0
    reason: Literal["error", "unparsable"] = "error"


class Conversation:
    """All requests about some samples, on an event loop in a thread of its own."""

    def __init__(self, model: ChatModel, samples: Iterator[Sample]) -> None:
        # Results wait here if whoever takes them is slow: a kilobyte each, and no more of them than samples.
        self._results: queue.SimpleQueue[tuple[int, Caption] | BaseException | None] = queue.SimpleQueue()
        self._model = model
        self._samples = samples
        self._limit = AdaptiveLimit(model.concurrency, min(model.idle_seconds, model.total_seconds) / 2)
        self._random = random.Random()  # noqa: S311
        self._answered = 0
        self._fruitless = 0
        self._last_use = 0.0
        self._main: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._fatal: CaptionerError | None = None

    def answers(self) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``; the requests are sent by a thread of their own, which takes the samples."""
        thread = threading.Thread(target=self._ask_in_thread, name="conversation", daemon=True)
        thread.start()
        try:
            while (result := self._results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._stop()
            thread.join()

    async def attempt(self, session: aiohttp.ClientSession, index: int, body: bytes) -> Caption:  # noqa: ARG002
        """Ask once, when there is a place for it.

        Args:
            session: the session.
            index: which sample it is about.
            body: the request.

        Raises:
            NoCaptionError: what came is no answer.
        """
        async with self._limit.place() as begun:
            try:
                caption = await self._ask(session, body)
            except NoCaptionError as fault:
                fault.seconds = time.monotonic() - begun
                if fault.overloaded:
                    self._limit.overloaded(begun, min(fault.wait or 0.0, self._model.give_up_after))
                raise
            self._limit.answered(begun)
            return replace(caption, seconds=time.monotonic() - begun)

    def _ask_in_thread(self) -> None:
        """Ask about all samples; the last of the results is None, or the error that ended it."""
        outcome: BaseException | None = None
        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            outcome = self._fatal
        except BaseException as error:  # noqa: BLE001
            outcome = error
        self._results.put(outcome)

    def _stop(self) -> None:
        """End all requests, from another thread; does nothing once they have ended."""
        self._stopped.set()
        if self._main is not None:
            with suppress(RuntimeError):  # The loop has ended.
                self._main.get_loop().call_soon_threadsafe(self._main.cancel)

    async def _run(self) -> None:
        import aiohttp

        self._main = asyncio.current_task()
        if self._stopped.is_set():
            return
        model = self._model
        timeout = aiohttp.ClientTimeout(
            total=model.total_seconds, connect=model.connect_seconds, sock_read=model.idle_seconds
        )
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=timeout, headers=model.headers()
        )
        async with session:
            await self._wait_until_it_answers(session)
            await self._ask_all(session)

    async def _wait_until_it_answers(self, session: aiohttp.ClientSession) -> None:
        import aiohttp

        model, started, attempt = self._model, time.monotonic(), 0
        while True:
            attempt += 1
            try:
                address, timeout = f"{model.url}/v1/models", aiohttp.ClientTimeout(total=model.connect_seconds)
                async with session.get(address, timeout=timeout, allow_redirects=False) as response:
                    if response.status in {401, 403} or 300 <= response.status < 400:
                        raise CaptionerError(f"{model.url}: {await _refusal(response)}")
                    # Some servers have no list of models, and need none to caption.
                    if response.status < 500 and response.status not in _UNAVAILABLE:
                        break
                    last = await _refusal(response)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                last = _described(error)
            if time.monotonic() - started > model.start_seconds:
                message = (
                    f"{model.url}: no server answered within {model.start_seconds:g} s (start_seconds); "
                    f"the last error: {last}; start it, or mend 'url' of {model.label} in data/dqe.yaml"
                )
                raise CaptionerError(message)
            await asyncio.sleep(
                backoff_seconds(attempt, base=0.5, longest=_LONGEST_WAIT_FOR_SERVER, random=self._random)
            )
        self._last_use = time.monotonic()

    async def _ask_all(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        # As many samples as may be under way, those that wait to be asked again among them.
        taken = asyncio.Semaphore(self._model.concurrency)
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            taken.release()
            if not task.cancelled() and (error := task.exception()) is not None and self._fatal is None:
                self._fatal = error if isinstance(error, CaptionerError) else CaptionerError(_described(error))
                if self._main is not None:
                    self._main.cancel()

        with ThreadPoolExecutor(1, thread_name_prefix="samples") as samples:
            try:
                index = 0
                while (body := await loop.run_in_executor(samples, self._next_body)) is not None:
                    await taken.acquire()
                    task = loop.create_task(self._caption(session, index, body))
                    tasks.add(task)
                    task.add_done_callback(ended)
                    index += 1
                while tasks:
                    await asyncio.wait(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _next_body(self) -> bytes | None:
        sample = next(self._samples, None)
        return None if sample is None else json.dumps(self._model.request(sample)).encode()

    async def _caption(self, session: aiohttp.ClientSession, index: int, body: bytes) -> None:
        """Ask until there is a caption, or none is to be had."""
        model = self._model
        attempts = faults = 0
        away_since: float | None = None
        while True:
            attempts += 1
            try:
                caption = await self.attempt(session, index, body)
            except NoCaptionError as fault:
                self._end_if_hopeless(fault)
                now = time.monotonic()
                away_since = (away_since or now - fault.seconds) if fault.kind == "away" else None
                faults += fault.kind != "away"
                if (
                    fault.kind in {"row", "unasked"}
                    or faults > model.retries
                    or (away_since is not None and now - away_since > model.give_up_after)
                ):
                    made = attempts - (fault.kind == "unasked")
                    failed = Caption(fault.text, fault.reason, fault.message, seconds=fault.seconds, attempts=made)
                    self._results.put((index, failed))
                    return
                if fault.kind == "unusable":
                    continue
                # A server that is away costs little to ask, and everything waits for its return.
                longest = _LONGEST_WAIT_FOR_SERVER if fault.kind == "away" else _LONGEST_WAIT
                wait = backoff_seconds(attempts, base=1, longest=longest, random=self._random)
                await asyncio.sleep(wait if fault.wait is None else min(fault.wait, model.give_up_after))
            else:
                self._has_answered()
                self._results.put((index, replace(caption, attempts=attempts)))
                return

    def _has_answered(self) -> None:
        self._answered, self._fruitless = self._answered + 1, 0
        self._last_use = time.monotonic()

    def _end_if_hopeless(self, fault: NoCaptionError) -> None:
        """Raise where the failure is the server's, and not an image's."""
        model = self._model
        if fault.kind == "unusable":
            self._has_answered()
        if fault.kind in {"unusable", "unasked"}:
            return
        self._fruitless += 1
        many = self._fruitless >= _MANY
        silent = time.monotonic() - self._last_use > model.give_up_after
        if fault.kind == "all":
            raise CaptionerError(f"{model.url}: {fault.message}")
        if fault.kind == "row" and many and not self._answered:
            raise CaptionerError(f"{model.url}: refused the first {self._fruitless} requests: {fault.message}")
        if fault.kind != "row" and silent and (many or fault.kind == "away"):
            message = (
                f"{model.url}: no usable answer for {model.give_up_after:g} s (give_up_after); "
                f"the last error: {fault.message}"
            )
            raise CaptionerError(message)

    async def _ask(self, session: aiohttp.ClientSession, body: bytes) -> Caption:
        import aiohttp

        try:
            address = f"{self._model.url}/v1/chat/completions"
            async with session.post(address, data=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise _fault_of(
                        response.status,
                        await _refusal(response),
                        retry_after_seconds(response.headers.get("Retry-After")),
                    )
                return parse_answer(await _read(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NoCaptionError(_described(error), "away") from error
        except TimeoutError as error:
            raise NoCaptionError(_described(error), overloaded=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoCaptionError(_described(error)) from error


def parse_answer(data: bytes) -> Caption:
    """The caption in a server's answer.

    Raises:
        NoCaptionError: there is none: broken JSON, another shape, no text, or generation failed.
    """
    try:
        answer = json.loads(data)
        (choice, *_), usage = answer["choices"], answer.get("usage") or {}
        content, reason = choice["message"].get("content"), str(choice.get("finish_reason") or "stop")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        text = "" if content is None else str(content)
        prompt_tokens, completion_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoCaptionError(f"an answer that is none: {_one_line(data)}") from error
    if reason in _FAILED:
        raise NoCaptionError(f"the server ended with finish_reason {reason}", text=text or None)
    if not text.strip():
        raise NoCaptionError("the text is empty", text=text)
    return Caption(text, "length" if reason in _CUT else "stop", None, prompt_tokens, completion_tokens)


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else None


def _fault_of(status: int, message: str, wait: float | None) -> NoCaptionError:
    if status in _UNAVAILABLE:
        return NoCaptionError(message, "away", overloaded=True, wait=wait)
    if status in _TRANSIENT:
        return NoCaptionError(message, wait=wait)
    if status in _WRONG_FOR_ALL or status < 400:
        return NoCaptionError(message, "all")
    return NoCaptionError(message, "row" if status < 500 else "passing")


async def _refusal(response: aiohttp.ClientResponse) -> str:
    """What a server said instead of a caption, on one line."""
    address = response.headers.get("Location", "")
    text = _one_line(await response.content.read(4 * _SHOWN))
    return " ".join(filter(None, (f"HTTP {response.status}", response.reason, address, text)))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > _LARGEST_ANSWER:
            begin = _one_line(bytes(data))
            raise NoCaptionError(f"an answer of more than {_LARGEST_ANSWER:,} bytes, which begins: {begin}")
    return bytes(data)


def _one_line(data: bytes) -> str:
    text = " ".join(data[: 4 * _SHOWN].decode("utf-8", "replace").split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _described(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
