"""Runs that the UI starts, whose shards workers make: what people see of them there, and how they end them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from dqe_resources.cluster.board import at_work
from dqe_resources.processes import process
from tests.conftest import make_data_folder
from tests.hostile_server import noise
from tests.servers.dagster_services import Dagster, dagster_dev, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS = ["noise-00000", "noise-00001"]
# So many that each takes a core longer than the five seconds between two lines of the log.
IMAGES = 400
SECONDS = 180


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Dagster]:
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    data = make_data_folder(tmp_path_factory.mktemp("ui") / "data", model_cache)
    folder = data / "images"
    folder.mkdir()
    for number in range(len(SHARDS) * IMAGES):
        noise(number).save(folder / f"{number:04d}.png")
        (folder / f"{number:04d}.txt").write_text(f"noise, number {number}")
    source = {"kind": "folder", "name": "noise", "path": "images", "shard_size": IMAGES}
    cluster = {"kind": "local", "workers": 2}
    settings = {"sources": [source], "captioners": [], "image_text": None, "cluster": cluster}
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))
    with dagster_dev(data) as running:
        poll("shards", lambda: running.shards() == SHARDS, 60)
        yield running


def ended(ui: Dagster, run: str) -> str:
    return poll(
        "end of the run", lambda: (now := ui.status(run)) in {"SUCCESS", "FAILURE", "CANCELED"} and now, SECONDS
    )


def test_progress_of_workers_is_on_the_page_of_the_run_and_they_end_when_it_is_ended_there(
    ui: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DQE_DATA", str(ui.data))
    assert ended(ui, ui.launch(["raw_samples"], SHARDS)) == "SUCCESS"
    run = ui.launch(["image_features"], SHARDS)
    poll("two workers", lambda: len(at_work()) == 2, SECONDS)
    workers = at_work()
    assert {one.partition for one in workers} == set(SHARDS)

    def told() -> bool:
        lines = [one["message"] for one in ui.events(run) if one["__typename"] == "LogMessageEvent"]
        return all(
            any(f"image_features {key}: " in line and f" of {IMAGES}, " in line for line in lines) for key in SHARDS
        )

    poll("progress of both", told, SECONDS)
    ui.terminate(run)
    assert ended(ui, run) == "CANCELED"
    poll("end of the workers", lambda: not any(process(one.pid) for one in workers), 30)
    assert not at_work()


def test_what_a_worker_fails_at_is_on_the_page_of_the_run_with_its_traceback_and_the_other_shard_is_made(
    ui: Dagster,
) -> None:
    assert ended(ui, ui.launch(["raw_samples"], SHARDS)) == "SUCCESS"
    path = ui.data / "store" / "raw_samples" / f"{SHARDS[1]}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    run = ui.launch(["image_features"], SHARDS)
    assert ended(ui, run) == "FAILURE"
    events = ui.events(run)
    (failure,) = [one for one in events if one["__typename"] == "ExecutionStepFailureEvent"]
    errors = [failure["error"], *failure["error"]["causes"]]
    assert f"1 of 2 failed: {SHARDS[1]}: " in str([one["message"] for one in errors])
    assert "dqe_resources/cluster/work.py" in str(errors), "the traceback is the worker's"
    made = [one["message"] for one in events if one["__typename"] == "MaterializationEvent"]
    assert len(made) == 1
    path.write_bytes(whole)
    assert ended(ui, ui.launch(["image_features"], SHARDS)) == "SUCCESS"
