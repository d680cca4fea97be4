"""Work done before its result is needed, in order and in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

_THREADS = "ordered-map"
_OF_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_cores = os.cpu_count() or 1


def cores() -> int:
    """How many cores this process keeps busy: all of the machine, or its share of them."""
    return _cores


def limit_cores(count: int) -> None:
    """Keep no more cores busy than so many, in what this process does from now on; before it uses any model."""
    global _cores  # noqa: PLW0603 - it is the process's
    from threadpoolctl import threadpool_limits

    _cores = count
    # The first is for what is loaded later, the others for what is loaded.
    os.environ.update(dict.fromkeys(_OF_LIBRARIES, str(count)))
    threadpool_limits(count)
    pa.set_cpu_count(count)


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, ahead: int = 64) -> Iterator[R]:
    """``map`` on all cores of this process, in threads, its results in order and at most ``ahead`` of them waiting.

    For functions that release the interpreter's lock, as decoding an image and running a model do. Within such a
    function it is a plain ``map``: the cores are busy already. The threads see the caller's context variables.
    """
    if threading.current_thread().name.startswith(_THREADS):
        yield from map(function, items)
        return
    rest = iter(items)

    def submit(item: T) -> Future[R]:
        return pool().submit(copy_context().run, function, item)

    pending: deque[Future[R]] = deque(map(submit, islice(rest, ahead)))
    try:
        while pending:
            yield pending.popleft().result()
            pending.extend(map(submit, islice(rest, 1)))
    finally:
        for future in pending:
            future.cancel()


@cache
def pool() -> ThreadPoolExecutor:
    """The threads, one for each core, that decode images and run models."""
    # One for the life of the process: memory that a thread has freed stays with it, and new threads would take more.
    return ThreadPoolExecutor(cores(), thread_name_prefix=_THREADS)
