"""Ctrl-C and SIGTERM: work ends in order, and at once where that takes too long.

Everything that this platform writes can be killed at any moment, so an end at once loses no more than what was not
finished. An end in order also keeps what was about to be written.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from dqe_resources.processes import below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

GRACE_SECONDS = 3.0
"""How long an end in order may take."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"

_requested: signal.Signals | None = None
_ending = threading.Lock()


def requested() -> signal.Signals | None:
    """The signal that asked this process to stop; None if none did."""
    return _requested


@contextlib.contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread when Ctrl-C or SIGTERM asks for an end, and end the process with it.

    It ends with ``message`` on the error stream, with the processes that it has started in its session, and with 128 +
    the signal's number as exit code: once the work inside has ended by whatever is raised, or when ``GRACE_SECONDS``
    have passed, or at a second signal. That is so whatever the main thread does, unless it holds the interpreter's lock
    all the time.
    """
    global _requested  # noqa: PLW0603 - signals are the process's
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requested = None
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # What is stderr now: a step of Dagster's has another one.
    terminal = os.dup(2)
    before = {one: signal.signal(one, _interrupt) for one in _SIGNALS}
    # The system itself writes there, also where the main thread is in a long call and no handler can run; and where
    # Dagster has put handlers of its own in the place of this one, and only takes note of a signal.
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, terminal, message), name="stopping", daemon=True).start()
    try:
        yield
    except BaseException as error:
        # Whatever was raised: an interrupted library may have made an error of its own of it.
        if _requested or isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            _end(_requested or signal.SIGINT, terminal, message)
        raise
    finally:
        signal.set_wakeup_fd(descriptor)
        for one, handler in before.items():
            signal.signal(one, handler)
        writer.close()


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    global _requested  # noqa: PLW0603
    _requested = _requested or signal.Signals(number)
    raise KeyboardInterrupt


def _watch(reader: socket.socket, terminal: int, message: str) -> None:
    global _requested  # noqa: PLW0603
    while received := reader.recv(1):
        if received[0] in _SIGNALS:
            _requested = _requested or signal.Signals(received[0])
            select.select([reader], [], [], GRACE_SECONDS)
            _end(_requested, terminal, message)
    reader.close()
    os.close(terminal)


def _end(number: signal.Signals, terminal: int, message: str) -> NoReturn:
    # For ever: only one thread says it.
    _ending.acquire()
    mine = os.getsid(0)
    for one in below(os.getpid()):
        # A session of its own has what ends by itself, or is to go on.
        if one.session == mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.write(terminal, (_SHOW_CURSOR if os.isatty(terminal) else b"") + f"{message}\n".encode())
    os._exit(128 + number)
