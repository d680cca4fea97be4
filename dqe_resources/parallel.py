"""Work done ahead of where it is needed, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, ahead: int = 64) -> Iterator[R]:
    """``map`` on all cores, in threads, its results in order and at most ``ahead`` of them waiting.

    For functions that release the interpreter's lock, as decoding an image and running a model do.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        rest = iter(items)
        pending: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(rest, ahead))
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(rest, 1))
        finally:
            for future in pending:
                future.cancel()
