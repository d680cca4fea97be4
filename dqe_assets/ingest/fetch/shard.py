"""Fetches the rows of a shard, host by host in turn, into files that lose little if the process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import uvloop

from dqe_assets.ingest.fetch.client import Client
from dqe_assets.ingest.fetch.reasons import OK
from dqe_assets.ingest.fetch.scheduler import Scheduler
from dqe_assets.ingest.outcomes import OUTCOMES, Outcome, by_reason_and_host, host_of, of_fetched
from dqe_resources.errors import WholeSourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from dqe_assets.ingest.fetch.scheduler import Fetched
    from dqe_assets.ingest.fetch.settings import Fetching
    from dqe_assets.ingest.settings import ImageLimits
    from dqe_resources.sources.rows import SourceRow
    from dqe_resources.store import Checkpoint

_SAVE_BYTES = 32 << 20
_MOST_UNSAVED_BYTES = 3 * _SAVE_BYTES
_DECODED_AT_ONCE = 32
_DECODERS = os.cpu_count() or 1
_WATCH_SECONDS = 0.2

Wanted = tuple[str, "SourceRow"]
"""The uid of a row, and the row."""

Steps = Generator[bool, None, None]
"""Work that goes on by itself: yields a few times a second whether there is news, and stops when it is closed."""


class CanaryError(WholeSourceError):
    """Too few of a source's first rows have an image, and so the others are not asked for."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A source's first rows, which are fetched before all others, and the share of them that must have an image.

    Attributes:
        source: name of the source.
        min_success_rate: 0 to 1.
        wanted: those that are to be fetched.
        kept: what became of the others, which are kept from before: how many ended with each reason, by host.
    """

    source: str
    min_success_rate: float
    wanted: Sequence[Wanted]
    kept: Counter[tuple[str, str]]

    def check(self, fetched: Counter[tuple[str, str]]) -> None:
        """See whether enough rows have an image.

        Raises:
            CanaryError: they have not; says why, by reason and host.
        """
        outcomes = self.kept + fetched
        total = outcomes.total()
        ok = sum(count for (reason, _), count in outcomes.items() if reason == OK)
        if ok < self.min_success_rate * total:
            raise CanaryError(
                f"source {self.source}: of its first {total:,} rows {ok:,} have an image ({ok / total:.1%}, at least "
                f"{self.min_success_rate:.0%} required); the others: {by_reason_and_host(outcomes.elements())}. "
                f"No more were fetched. If that is what the source is like, lower its min_success_rate in dqe.yaml; "
                f"else fix what the reasons name and run the same command again"
            )


def fetch_rows(
    wanted: Iterator[Wanted],
    settings: Fetching,
    limits: ImageLimits,
    checkpoint: Checkpoint,
    canary: Canary | None,
    watch: Callable[[Counter[str]], None],
    *,
    taken_down: Callable[[str], str | None] = lambda _: None,
) -> Steps:
    """Fetch rows, in threads of its own; yields whether the checkpoint holds more of them, and last when it holds all.

    Closed before its end it stops, and what has been fetched is in the checkpoint.

    Args:
        wanted: the rows, read as they are needed; without those of the canary.
        settings: how to fetch.
        limits: what is refused before it is decoded, and made smaller after.
        checkpoint: where outcomes are kept.
        canary: what must hold before they are fetched.
        watch: told a few times a second how many rows have ended with each reason.
        taken_down: as ``Client`` has it.

    Raises:
        CanaryError: the canary says so. The images that it found are kept, and its failures are not.
        StorageError: the checkpoint cannot be written.
    """
    saved = threading.Event()
    fetching = _ShardFetch(settings, limits, checkpoint, saved, taken_down)
    try:
        with contextlib.closing(_run_apart(fetching.run(wanted, canary), saved)) as steps:
            for is_news in steps:
                watch(fetching.reasons())
                yield is_news
    except CanaryError:
        found = checkpoint.rows(OUTCOMES)
        checkpoint.clear()
        checkpoint.append(found.filter(pc.equal(found["reason"], OK)))
        raise


class _ShardFetch:
    """Rows on their way from the web to the checkpoint: fetched, decoded on all cores, saved many at once."""

    def __init__(
        self,
        settings: Fetching,
        limits: ImageLimits,
        checkpoint: Checkpoint,
        saved: threading.Event,
        taken_down: Callable[[str], str | None],
    ) -> None:
        self._taken_down = taken_down
        self._settings, self._limits, self._checkpoint, self._saved = settings, limits, checkpoint, saved
        self._fetched: deque[tuple[Wanted, Fetched]] = deque()
        self._decoding = 0
        self._outcomes: list[Outcome] = []
        self._decoded_bytes = self._unsaved_rows = self._unsaved_bytes = 0
        self._decoders: set[asyncio.Task[None]] = set()
        self._saver: asyncio.Task[None] | None = None
        self._ended: Counter[tuple[str, str]] = Counter()
        # As many again can be fetched while these are being written.
        self._save_rows = max(1, (settings.checkpoint_rows - settings.connections) // 2)

    def reasons(self) -> Counter[str]:
        """How many rows have ended with each reason."""
        counts: Counter[str] = Counter()
        for (reason, _), count in list(self._ended.items()):
            counts[reason] += count
        return counts

    async def run(self, wanted: Iterator[Wanted], canary: Canary | None) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.shard_seconds
        async with Client(self._settings, self._limits.max_bytes, self._taken_down) as client:
            self._scheduler: Scheduler[Wanted] = Scheduler(
                client, self._settings, keep=self._keep, room=self._room, deadline=deadline
            )
            try:
                if canary:
                    await self._run(canary.wanted)
                    canary.check(self._ended)
                await self._run(wanted)
            finally:
                await self._save_all()

    async def _run(self, wanted: Iterable[Wanted]) -> None:
        await self._scheduler.run((one, one[1].url or "", one[1].credentials) for one in wanted)
        await self._save_all()

    def _room(self) -> int:
        """How many rows may be in flight, so that no more than allowed are lost to a kill."""
        return self._settings.checkpoint_rows - self._unsaved_rows if self._unsaved_bytes < _MOST_UNSAVED_BYTES else 0

    def _keep(self, item: Wanted, fetched: Fetched) -> None:
        self._fetched.append((item, fetched))
        self._unsaved_rows += 1
        self._unsaved_bytes += _size(fetched)
        if self._decoding < _DECODERS:
            self._decoding += 1
            decoder = asyncio.create_task(self._decode())
            self._decoders.add(decoder)
            decoder.add_done_callback(self._decoders.discard)
            decoder.add_done_callback(self._end)

    async def _decode(self) -> None:
        """Decode what has been fetched, in one thread, until nothing is left."""
        loop = asyncio.get_running_loop()
        try:
            while self._fetched:
                outcomes, size = await loop.run_in_executor(_threads("decode", _DECODERS), self._decode_some)
                self._outcomes += outcomes
                self._decoded_bytes += size
                for outcome in outcomes:
                    self._ended[outcome["reason"], host_of(outcome["url"])] += 1
                if self._is_save_due() and (self._saver is None or self._saver.done()):
                    # Of its own: who decodes does not wait for the disk.
                    self._saver = asyncio.create_task(self._save_what_is_due())
                    self._saver.add_done_callback(self._end)
        finally:
            self._decoding -= 1

    def _decode_some(self) -> tuple[list[Outcome], int]:
        """Outcomes, and the bytes that they were made of. It takes rows by itself: no thread waits for the loop."""
        outcomes: list[Outcome] = []
        size = 0
        while len(outcomes) < _DECODED_AT_ONCE:
            try:
                (uid, row), fetched = self._fetched.popleft()
            except IndexError:
                break
            outcomes.append({"uid": uid, "url": row.url, **of_fetched(row, fetched, self._limits)})
            size += _size(fetched)
        return outcomes, size

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._scheduler.fail(error)

    async def _save_all(self) -> None:
        results = await asyncio.gather(*self._decoders, return_exceptions=True)
        if self._saver:
            results += await asyncio.gather(self._saver, return_exceptions=True)
        await self._save()
        for error in results:
            if isinstance(error, Exception):
                raise error

    def _is_save_due(self) -> bool:
        return len(self._outcomes) >= self._save_rows or self._decoded_bytes >= _SAVE_BYTES

    async def _save_what_is_due(self) -> None:
        while self._is_save_due():
            await self._save()

    async def _save(self) -> None:
        (outcomes, size), self._outcomes, self._decoded_bytes = (self._outcomes, self._decoded_bytes), [], 0
        if outcomes:
            # Next to the threads that decode: most of it waits for the disk.
            await asyncio.get_running_loop().run_in_executor(_threads("save"), self._append, outcomes)
            self._unsaved_rows -= len(outcomes)
            self._unsaved_bytes -= size
            self._scheduler.pump()

    def _append(self, outcomes: list[Outcome]) -> None:
        self._checkpoint.append(pa.Table.from_pylist(outcomes, OUTCOMES))
        self._saved.set()


def _size(fetched: Fetched) -> int:
    return len(fetched.data or b"")


def _run_apart(main: Coroutine[None, None, None], news: threading.Event) -> Steps:
    """Run a coroutine on a loop in a thread of its own; yields at news, a few times a second, and as news at its end.

    An interrupt then reaches the caller, who ends it in order.
    """
    loop = uvloop.new_event_loop()

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    future = _threads("fetch").submit(_run_to_its_end, loop, main)
    future.add_done_callback(lambda _: news.set())
    try:
        while not future.done():
            is_news = news.wait(_WATCH_SECONDS)
            if is_news:
                news.clear()
            yield is_news
    finally:
        # It may end by itself meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(cancel)
        wait([future])
    future.result()
    yield True


@cache
def _threads(name: str, number: int = 1) -> ThreadPoolExecutor:
    # For the life of the process, since memory that a thread has freed stays with it, and new threads would take more.
    return ThreadPoolExecutor(number, thread_name_prefix=name)


def _run_to_its_end(loop: asyncio.AbstractEventLoop, main: Coroutine[None, None, None]) -> None:
    try:
        loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
