"""A backfill with the captioner that runs in the process: one load for all shards, and what is finished stays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import dagster as dg
import pytest
import yaml

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.core.asset import asset
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.captioners import lmdeploy
from dqe_resources.captioners.lmdeploy_requests import Answer
from tests.caption_server import caption_of, jpeg
from tests.resources.captioners.test_lmdeploy_captioner import Engine
from tests.stages import stage_named

if TYPE_CHECKING:
    from pathlib import Path

PER_SHARD, SHARDS = 8, 3
KEYS = [f"stripes-{index:05}" for index in range(SHARDS)]
ASSET = "synthetic_captions/vlm"


@pytest.fixture
def loads(data: Path, monkeypatch) -> list[Engine]:
    """A source of three shards with a captioner, and the engines that are loaded for it, which die at image 20."""
    folder = data / "images"
    folder.mkdir()
    for number in range(PER_SHARD * SHARDS):
        (folder / f"{number:03}.jpg").write_bytes(jpeg(number))
        (folder / f"{number:03}.txt").write_text("a stripe")
    source = {"kind": "folder", "name": "stripes", "path": str(folder), "shard_size": PER_SHARD}
    captioner = {"kind": "lmdeploy", "name": "vlm", "model": "some/model", "checkpoint_every": 2, "concurrency": 2}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "captioners": [captioner]}))

    made: list[Engine] = []

    def load(_: object) -> Engine:
        def answer(request) -> Answer:
            number = request.image.width - 1
            if number == 20 and engine is made[0]:
                return Answer("", "error", code="engine_unavailable", error="CUDA error: device-side assert triggered")
            return Answer(caption_of(number), "stop", 3328, 20)

        engine = Engine(answer)
        made.append(engine)
        return engine

    monkeypatch.setattr(lmdeploy, "load", load)
    monkeypatch.setattr(lmdeploy, "_loaded", lmdeploy._Loaded())
    return made


def backfill(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """All shards in one run, as a backfill gives them."""
    settings = load_settings()
    stage = stage_named(settings, ASSET)
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    definition, resources = asset(stage, shards_per_run=settings.shards_per_run), dagster_resources(settings)
    return dg.materialize([definition], instance=instance, resources=resources, tags=tags, raise_on_error=False)


def test_one_load_serves_a_backfill_and_finished_captions_outlive_the_engine(loads):
    settings = load_settings()
    store = settings.opened_store
    with instance() as current:
        runner.sync(settings, current)
        assert runner.materialize(settings, current, assets=["raw_samples"]).failures == []
        first = backfill(current)
        assert not first.success
        (failure,) = first.get_step_failure_events()
        message = re.sub(r"\s+", " ", failure.step_failure_data.error.cause.message)
        assert "captioner vlm: lmdeploy's engine has stopped: CUDA error" in message
        kept = int(re.search(r"(\d+) of 8 captions are finished and kept", message)[1])
        assert len(loads) == 1
        assert [store.get(ASSET, key) is not None for key in KEYS] == [True, True, False]

        second = backfill(current)
        assert second.success
    assert len(loads) == 2
    assert len(loads[1].asked) == PER_SHARD - kept
    for index, key in enumerate(KEYS):
        texts = store.read(ASSET, key, SYNTHETIC_CAPTIONS, ["text"])["text"].to_pylist()
        assert texts == [caption_of(number) for number in range(PER_SHARD * index, PER_SHARD * (index + 1))]
