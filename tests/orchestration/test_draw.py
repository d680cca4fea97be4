"""What a source will take, from a draw: every stage measured, tokens and money as the server and the prices say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dqe_assets.orchestration.draw import Estimate, _Clock, plan_source
from dqe_assets.orchestration.settings import Settings
from tests.caption_server import CaptionServer, jpeg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PHOTOS = 40


def settings_of(data: Path, url: str) -> Settings:
    folder = data / "stripes"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(number))
        (folder / f"{number:02d}.txt").write_text(f"a stripe of {number} pixels")
    model = {"kind": "openai", "url": url, "model": "tiny", "price_per_gpu_hour": 36.0, "gpus": 2}
    away = {**model, "url": "http://127.0.0.1:9", "start_seconds": 0}
    return Settings.model_validate(
        {
            "sources": [{"kind": "folder", "name": "stripes", "path": str(folder), "shard_size": 10}],
            "captioners": [{**model, "name": "vlm"}, {**away, "name": "away"}],
            "image_text": None,
        }
    )


def test_every_stage_is_measured_and_what_cannot_be_is_said(data: Path) -> None:
    said: list[str] = []
    with CaptionServer() as server:
        settings = settings_of(data, server.url)
        found = plan_source(settings, settings.sources[0], 16, said.append)
        assert len(server.asked) == 20, "four parts of four, and one that bears the loading"
    assert (found.rows, found.shards, found.drawn) == (PHOTOS, 4, 16)
    stages = {one.stage: one for one in found.stages}
    made = [name for name, one in stages.items() if one.error is None]
    assert {"raw_samples", "image_features", "synthetic_captions/vlm"} <= set(made)
    vlm = stages["synthetic_captions/vlm"]
    assert vlm.tokens is not None
    assert 300 + 7 <= vlm.tokens.mean <= 300 + PHOTOS + 7, "as the server counts them"
    assert vlm.tokens.low < vlm.tokens.mean < vlm.tokens.high
    assert vlm.cost is not None
    assert vlm.gpu_seconds is not None
    assert vlm.cost.mean == pytest.approx(vlm.gpu_seconds.mean * 36 / 3600)
    assert vlm.seconds.mean > 0
    assert "127.0.0.1:9" in str(stages["synthetic_captions/away"].error)
    assert stages["joint_embeddings"].error == "needs synthetic_captions/away"
    assert "joint_embeddings" not in said
    assert not settings.opened_store.partitions("raw_samples"), "nothing is kept"


def test_an_estimate_is_the_mean_with_students_interval() -> None:
    found = Estimate.of([1.0, 2.0, 3.0, 2.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(3.182446 * (2 / 3) ** 0.5 / 2, rel=1e-5)
    assert Estimate.of([5.0]) == Estimate(5.0, 5.0, 5.0)
    assert Estimate(1, 0, 2).times(10) + Estimate(1, 1, 1) == Estimate(11, 1, 21)


def test_what_a_function_yields_is_measured_and_passed_on() -> None:
    clock = _Clock()

    def batches(count: int) -> Iterator[int]:
        yield from range(1, count + 1)

    assert list(clock.timed(batches)(3)) == [1, 2, 3]
    assert clock.timed(lambda: 7)() == 7
    assert clock.seconds > 0
