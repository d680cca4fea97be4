"""From samples to advice: two subsets and all samples are trained, evaluated and compared, and the law is fitted.

Killed in the middle of training and of evaluation, it ends as if it had not been.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.evaluation.assets import RESULTS_FILE
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings, load_settings
from dqe_assets.training.loss_log import read_log
from tests.conftest import dqe, environment, make_data_folder
from tests.evaluation.made_tasks import write_tar
from tests.stages import table_of
from tests.training.toy import COLOURS, PLACES, SCALE, make, make_folder, picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

SAMPLES, HELD_OUT = 80, range(1000, 1128)
LOSS = "toy: pairs contrastive_loss"
TRAINED = ("training_run", "evaluation", "leaderboard", "training_curves", "class_counts/all", "class_counts/left")
LOOP = (*TRAINED, "class_counts/right", "concept_accuracies", "pool_utilities", "measured_mixtures")
RUNS = ("all-toy-0", "left-toy-0", "right-toy-0")
WRITTEN: dict[str, Any] = {
    "training": {
        "runs": [{"subsets": ["all", "left", "right"], "scale": "toy"}],
        "scales": {
            "toy": {
                **SCALE,
                "samples_seen": 1920,
                "checkpoints": 6,
                "learning_rate": 1e-3,
                "schedule": "constant_cooldown",
            }
        },
        "log_every": 5,
        "cpu_hour_price": 3600.0,
    },
    "subsets": [{"name": place, "expression": f"sql(\"caption LIKE '%{place}%'\")"} for place in PLACES],
    "evaluation": {"tasks": [{"path": "tasks/pairs"}, {"path": "tasks/walls"}], "checkpoints": "all"},
    "scaling": {
        "measurements": "trained",
        "metrics": [LOSS],
        "mixtures": {"all": ["left", "right"]},
        "unit": 100,
        "samples_seen": [1000],
    },
}


def write_tasks(folder: Path) -> None:
    """Pictures that are not trained on, as a task of retrieval and as one of classification."""
    pairs: dict[str, bytes] = {}
    walls: dict[str, bytes] = {}
    for number in HELD_OUT:
        image, caption, _ = picture(number)
        file = io.BytesIO()
        image.save(file, "PNG")
        pairs |= {f"{number}.png": file.getvalue(), f"{number}.txt": caption.encode()}
        walls |= {f"{number}.png": file.getvalue(), f"{number}.cls": str(number % 8).encode()}
    write_tar(folder / "pairs" / "0.tar", pairs)
    write_tar(folder / "walls" / "0.tar", walls)
    names = [f"{colour} wall on the {place}" for place in PLACES for colour in COLOURS]
    (folder / "walls" / "classnames.txt").write_text("\n".join(names))
    (folder / "walls" / "zeroshot_classification_templates.txt").write_text("a {c}\n")


def what_it_needs(settings: Settings, *names: str) -> list[str]:
    """Everything that these assets are made of."""
    stages = {stage.name: stage for stage in graph.stages(settings)}
    found: dict[str, None] = {}
    waiting = [*names]
    while waiting:
        stage = stages[waiting.pop()]
        reads = (*stage.inputs, *stage.unpartitioned_inputs, *stage.run_inputs)
        waiting += [name for name in reads if name not in found]
        found |= dict.fromkeys(reads)
    return [name for name in stages if name in found and name not in names]


def killed(data: Path, is_time: Callable[[], bool]) -> None:
    """Materialise the loop, and kill it once it is time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize", *LOOP],
        env=environment(data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None and not is_time():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def results(settings: Settings) -> dict[str, pa.Table]:
    """Everything that must be the same however often it was killed: all but how long it took."""
    tables = {name: table_of(settings, name) for name in LOOP[2:]}
    tables["leaderboard"] = tables["leaderboard"].drop_columns(["gpu_hours", "cpu_hours", "cost"])
    return tables | {run: table_of(settings, "evaluation", run) for run in RUNS}


@pytest.mark.slow
def test_the_loop_from_samples_to_advice_ends_the_same_however_often_it_is_killed(
    tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"

    def use(data: Path) -> None:
        for name in ("DQE_DATA", "DAGSTER_HOME"):
            monkeypatch.setenv(name, environment(data)[name])

    make_data_folder(whole, model_cache)
    use(whole)
    write_tasks(whole / "tasks")
    settings = make_folder(whole, SAMPLES, **WRITTEN)
    assert not make(settings, *what_it_needs(settings, *LOOP)).failures
    shutil.copytree(whole, torn, symlinks=True)
    assert not make(settings, *LOOP).failures
    expected = results(settings)

    board = {(row["score"], row["data"]): row for row in expected["leaderboard"].to_pylist()}
    assert board["walls", "all"]["value"] > 0.8, "a guess: 0.125"
    assert board["walls", "left"]["difference"] < -0.1, "half of the classes were never seen"
    assert board["walls", "left"]["rank"] is None, "a single seed proves nothing"
    cost = table_of(settings, "leaderboard").to_pylist()[0]
    assert cost["gpu_hours"] == 0
    assert cost["cpu_hours"] > 0
    assert cost["cost"] == pytest.approx(3600 * cost["cpu_hours"])
    utilities = {row["pool"]: row for row in expected["pool_utilities"].to_pylist()}
    assert set(utilities) == {"left", "right"}
    assert all(row["falls"] and row["b"] < -0.1 and row["points"] == 5 for row in utilities.values())
    mixtures = expected["measured_mixtures"].to_pylist()
    assert [row["samples_seen"] for row in mixtures] == [320, 640, 960, 1280, 1600]
    assert all(row["predicted"] is not None for row in mixtures)
    classes = {(row["data"], row["class_name"]): row for row in expected["concept_accuracies"].to_pylist()}
    assert classes["left", "red wall on the left"]["caption_samples"] == 10
    assert classes["left", "red wall on the right"]["caption_samples"] == 0
    assert classes["all", "red wall on the right"]["accuracy"] > 0.5

    evaluated = torn / "store" / "evaluation"
    killed(torn, lambda: any(line.step >= 50 for line in read_log(torn / "training" / RUNS[0])))
    assert not (torn / "store" / "training_run" / f"{RUNS[0]}.parquet").exists()
    killed(torn, lambda: len([*evaluated.rglob("*.arrow")]) >= 2)
    assert not [*evaluated.glob("*.parquet")], "it was killed in its first run"
    done = dqe(torn, "materialize", *LOOP)
    assert done.returncode == 0, done.stdout + done.stderr
    use(torn)
    found = results(load_settings({}))
    for name, table in expected.items():
        assert found[name].equals(table), name
    for run in RUNS:
        files = [data / "training" / run / RESULTS_FILE for data in (whole, torn)]
        assert files[0].read_bytes() == files[1].read_bytes()
