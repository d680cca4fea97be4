"""What a worker does with a task, on whichever machine it is."""

from __future__ import annotations

import pickle
import time
import traceback
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dqe_resources import progress
from dqe_resources.cluster.protocol import Done, Failed, Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from dqe_resources.cluster.protocol import Said, Task
    from dqe_resources.progress import Step

_SAY_EVERY_SECONDS = 0.2


def perform(task: Task, say: Callable[[Said], None]) -> Done | Failed:
    """Do a task, and say how far it is; what it raises is a result too."""
    last = 0.0

    def listen(step: Step) -> None:
        nonlocal last
        now = time.monotonic()
        if step.outcome is not None or step.done == 0 or now - last >= _SAY_EVERY_SECONDS:
            last = now
            say(step)

    try:
        with progress.listen(listen):
            result = _begun(task.begin)(task.arguments, task.is_again, lambda text: say(Log(text)))
        pickle.dumps(result)
    except Exception as error:  # noqa: BLE001 - whatever it is, who gave the task raises it
        return Failed(_portable(error), traceback.format_exc())
    return Done(result)


@lru_cache(maxsize=128)
def _begun(begin: bytes) -> Callable[[Any, bool, Callable[[str], None]], Any]:
    return pickle.loads(begin)()  # noqa: S301 - from the process that started this one


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - its class decides what is raised
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
