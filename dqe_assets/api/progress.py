"""A bar for long work, in a terminal and in notebooks."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Gives a function to call with how many more are done.

    Args:
        what: what is done.
        total: of how many; None if that is not known.
    """
    with warnings.catch_warnings():
        # Without ipywidgets a notebook shows a bar of text, and need not be told.
        warnings.filterwarnings("ignore", message=".*IProgress not found.*")
        from tqdm.auto import tqdm

    # A notebook's error stream is no terminal, and shows what is written to it all the same.
    is_shown = sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(total=total, desc=what, unit=" rows", disable=not is_shown, leave=False) as shown:
        yield shown.update
