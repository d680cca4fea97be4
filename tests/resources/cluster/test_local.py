"""Workers that are processes of this machine: what they give back, and what comes of kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dqe_resources.cluster import KilledError, LocalCluster, Log, crew_of
from dqe_resources.cluster.board import at_work
from dqe_resources.cluster.protocol import WorkersError
from dqe_resources.errors import WholeRunError
from dqe_resources.processes import process
from dqe_resources.progress import Step
from tests.conftest import ROOT
from tests.resources.cluster import tasks
from tests.resources.cluster.tasks import task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dqe_resources.cluster import Crew


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder."""
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def crew(folder: Path) -> Iterator[Crew]:
    """Two workers."""
    with crew_of(LocalCluster(workers=2), tasks.__name__) as opened:
        yield opened
    assert not list((folder / "workers").glob("*")), "nothing is left that says that somebody works"


def until(is_so: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.02)
    return found


def test_each_worker_has_its_share_of_cores_and_does_many_tasks(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda n: crew.do(task("who", n), lambda _: None), range(12)))
    assert [argument for argument, *_ in found] == list(range(12))
    pids = {pid for _, pid, *_ in found}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    share = max(1, (os.cpu_count() or 1) // 2)
    assert {(cores, threads) for _, _, cores, threads, _ in found} == {(share, str(share))}


def test_what_a_worker_says_arrives_and_what_it_prints_goes_where_its_starters_output_goes(
    crew: Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[Any] = []
    crew.do(task("says"), heard.append)
    assert heard == [Log("a line"), Step("asset", "shard", 3, 7)]
    assert capfd.readouterr().err == "printed by a worker\n"


def test_an_error_is_raised_as_it_is_with_the_workers_traceback_and_the_worker_goes_on(crew: Crew) -> None:
    with pytest.raises(WholeRunError, match="no server; start it") as caught:
        crew.do(task("fails"), lambda _: None)
    assert "in fails\n" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="OddError: odd"):
        crew.do(task("fails_oddly"), lambda _: None)
    assert crew.do(task("who", 1), lambda _: None)[0] == 1


def test_a_task_whose_worker_is_killed_is_given_to_another_and_one_that_kills_always_fails_by_its_name(
    crew: Crew,
) -> None:
    heard: list[Any] = []
    assert crew.do(task("kills_once", "shard-00003"), heard.append) is True
    (line,) = heard
    assert "kills_once, shard-00003: its worker ended (process " in line.text
    assert "SIGKILL" in line.text
    with ThreadPoolExecutor(4) as threads:
        killing = threads.submit(crew.do, task("kills", "shard-00007"), lambda _: None)
        others = [threads.submit(crew.do, task("who", n), lambda _: None) for n in range(5)]
        assert [one.result()[0] for one in others] == list(range(5))
        with pytest.raises(KilledError, match=r"kills, shard-00007: 3 workers ended while they made it"):
            killing.result()


def test_who_works_on_what_is_right_also_after_kills(crew: Crew, folder: Path) -> None:
    def wait() -> None:
        with pytest.raises(KeyboardInterrupt):
            crew.do(task("waits", str(folder / "first")), lambda _: None)

    thread = threading.Thread(target=wait)
    thread.start()
    until((folder / "first").exists)
    (one,) = at_work()
    assert (one.asset, one.partition, one.attempt) == ("waits", str(folder / "first"), 1)
    (folder / "first").unlink()
    os.kill(one.pid, signal.SIGKILL)
    until((folder / "first").exists)
    (again,) = at_work()
    assert again.attempt == 2
    assert again.pid != one.pid
    crew.close()
    thread.join(30)
    assert not thread.is_alive()
    assert at_work() == []


def test_when_their_starter_is_killed_workers_and_what_they_have_started_end(folder: Path) -> None:
    code = f"import {tasks.__name__} as tasks; tasks.in_a_process({str(folder)!r}, 2)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as starter:
        until((folder / "waits").exists, 120)
        pids = [int(one) for one in (folder / "waits").read_text().split()]
        assert [one.pid for one in at_work()] == pids[:1]
        assert all(process(pid) for pid in pids)
        starter.kill()
    until(lambda: not any(process(pid) for pid in pids))
    assert at_work() == [], "what a killed process said counts no more"
    assert not list((folder / "workers").glob("*"))


def test_workers_that_cannot_be_started_are_an_error_of_the_whole_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathlib.Path.cwd", lambda: folder / "gone")
    with (
        crew_of(LocalCluster(workers=1), tasks.__name__) as crew,
        pytest.raises(WorkersError, match=r"a worker ended as it was started: process .* exit code 1"),
    ):
        crew.do(task("who"), lambda _: None)


def test_each_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    with crew_of(LocalCluster(workers=1), tasks.__name__) as crew:
        assert crew.do(task("who"), lambda _: None)[-1] == "GPU-a"
