"""A backfill of several runs, through the real queue and daemon."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.orchestration.graph import stages
from dqe_assets.orchestration.settings import load_settings
from tests.conftest import make_data_folder
from tests.end_to_end.test_ui import write_photos
from tests.servers.dagster_services import BACKFILL_SECONDS, FINISHED, dagster_dev, poll

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """
sources: [{{kind: folder, name: photos, path: {folder}, shard_size: 4}}]
captioners: [{{kind: labels, name: labels}}]
image_text: null
shards_per_run: 1
concurrency: {{runs: 2, steps: 1}}
"""


def test_two_runs_of_a_backfill_make_progress_side_by_side(
    tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    photos, data = tmp_path / "photos", make_data_folder(tmp_path / "data", model_cache)
    (data / "dqe.yaml").write_text(SETTINGS.format(folder=photos))
    monkeypatch.setenv("DQE_DATA", str(data))
    write_photos(photos, 8)
    assets = [stage.name for stage in stages(load_settings()) if stage.partitioned]
    with dagster_dev(data) as ui:
        poll("shards", lambda: len(ui.shards()) == 2, 60)
        ui.backfill(assets, ui.shards())
        ended = poll("end", lambda: [one for one in ui.backfills() if one["status"] in FINISHED], BACKFILL_SECONDS)
        assert ended[0]["status"] == "COMPLETED_SUCCESS"
        fields = "stepStats {stepKey startTime endTime}"
        found: Any = ui.ask(f"{{runsOrError {{... on Runs {{results {{runId {fields}}}}}}}}}")["runsOrError"]["results"]
    assert len(found) == 2, "shards_per_run: 1 makes a run of each shard"
    first, second = ([(step["startTime"], step["endTime"]) for step in run["stepStats"]] for run in found)
    assert len(first) == len(second) == len(assets)
    inside = [step for step in first if min(second)[0] < step[1] and step[0] < max(second)[1]]
    assert len(inside) > 1, "steps of one run are made while the other is under way"
    model = [name for name in ("image_features", "joint_embeddings") if name in assets]
    spans = [
        (step["startTime"], step["endTime"]) for run in found for step in run["stepStats"] if step["stepKey"] in model
    ]
    ordered = sorted(spans)
    assert all(a[1] <= b[0] for a, b in pairwise(ordered)), "one step in the pool model at a time"
