"""Progress of long work: to the log by default, or to whoever listens (the terminal)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_LOG_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """How far an asset's partition is: ``done`` of ``total`` samples; ``outcome`` once it has ended."""

    asset: str
    partition: str | None
    done: int
    total: int
    outcome: str | None = None


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


def track(items: Iterable[T], total: int, step: Step, log: Callable[[str], None]) -> Iterator[T]:
    """Yield the items, reporting how far it is."""
    last = started = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        report(Step(step.asset, step.partition, done, total))
        if now - last >= _LOG_EVERY_SECONDS:
            last, rate = now, done / (now - started)
            log(f"{step.asset} {step.partition or ''}: {done:,} of {total:,}, {rate:,.1f} a second")
