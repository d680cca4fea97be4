"""Gives a worker as many items at once as it takes, and yields results as they come."""

from __future__ import annotations

from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


class StalledError(Exception):
    """Nothing was finished for too long."""


def in_flight(
    start: Callable[[T], Future[R]], items: Iterable[T], *, limit: int, patience: float
) -> Iterator[tuple[T, Future[R]]]:
    """Start items while fewer than ``limit`` are under way, and yield each as it ends, in any order.

    Items are taken as they are needed. Closing the iterator cancels what is under way.

    Args:
        start: starts one item; its future may end in any thread.
        items: what to start.
        limit: how many are under way at most.
        patience: seconds without a single end after which to give up.

    Yields:
        An item and its finished future.

    Raises:
        StalledError: nothing ended for ``patience`` seconds.
    """
    rest = iter(items)
    finished: SimpleQueue[Future[R]] = SimpleQueue()
    started: dict[Future[R], T] = {}
    try:
        while True:
            # Finished items are handed on before more are started, so that they can be saved early.
            while finished.empty() and len(started) < limit and (taken := list(islice(rest, 1))):
                future = start(taken[0])
                started[future] = taken[0]
                future.add_done_callback(finished.put)
            if not started:
                return
            try:
                future = finished.get(timeout=patience)
            except Empty:
                raise StalledError from None
            yield started.pop(future), future
    finally:
        for future in started:
            future.cancel()
