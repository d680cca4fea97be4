"""The client of a chat server: many requests at once, each sent again if that may help."""

from __future__ import annotations

import asyncio
import json
import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from dqe_resources.captioners.chat_answer import (
    UNAVAILABLE,
    NoAnswerError,
    described,
    error_of_status,
    parse_answer,
    read_body,
    refusal,
)
from dqe_resources.captioners.protocol import Caption, CaptionerError, NoCaptionerError, Sample
from dqe_resources.captioners.replicas import Replica, Replicas
from dqe_resources.retry import backoff_seconds, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from dqe_resources.captioners.chat import ChatServer

_MANY = 20
"""Failures in a row that no few images are the cause of."""
_LONGEST_WAIT = 30.0
_LONGEST_WAIT_FOR_SERVER = 5.0


class ChatClient:
    """All requests about some samples, on an event loop in a thread of its own."""

    def __init__(self, model: ChatServer, samples: Iterator[Sample]) -> None:
        # Results wait here if whoever takes them is slow: a kilobyte each, and no more of them than samples.
        self._results: queue.SimpleQueue[tuple[int, Caption] | BaseException | None] = queue.SimpleQueue()
        self._model = model
        self._samples = samples
        self._random = random.Random()  # noqa: S311
        slow = min(model.idle_seconds, model.total_seconds) / 2
        self._replicas = Replicas(model.addresses, model.concurrency, slow, self._random)
        self._failed_at: dict[int, Replica] = {}
        self._answered = 0
        self._failures = 0
        self._last_use = 0.0
        self._main: asyncio.Task[None] | None = None
        self._stopped = threading.Event()
        self._fatal: CaptionerError | None = None

    def answers(self) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``; the requests are sent by a thread of their own, which takes the samples."""
        thread = threading.Thread(target=self._ask_in_thread, name="chat-client", daemon=True)
        thread.start()
        try:
            while (result := self._results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._stop()
            thread.join()

    async def attempt(self, session: aiohttp.ClientSession, index: int, body: bytes) -> Caption:
        """Ask once, when there is a place for it.

        Args:
            session: the session.
            index: which sample it is about.
            body: the request.

        Raises:
            NoAnswerError: what came is no answer.
        """
        async with self._replicas.place(self._failed_at.pop(index, None)) as (replica, begun):
            try:
                caption = await self._ask(session, replica.url, body)
            except NoAnswerError as failure:
                failure.seconds = time.monotonic() - begun
                failure.url = replica.url
                self._failed_at[index] = replica
                if failure.overloaded:
                    replica.limit.overloaded(begun, min(failure.wait or 0.0, self._model.give_up_after))
                if failure.kind in {"transient", "unavailable"}:
                    is_away = failure.kind == "unavailable" and not failure.overloaded
                    self._replicas.failed(replica, begun, is_away=is_away)
                raise
            self._replicas.answered(replica, begun)
            return replace(caption, seconds=time.monotonic() - begun)

    def read(self, data: bytes) -> Caption:
        """What an answer says.

        Raises:
            NoAnswerError: nothing that can be used.
        """
        return parse_answer(data)

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
        """Wait for a server; of several, one is enough."""
        model, started, attempt = self._model, time.monotonic(), 0
        while True:
            attempt += 1
            faults = {}
            asked = [asyncio.create_task(self._greet(session, url)) for url in model.addresses]
            try:
                for answer in asyncio.as_completed(asked):
                    url, fault = await answer
                    if fault is None:
                        self._last_use = time.monotonic()
                        return
                    faults[url] = fault
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
            if time.monotonic() - started > model.start_seconds:
                said = "; ".join(f"{url}: {fault}" if len(faults) > 1 else fault for url, fault in faults.items())
                message = (
                    f"{model.where}: no server answered within {model.start_seconds:g} s (start_seconds); "
                    f"the last error: {said}; start it, or fix 'url' of {model.label} in data/dqe.yaml"
                )
                raise NoCaptionerError(message)
            await asyncio.sleep(
                backoff_seconds(attempt, base=0.5, longest=_LONGEST_WAIT_FOR_SERVER, random=self._random)
            )

    async def _greet(self, session: aiohttp.ClientSession, url: str) -> tuple[str, str | None]:
        """Ask a server for its models: its address, and what is wrong if it does not answer as one that is there.

        Raises:
            NoCaptionerError: it refuses whatever it is asked.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._model.connect_seconds)
        try:
            async with session.get(f"{url}/v1/models", timeout=timeout, allow_redirects=False) as response:
                if response.status in {401, 403} or 300 <= response.status < 400:
                    raise NoCaptionerError(f"{url}: {await refusal(response)}")
                # Some servers have no list of models, and need none to caption.
                is_there = response.status < 500 and response.status not in UNAVAILABLE
                return url, None if is_there else await refusal(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return url, described(error)

    async def _ask_all(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        # As many samples as may be under way, those that wait to be asked again among them.
        taken = asyncio.Semaphore(self._model.concurrency * len(self._model.addresses))
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            taken.release()
            if not task.cancelled() and (error := task.exception()) is not None and self._fatal is None:
                self._fatal = error if isinstance(error, CaptionerError) else CaptionerError(described(error))
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
        """Ask until there is a caption, or there will be none."""
        model = self._model
        attempts = failures = 0
        unavailable_since: float | None = None
        while True:
            attempts += 1
            try:
                caption = await self.attempt(session, index, body)
            except NoAnswerError as failure:
                self._raise_if_server_fails(failure)
                now = time.monotonic()
                unavailable_since = (
                    (unavailable_since or now - failure.seconds) if failure.kind == "unavailable" else None
                )
                failures += failure.kind != "unavailable"
                if (
                    failure.kind in {"rejected", "not_sent"}
                    or failures > model.retries
                    or (unavailable_since is not None and now - unavailable_since > model.give_up_after)
                ):
                    made = attempts - (failure.kind == "not_sent")
                    failed = Caption(
                        failure.text,
                        failure.reason,
                        failure.message,
                        seconds=failure.seconds,
                        attempts=made,
                        removed=failure.removed,
                    )
                    self._results.put((index, failed))
                    return
                if failure.kind == "unusable" or (
                    failure.kind == "unavailable" and self._replicas.others_are_open(self._failed_at[index])
                ):
                    continue
                # An unavailable server costs little to ask, and everything waits for its return.
                longest = _LONGEST_WAIT_FOR_SERVER if failure.kind == "unavailable" else _LONGEST_WAIT
                wait = backoff_seconds(attempts, base=1, longest=longest, random=self._random)
                await asyncio.sleep(wait if failure.wait is None else min(failure.wait, model.give_up_after))
            else:
                self._count_answer()
                self._results.put((index, replace(caption, attempts=attempts)))
                return

    def _count_answer(self) -> None:
        self._answered, self._failures = self._answered + 1, 0
        self._last_use = time.monotonic()

    def _raise_if_server_fails(self, failure: NoAnswerError) -> None:
        """Raise where the failure is the server's, and not an image's."""
        model = self._model
        if failure.kind == "unusable":
            self._count_answer()
        if failure.kind in {"unusable", "not_sent"}:
            return
        self._failures += 1
        many = self._failures >= _MANY
        silent = time.monotonic() - self._last_use > model.give_up_after
        if failure.kind == "fatal":
            raise NoCaptionerError(f"{failure.url}: {failure.message}")
        if failure.kind == "rejected" and many and not self._answered:
            raise NoCaptionerError(
                f"{model.where}: none of the first {self._failures} requests got a caption: {failure.message}"
            )
        if failure.kind != "rejected" and silent and (many or failure.kind == "unavailable"):
            message = (
                f"{model.where}: no usable answer for {model.give_up_after:g} s (give_up_after); "
                f"the last error: {failure.message}"
            )
            raise NoCaptionerError(message)

    async def _ask(self, session: aiohttp.ClientSession, url: str, body: bytes) -> Caption:
        import aiohttp

        try:
            async with session.post(f"{url}/v1/chat/completions", data=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise error_of_status(
                        response.status,
                        await refusal(response),
                        retry_after_seconds(response.headers.get("Retry-After")),
                    )
                return self.read(await read_body(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NoAnswerError(described(error), "unavailable") from error
        except TimeoutError as error:
            raise NoAnswerError(described(error), overloaded=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(described(error)) from error
