"""Commands that are stopped by real signals, as a terminal and a supervisor send them."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import yaml

from dqe_assets.cli.terminal import STOPPED
from dqe_resources.cache import data_folder
from dqe_resources.cluster.board import AtWork, at_work
from dqe_resources.processes import processes
from tests.conftest import ROOT, dqe, environment
from tests.hostile_server import HostileServer, noise
from tests.ingest.fetching import make, write_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def images(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a source of 12 images, 3 in a shard."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "cache").symlink_to(model_cache)
    for number in range(12):
        noise(number).save(folder / "images" / f"{number:02d}.png")
        (folder / "images" / f"{number:02d}.txt").write_text(f"noise, number {number}")
    source = {"kind": "folder", "name": "noise", "path": "images", "shard_size": 3}
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    return folder


@contextmanager
def running(data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own, of which nothing is left in the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", *arguments],
        env=environment(data),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
    left = [one.command for one in processes() if one.session == process.pid]
    assert not left, "every process that it had started has ended"


def stop(process: subprocess.Popen[str], number: signal.Signals, is_time: Callable[[], bool]) -> str:
    """Send the signal once it is time; returns what was printed. As Ctrl-C does, SIGINT goes to the whole group."""
    end = time.monotonic() + 240
    while not is_time():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.005)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, said = process.communicate(timeout=240)
    assert (process.returncode, said) == (128 + number, f"{STOPPED}\n")
    return out


def made(data: Path) -> dict[str, bytes]:
    root = data / "store"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def statuses(data: Path) -> list[dg.DagsterRunStatus]:
    with dg.DagsterInstance.from_config(str(data / "dagster_home")) as instance:
        return [run.status for run in instance.get_runs()]


def test_ctrl_c_and_sigterm_stop_a_backfill_and_keep_what_is_finished(images: Path) -> None:
    kept: dict[str, bytes] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before = len(kept)
        with running(images, "materialize", "raw_samples", "text_quality") as process:
            stop(process, number, lambda before=before: len(made(images)) > before)
        assert kept.items() <= made(images).items(), "what was finished is as it was"
        kept = made(images)
        assert before < len(kept) < 8, "no other shards are made"
        assert dg.DagsterRunStatus.STARTED not in statuses(images), "no run is left as running"
    done = dqe(images, "materialize", "raw_samples", "text_quality")
    assert done.returncode == 0, done.stderr
    assert len(made(images)) == 8
    assert kept.items() <= made(images).items()


def test_ctrl_c_and_a_kill_end_all_workers(images: Path) -> None:
    arguments = ("materialize", "raw_samples", "image_features", "--workers", "2")
    with running(images, *arguments) as process:
        stop(process, signal.SIGINT, lambda: bool(made(images)) and len(at_work_in(images)) == 2)
    assert at_work_in(images) == []
    with running(images, *arguments) as process:
        end = time.monotonic() + 240
        while not at_work_in(images):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)
        process.kill()
        process.communicate(timeout=60)
        while any(one.session == process.pid for one in processes()):
            assert time.monotonic() < end, "a worker outlives its starter"
            time.sleep(0.05)
    done = dqe(images, *arguments)
    assert done.returncode == 0, done.stderr
    assert len(made(images)) == 8


def at_work_in(data: Path) -> list[AtWork]:
    with data_folder(data):
        return at_work()


def test_it_stops_while_a_model_loads(images: Path) -> None:
    with running(images, "materialize", "raw_samples", "image_features", "--shard", "noise-00000") as process:
        maps = Path(f"/proc/{process.pid}/maps")
        stop(process, signal.SIGTERM, lambda: "onnxruntime" in maps.read_text(encoding="utf-8"))
    assert list(made(images)) == ["raw_samples/noise-00000.parquet"]


def test_it_stops_while_a_fetch_waits_for_a_slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    with HostileServer().running() as server:
        urls = [*(server.url("good", item) for item in range(5)), server.url("silence")]
        write_list(tmp_path, urls, idle_seconds=600.0, request_seconds=600.0, checkpoint_rows=1)
        with running(tmp_path, "materialize", "raw_samples") as process:
            stop(process, signal.SIGINT, lambda: server.times("silence") == [1] and server.times("good") == [1] * 5)
        write_list(tmp_path, urls)
        make()
        assert server.times("good") == [1] * 5, "what was fetched is not fetched again"


def test_it_stops_while_it_waits_for_a_captioner(images: Path) -> None:
    settings = yaml.safe_load((images / "dqe.yaml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        captioner = {"kind": "openai", "name": "away", "url": url, "model": "none", "connect_seconds": 600.0}
        (images / "dqe.yaml").write_text(yaml.safe_dump({**settings, "captioners": [captioner]}))
        with running(images, "materialize", "raw_samples", "synthetic_captions/away") as process:
            stop(process, signal.SIGINT, lambda: bool(select.select([silent], [], [], 0)[0]))
    assert list(made(images)) == ["raw_samples/noise-00000.parquet"]
