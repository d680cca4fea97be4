"""From samples to trained models: subsets of the finished sample, trained, killed, and asked for in the warehouse."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import yaml

from dqe_assets.orchestration.settings import load_settings
from dqe_assets.training.checkpoints import checkpoints, weights_digest
from dqe_assets.training.data import open_data
from dqe_assets.training.loader import load_examples
from dqe_assets.training.loop import train
from dqe_assets.training.loss_log import read_log
from tests.conftest import dqe, environment
from tests.training.toy import SCALE

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SCALES = {"toy": {**SCALE, "samples_seen": 1600, "checkpoints": 4}}
RUNS = [
    {"subsets": ["all", "best"], "scale": "toy"},
    {"subsets": ["best"], "scale": "toy", "captions": "best"},
]
KEYS = ["all-toy-0", "best-toy-0", "best_with_best-toy-0"]


def end_of(folder: Path) -> tuple[list[str], list[tuple[int, float]]]:
    """The weights of each checkpoint, and the losses of the log, of a run."""
    weights = [weights_digest(path) for path in checkpoints(folder).values()]
    return weights, [(line.step, line.loss) for line in read_log(folder)]


def killed_in(data: Path, run: str, step: int) -> None:
    """Materialise, and kill it once this step of this run has been taken."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dqe_assets.cli", "materialize"],
        env=environment(data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 240
    while time.monotonic() < end and not any(line.step >= step for line in read_log(data / "training" / run)):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_subsets_of_the_sample_are_trained_and_kills_change_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    shutil.copytree(finished, data, symlinks=True)
    settings = yaml.safe_load((data / "dqe.yaml").read_text())
    training = {"runs": RUNS, "scales": SCALES, "log_every": 10}
    (data / "dqe.yaml").write_text(yaml.safe_dump({**settings, "training": training}))
    assert "3 training runs; 3 added, 0 removed" in dqe(data, "sync").stdout

    killed_in(data, KEYS[0], 40)
    assert not (data / "store" / "training_run" / f"{KEYS[0]}.parquet").exists()
    assert 1 <= len(checkpoints(data / "training" / KEYS[0])) < 4
    killed_in(data, KEYS[1], 70)
    assert (data / "store" / "training_run" / f"{KEYS[0]}.parquet").exists()
    done = dqe(data, "materialize")
    assert done.returncode == 0, done.stdout + done.stderr
    killed = [end_of(data / "training" / key) for key in KEYS]
    assert [step for step, _ in killed[0][1]] == [10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100]

    asked = dqe(data, "sql", "SELECT run, captions, data_size, samples_seen, final_loss FROM training_runs")
    rows = list(csv.DictReader(asked.stdout.splitlines()))
    assert [(row["run"], row["captions"], row["samples_seen"]) for row in rows] == [
        (KEYS[0], "original", "1600"),
        (KEYS[1], "original", "1600"),
        (KEYS[2], "best", "1600"),
    ]
    assert int(rows[0]["data_size"]) > int(rows[1]["data_size"]) == int(rows[2]["data_size"]) > 20
    assert all(float(row["final_loss"]) < 2.7 for row in rows), "16 pairs by chance: 2.77"
    lines = dqe(data, "sql", "SELECT count(*) AS n, min(learning_rate) > 0 AS ok FROM training_log").stdout
    assert lines.splitlines()[1] == "36,True"
    assert "All is current." in dqe(data, "status").stdout

    monkeypatch.setenv("DQE_DATA", str(data))
    for key, found in zip(KEYS[:2], killed, strict=False):
        run = load_settings({}).training.run(key)
        architecture = str(data / "training" / key / f"{key}.json")
        examples = load_examples(open_data(run.data), architecture, run.captions)
        train(examples, architecture, tmp_path / key, scale=run.scale, seed=run.seed, log_every=10)
        assert end_of(tmp_path / key) == found, "as if it had never been killed"
