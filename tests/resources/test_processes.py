from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from dqe_resources.processes import below, process, processes


def test_this_process_is_known_with_its_command_and_time() -> None:
    mine = process(os.getpid())
    assert mine is not None
    assert (mine.pid, mine.parent, mine.session) == (os.getpid(), os.getppid(), os.getsid(0))
    assert mine in list(processes())
    assert mine.command[0].endswith("python") or "pytest" in " ".join(mine.command)
    assert mine.started_at < time.time() + 1


def test_of_two_processes_the_later_began_later_and_one_that_has_ended_is_none() -> None:
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found, mine = process(child.pid), process(os.getpid())
        assert found is not None
        assert mine is not None
        assert int(found.began) > int(mine.began)
        assert before - 2 < found.started_at < time.time() + 2
        assert found in below(os.getpid())
        child.kill()
        while process(child.pid) is not None:
            time.sleep(0.01)
        # It has ended, and nobody has taken note yet.
        assert Path(f"/proc/{child.pid}").exists()
    assert process(child.pid) is None


def test_what_a_child_starts_is_below_too() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        # Earlier tests may have left children of their own.
        assert [one.parent for one in below(os.getpid()) if one.parent == child.pid] == [child.pid]
