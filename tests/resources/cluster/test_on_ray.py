"""What a Ray cluster is asked for, and how it is left; what it makes, tests/orchestration/test_ray.py shows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from dqe_resources.cluster import RayCluster, crew_of
from dqe_resources.cluster.protocol import WorkersError
from tests.resources.cluster import tasks
from tests.resources.cluster.tasks import task
from tests.resources.cluster.two_nodes import two_nodes

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = {"default": {"count": 2}, "model": {"count": 1, "num_gpus": 1}}


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        crew_of(RayCluster(workers=WORKERS), tasks.__name__) as crew,
        pytest.raises(WorkersError, match=r"needs the package ray; install it: pip install '\.\[ray\]'"),
    ):
        crew.do(task("who"), lambda _: None)


def test_there_are_workers_for_what_no_other_kind_is_for() -> None:
    assert RayCluster(workers=WORKERS).counts == {"default": 2, "model": 1}
    with pytest.raises(ValidationError, match="needs workers of the kind 'default'"):
        RayCluster(workers={"model": {"count": 1}})


def test_settings_and_credentials_are_handed_on_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DQE_DATA", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN", "UNRELATED"):
        monkeypatch.setenv(name, str(tmp_path))
    found = RayCluster(workers=WORKERS, environment=["MY_TOKEN"])._handed_on()
    assert {"DQE_DATA", "AWS_SECRET_ACCESS_KEY", "MY_TOKEN"} <= set(found)
    assert "UNRELATED" not in found


def test_a_process_leaves_the_cluster_unharmed_while_one_worker_works_and_another_waits_for_a_machine(
    tmp_path: Path,
) -> None:
    with two_nodes() as nodes:
        for number in range(5):
            call = f"tasks.on_ray({nodes.address!r}, {str(tmp_path / str(number))!r})"
            ended = subprocess.run(
                [sys.executable, "-c", f"from tests.resources.cluster import tasks; {call}"],
                env={**os.environ, "DQE_DATA": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert (ended.returncode, ended.stdout[-4:]) == (0, "left"), ended.stderr
