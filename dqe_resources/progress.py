"""Progress of long work: to the log by default, or to whoever listens (the terminal)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_LOG_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """How far an asset's partition is: ``done`` of ``total`` samples; ``outcome`` once it has ended.

    ``note`` is a remark about work that is still running.
    """

    asset: str
    partition: str | None
    done: int
    total: int
    outcome: str | None = None
    note: str = ""


_listeners: list[Callable[[Step], None]] = []


@contextmanager
def listen(listener: Callable[[Step], None]) -> Iterator[None]:
    """Hand every step of this process to a listener."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def report(step: Step) -> None:
    """Tell the listeners."""
    for listener in _listeners:
        listener(step)


class Meter:
    """Tells how far a partition is: the listeners at once, the log every few seconds.

    Args:
        asset: name of the asset.
        partition: the shard.
        total: of how many samples.
        log: writes a line.
    """

    def __init__(self, asset: str, partition: str | None, total: int, log: Callable[[str], None]) -> None:
        self._step = Step(asset, partition, 0, total)
        self._log = log
        self._last = time.monotonic()
        self._last_done = 0
        self._advanced = 0

    def advance(self, count: int) -> None:
        """Tell that so many more are done."""
        self._advanced += count
        self.update(self._advanced)

    def update(self, done: int, note: str = "") -> None:
        """Tell that so many are done."""
        report(replace(self._step, done=done, note=note))
        now = time.monotonic()
        if now - self._last >= _LOG_EVERY_SECONDS:
            rate = (done - self._last_done) / (now - self._last)
            self._last, self._last_done = now, done
            where = f"{self._step.asset} {self._step.partition or ''}"
            said = f", {note}" if note else ""
            self._log(f"{where}: {done:,} of {self._step.total:,}, {rate:,.1f} a second{said}")


def track(items: Iterable[T], meter: Meter) -> Iterator[T]:
    """Yield the items, telling how far it is."""
    for done, item in enumerate(items, 1):
        yield item
        meter.update(done)
