from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import make_data_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 10


def command(data: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DQE_DATA": str(data), "DAGSTER_HOME": str(data / "dagster_home")}
    return subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def completed(data: Path, *arguments: str) -> str:
    process = command(data, *arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def store_files(data: Path) -> dict[str, bytes]:
    root = data / "store"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def warehouse_rows(data: Path) -> str:
    return completed(
        data, "sql", "SELECT uid, caption_source, caption, similarity FROM captions ORDER BY uid, caption_source"
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[tuple[Path, float]]:
    data = make_data_folder(tmp_path_factory.mktemp("calm") / "data", model_cache, lambda *_: None)
    started = time.monotonic()
    completed(data, "materialize")
    return data, time.monotonic() - started


def test_killed_at_random_moments_it_ends_with_the_same_store(
    undisturbed: tuple[Path, float], tmp_path: Path, model_cache: Path
) -> None:
    calm, seconds = undisturbed
    data = make_data_folder(tmp_path / "data", model_cache, lambda *_: None)
    chance = random.Random(20)
    progress = []
    for _ in range(KILLS):
        process = command(data, "materialize")
        # Each kill comes later in a run than most of the work that is left needs, so that kills fall into every stage.
        time.sleep(chance.uniform(0.2, 0.6) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        progress.append(len(store_files(data)))
    assert progress[0] < len(store_files(calm)), "the first kill came too late to disturb anything"
    completed(data, "materialize")
    assert store_files(data) == store_files(calm)
    assert warehouse_rows(data) == warehouse_rows(calm)
    assert (data / "gallery.html").read_bytes() == (calm / "gallery.html").read_bytes()
    assert "were current" in completed(data, "materialize")
