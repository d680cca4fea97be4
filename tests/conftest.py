"""What tests share: a data folder of their own, and model files that are converted only once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

from dqe_assets.orchestration.settings import Settings, load_settings
from tests.tiny_clip import make_tiny_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.qdrant_server import QdrantServer

# How long an example takes depends on what else the machine does: no example fails for that.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
SBU = ROOT.parent / "shared" / "data" / "sbu"


SLOW = (
    *("api/test_mcp", "api/test_quality"),
    *("benchmarks/", "end_to_end/", "search/", "publish/", "view/test_page"),
    *("caption/test_fields", "caption/test_rewriting"),
    *("caption/test_lmdeploy_backfill", "caption/test_misbehaving", "caption/test_synthetic", "caption/test_transf"),
    *(
        "cli/test_filter",
        "cli/test_hostile",
        "cli/test_init",
        "cli/test_json",
        "cli/test_packaging",
        "cli/test_sql_limits",
    ),
    *("cli/test_stopping", "concepts/test_assets", "core/test_asset", "core/test_stage", "dedup/test_assets"),
    *("docs/test_contributing", "docs/test_notebook", "docs/test_reference"),
    *("filtering/test_assets", "filtering/test_filters", "improve/test_judging.", "improve/test_refining."),
    *(
        "ingest/test_fetch",
        "orchestration/test_dead_runs",
        "orchestration/test_store_away",
        "orchestration/test_whole_run",
        "report/test_every_plot",
        "orchestration/test_workers",
        "resources/cluster/",
        "report/test_gallery.",
        "scaling/test_assets",
    ),
    *("resources/captioners/", "resources/models/", "resources/scorers/", "resources/sources/test_index"),
    *("resources/sources/test_hf", "resources/taggers/", "resources/vectors/", "score/test_alignment"),
    "score/test_further_captions",
    *("score/test_image_text", "score/test_imported", "test_definitions", "training/test_assets", "training/test_data"),
    *("training/test_loop", "training/test_open_clip", "training/test_reshard"),
)
"""Tests that start servers, kill processes, load models or materialise assets, by the beginning of their path."""


LONG = (
    "benchmarks/test_corpus",
    *("caption/test_lmdeploy_proxy", "caption/test_replica_servers"),
    *(f"compression/test_assets.py::test_{name}" for name in ("a_captioner", "killed", "tower_and_decoder")),
    "cli/test_hostile_text.py::test_in_a_terminal",
    # Once, DuckDB never came back from the query whose source went away.
    "resources/store/test_on_s3.py::test_what_duckdb_reads_of",
    *(
        f"core/test_stage.py::test_{name}"
        for name in (
            "a_collection_that",
            "a_smaller_source",
            "an_added_captioner",
            "the_store_can",
            "without_a_captioner",
        )
    ),
    *(
        f"end_to_end/test_{name}"
        for name in (
            "automation",
            "backfill",
            "cluster",
            "collection",
            "damage",
            "kills",
            "on_s3",
            "served",
            "takedowns",
            "training",
            "ui.",
            "ui_workers",
        )
    ),
    "orchestration/test_ray",
    "orchestration/test_store_away.py::test_a_command_ends_and_goes_on_when_the_store_is_back[workers]",
    *("publish/test_conversations.py::test_a_tiny", "publish/test_conversations.py::test_open_clip"),
    *(f"report/test_updated_warehouse.py::test_{name}" for name in ("it_holds_the_same_after", "its_file")),
    "resources/cluster/test_on_ray.py::test_a_process_leaves",
    "resources/store/test_on_s3.py::test_a_server_that_is_killed",
    *(
        f"resources/store/test_owner.py::test_{name}"
        for name in ("an_owner_that_stood_still", "many_at_once", "no_clock", "who_comes_second")
    ),
)
"""Tests that take minutes each, by the beginning of their node's name: they run with ``--long``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option for tests that take minutes."""
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what is named above, and what waits for the sample to go through every stage; leave out the long."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        name = f"{path}::{item.name}"
        if name.startswith(LONG) and not config.getoption("long", default=False):
            item.add_marker(pytest.mark.skip(reason="takes minutes: make test ARGS=--long"))
        if path.startswith(SLOW) or _needs_sample(item):
            item.add_marker(pytest.mark.slow)
    # One process makes the sample for all, and the others do meanwhile what needs none.
    waiting = dict.fromkeys(item.path for item in items if _needs_sample(item))
    later = [*waiting][1:]
    items.sort(key=lambda item: item.path in later)


def _needs_sample(item: pytest.Item) -> bool:
    return "finished" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Converted models, kept between sessions next to those of make demo."""
    cache = ROOT / "data" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@pytest.fixture
def data(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the project's own settings and nothing made yet."""
    folder = make_data_folder(tmp_path / "data", model_cache)
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    return folder


def make_data_folder(folder: Path, model_cache: Path) -> Path:
    """A data folder with the project's own settings and the converted models."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "data" / "dqe.yaml", folder)
    (folder / "cache").symlink_to(model_cache)
    return folder


def dqe(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The ``dqe`` command, as a person runs it, on a data folder."""
    return subprocess.run(
        [sys.executable, "-m", "dqe_assets.cli", *arguments],
        env=environment(data),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def environment(data: Path) -> dict[str, str]:
    """The environment of a command on a data folder."""
    return {**os.environ, "DQE_DATA": str(data), "DAGSTER_HOME": str(data / "dagster_home"), "COLUMNS": "100"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Path:
    """A data folder in which the embedded sample has gone through every stage; not to be written to."""
    # One for all processes of a test run: their temporary folders lie side by side.
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    data, is_finished = shared / "finished" / "data", shared / "finished" / "done"
    with FileLock(shared / "finished.lock"):
        if not is_finished.exists():
            done = dqe(make_data_folder(data, model_cache), "materialize")
            assert done.returncode == 0, done.stdout + done.stderr
            is_finished.touch()
    return data


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """What stands in for a Qdrant server: a test takes a collection of its own on it."""
    from tests.servers.qdrant_server import qdrant_server

    with qdrant_server(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


@pytest.fixture
def opened(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the finished data folder."""
    for name, value in environment(finished).items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of open_clip."""
    pytest.importorskip("torch")
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def sbu() -> Path:
    """Real SBU photos and captions."""
    if not SBU.is_dir():
        pytest.skip(f"no real SBU data at {SBU}")
    return SBU


def killed_run(module: str, call: str, folder: Path, is_far_enough: Callable[[], bool]) -> None:
    """Run a call of a test module in a process of its own, and kill it once it is far enough."""
    code = f"import {module} as module; module.{call}"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment(folder), cwd=ROOT)
    end = time.monotonic() + 120
    while not is_far_enough() and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_far_enough(), "it never came so far"
