"""Work done before its result is needed, in order and in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

_THREADS = "ordered-map"


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, ahead: int = 64) -> Iterator[R]:
    """``map`` on all cores, in threads, its results in order and at most ``ahead`` of them waiting.

    For functions that release the interpreter's lock, as decoding an image and running a model do. Within such a
    function it is a plain ``map``: the cores are busy already.
    """
    if threading.current_thread().name.startswith(_THREADS):
        yield from map(function, items)
        return
    rest = iter(items)
    pending: deque[Future[R]] = deque(pool().submit(function, item) for item in islice(rest, ahead))
    try:
        while pending:
            yield pending.popleft().result()
            pending.extend(pool().submit(function, item) for item in islice(rest, 1))
    finally:
        for future in pending:
            future.cancel()


@cache
def pool() -> ThreadPoolExecutor:
    """The threads, one for each core, that decode images and run models."""
    # One for the life of the process: memory that a thread has freed stays with it, and new threads would take more.
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix=_THREADS)
