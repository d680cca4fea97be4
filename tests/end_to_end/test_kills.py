from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import dagster as dg

from tests.conftest import dqe, environment, make_data_folder

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 12


def store_files(data: Path) -> dict[str, bytes]:
    root = data / "store"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def query(data: Path, sql: str) -> str:
    done = dqe(data, "sql", sql)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_at_random_moments_it_ends_with_the_same_store(
    finished: Path, tmp_path: Path, model_cache: Path
) -> None:
    data = make_data_folder(tmp_path / "data", model_cache)
    # A pool takes one step at a time: a killed run must not keep its place in it.
    chance = random.Random(20)
    files = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "dqe_assets.cli", "materialize"],
            env=environment(data),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Each run gets a little further than the last: kills fall into every stage, and none finds the work done.
        further = (files[-1] if files else 0) + chance.randint(1, 3)
        while process.poll() is None and len(store_files(data)) < further:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.6))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        files.append(len(store_files(data)))
    disturbed = [count for count in files if count < len(store_files(finished))]
    assert len(set(disturbed)) >= 6, f"the kills fell into too few stages: {files}"

    done = dqe(data, "materialize")
    assert done.returncode == 0, done.stdout + done.stderr
    with dg.DagsterInstance.from_config(str(data / "dagster_home")) as instance:
        statuses = Counter(run.status for run in instance.get_runs())
    assert set(statuses) == {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}, "no run is left as running"
    assert statuses[dg.DagsterRunStatus.FAILURE] >= len(disturbed) // 2
    assert store_files(data) == store_files(finished)
    assert not list((data / "store").rglob("*.arrow")), "nothing unfinished is left"
    captions = "SELECT uid, caption_source, caption, similarity FROM captions ORDER BY ALL"
    assert query(data, captions) == query(finished, captions)
    assert (data / "gallery.html").read_bytes() == (finished / "gallery.html").read_bytes()
    again = dqe(data, "materialize")
    assert "(0 partitions made" in again.stdout
    for text in ("a cat", "red motorcycle"):
        assert dqe(data, "search", text).stdout == dqe(finished, "search", text).stdout
