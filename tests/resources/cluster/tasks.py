"""What the workers of tests are given to do: a worker imports this module."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_resources import progress
from dqe_resources.cluster import Crew, Task
from dqe_resources.errors import WholeRunError
from dqe_resources.parallel import cores

if TYPE_CHECKING:
    from collections.abc import Callable


def task(name: str, argument: Any = None, pool: str | None = None) -> Task:
    """A task that calls a function of this module."""
    return Task(name, str(argument), pool, pickle.dumps(partial(_begin, name)), argument)


def _begin(name: str) -> Callable[[Any, bool, Callable[[str], None]], Any]:
    return globals()[name]


def who(argument: Any, is_again: bool, log: Any) -> tuple[Any, int, int, str, str | None]:
    return argument, os.getpid(), cores(), os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES")


def says(argument: Any, is_again: bool, log: Any) -> None:
    log("a line")
    progress.report(progress.Step("asset", "shard", 3, 7))
    sys.stderr.write("printed by a worker\n")
    sys.stderr.flush()


def fails(argument: Any, is_again: bool, log: Any) -> None:
    raise WholeRunError("no server; start it")


def fails_oddly(argument: Any, is_again: bool, log: Any) -> None:
    class OddError(Exception):
        """No other process can read it."""

    raise OddError("odd")


def kills(argument: str, is_again: bool, log: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kills_once(argument: str, is_again: bool, log: Any) -> bool:
    if not is_again:
        os.kill(os.getpid(), signal.SIGKILL)
    return is_again


def waits(argument: str, is_again: bool, log: Any) -> int:
    """Starts a process that waits too, and makes a file of its name with the numbers of both."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    written = Path(f"{argument}.new")
    written.write_text(f"{os.getpid()} {child.pid}")
    written.rename(argument)
    time.sleep(600)
    return os.getpid()


def in_a_process(folder: str, workers: int) -> None:
    """Give a task that waits, as the main program of a process."""
    from dqe_resources.cluster import LocalCluster

    Crew(LocalCluster(workers=workers), __name__).do(task("waits", f"{folder}/waits"), lambda _: None)


def on_ray(address: str, waits_at: str) -> None:
    """Leave three workers of a cluster for two, as the main program of a process: one works, one is idle, one waits."""
    from dqe_resources.cluster import RayCluster, crew_of

    with crew_of(RayCluster(address=address, workers={"default": {"count": 3}}), __name__) as crew:
        given = [threading.Thread(target=_given, args=(crew, one)) for one in (task("waits", waits_at), task("who"))]
        for thread in given:
            thread.start()
        crew.do(task("who"), lambda _: None)
        given[1].join()
        while not Path(waits_at).exists():
            time.sleep(0.1)
    given[0].join()
    sys.stdout.write("left")


def _given(crew: Crew, given: Task) -> None:
    with suppress(KeyboardInterrupt):
        crew.do(given, lambda _: None)
