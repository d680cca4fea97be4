"""Real processes that are asked to stop in the middle of something."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent, indent

import pytest

from dqe_resources import stopping
from dqe_resources.processes import processes

PROGRAM = """
import ctypes, subprocess, sys, threading, time
from dqe_resources import stopping
stopping.GRACE_SECONDS = 0.5
with stopping.stoppable("ended"):
    try:
{body}
    finally:
        print("in order")
print("went on")
"""

SLEEP = "print('ready', flush=True); time.sleep(600)"
# A lock that is taken twice: no signal wakes who waits for it.
IN_A_LONG_CALL = """
mutex, lock = ctypes.create_string_buffer(256), ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
print('ready', flush=True)
lock(mutex)
"""
SWALLOWED = """
print('ready', flush=True)
while True:
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        pass
"""
WITH_A_THREAD_THAT_STAYS = f"threading.Thread(target=time.sleep, args=(600,)).start(); {SLEEP}"
WITH_A_CHILD = f"""
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
{IN_A_LONG_CALL}
"""
ANOTHER_HANDLER = """
import signal
signal.signal(signal.SIGTERM, lambda *_: None)  # as Dagster does: it only takes note
print('ready', flush=True)
while stopping.requested() is None:
    time.sleep(0.01)
raise KeyboardInterrupt
"""


def stopped(body: str, *signals: signal.Signals) -> tuple[int, str, str]:
    """Exit code, output and errors of a program that gets these signals once it is ready."""
    code = PROGRAM.format(body=indent(dedent(body), " " * 8))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for one in signals:
        time.sleep(0.05)
        process.send_signal(one)
    out, said = process.communicate(timeout=60)
    # One that was killed is there until the kernel has taken its memory back.
    deadline = time.monotonic() + 10
    while left := [one for one in processes() if one.session == process.pid]:
        assert time.monotonic() < deadline, f"no process is left: {left}"
        time.sleep(0.01)
    return process.returncode, out, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_ends_in_order(number: signal.Signals) -> None:
    assert stopped(SLEEP, number) == (128 + number, "in order\n", "ended\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", [IN_A_LONG_CALL, WITH_A_CHILD])
def test_what_does_not_end_in_order_is_ended(body: str, number: signal.Signals) -> None:
    assert stopped(body, number) == (128 + number, "", "ended\n")


def test_neither_who_swallows_an_interrupt_goes_on_nor_a_thread_that_stays() -> None:
    assert stopped(SWALLOWED, signal.SIGTERM) == (143, "", "ended\n")
    assert stopped(WITH_A_THREAD_THAT_STAYS, signal.SIGINT) == (130, "in order\n", "ended\n")


def test_output_that_nobody_reads_holds_nothing_up() -> None:
    assert stopped("print('ready', flush=True); print('x' * (1 << 20))", signal.SIGTERM)[::2] == (143, "ended\n")


def test_a_second_signal_ends_it_at_once() -> None:
    patient = IN_A_LONG_CALL.replace("print", "stopping.GRACE_SECONDS = 600; print")
    assert stopped(patient, signal.SIGINT, signal.SIGTERM) == (130, "", "ended\n")


def test_a_signal_that_another_handler_takes_is_noticed() -> None:
    assert stopped(ANOTHER_HANDLER, signal.SIGTERM) == (143, "in order\n", "ended\n")


def test_where_nothing_asks_all_is_as_before() -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with stopping.stoppable("never said"):
        assert signal.getsignal(signal.SIGTERM) not in before
        assert stopping.requested() is None
        (watcher,) = [thread for thread in threading.enumerate() if thread.name == "stopping"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    watcher.join(10)
    assert not watcher.is_alive()


def test_in_another_thread_it_does_nothing() -> None:
    found = []

    def look() -> None:
        with stopping.stoppable("never said"):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
